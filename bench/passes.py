"""What an attack asks of a model, recorded, and the same passes alone: the yardstick of its wall time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bench.networks import Subject


@dataclass
class Pass:
    """One forward pass and the backward passes to its inputs.

    Attributes:
        samples: it was called with.
        tracked: whether autograd recorded it.
        seeds: of each backward pass: 0 of a plain one, else the number of gradients that one batched pass took.
    """

    samples: int
    tracked: bool
    seeds: list[int] = field(default_factory=list)


class Recorded(nn.Module):
    """Writes down every pass of a model. Backward passes are seen where they reach the inputs, so one from an inner
    layer is seen as well."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.passes: list[Pass] = []

    def forward(self, inputs: Tensor) -> Tensor:
        made = Pass(len(inputs), torch.is_grad_enabled() and inputs.requires_grad)
        self.passes.append(made)
        if made.tracked:
            inputs = inputs.view_as(inputs)  # the hook goes on a tensor of this pass alone
            inputs.register_hook(lambda grad: made.seeds.append(_batched(grad)))
        logits: Tensor = self.model(inputs)
        return logits

    @property
    def forwards(self) -> int:
        """Predictions, one a sample."""
        return sum(made.samples for made in self.passes)

    @property
    def gradients(self) -> int:
        """Vector-Jacobian products, one a sample."""
        return sum(made.samples * max(1, count) for made in self.passes for count in made.seeds)


def _batched(grad: Tensor) -> int:
    if not torch._C._functorch.is_legacy_batchedtensor(grad):  # of autograd.grad(…, is_grads_batched=True)
        return 0
    return len(torch._remove_batch_dim(grad, 1, 1, 0))


def bare_loop(subject: Subject, passes: Sequence[Pass]) -> Callable[[], None]:
    """The passes alone, in their order and at their batch sizes, on the images themselves; a backward pass starts from
    fixed gradients with respect to the logits in place of a loss."""
    images, model = subject.inputs, subject.model
    points = {made.samples: _first(images, made.samples) for made in passes}
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    generator = torch.Generator().manual_seed(0)
    shapes = {(made.samples, count) for made in passes for count in made.seeds}
    seeds = {
        (samples, count): torch.randn(*[count] * (count > 0), samples, classes, generator=generator).to(images.device)
        for samples, count in sorted(shapes)
    }

    def run() -> None:
        for made in passes:
            point = points[made.samples].detach().requires_grad_(made.tracked)
            with torch.set_grad_enabled(made.tracked):
                logits = model(point)
            for number, count in enumerate(made.seeds, 1):
                torch.autograd.grad(
                    logits,
                    point,
                    seeds[made.samples, count],
                    retain_graph=number < len(made.seeds),
                    is_grads_batched=count > 0,
                )

    return run


def _first(images: Tensor, count: int) -> Tensor:
    """The first so many images, from the first one again where there are fewer."""
    return images.repeat(-(-count // len(images)), *[1] * (images.ndim - 1))[:count].contiguous()
