"""What a training step asks of a model, recorded, and the same passes alone: the yardstick of its wall time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


@dataclass
class Pulled:
    """A backward pass to the inputs.

    Attributes:
        graph: whether it recorded a graph of its own.
        final: whether the last backward pass differentiated it once more.
    """

    graph: bool
    final: bool = False


@dataclass
class Pass:
    """One forward pass and what was differentiated of it.

    Attributes:
        training: the model's mode.
        graph: whether autograd recorded it.
        tracked: whether the inputs required their gradient.
        dual: whether it ran on dual numbers (forward-mode derivatives).
        final: whether the last backward pass, to the parameters, started from its logits.
        pulled: the backward passes to its inputs before that.
    """

    training: bool
    graph: bool
    tracked: bool
    dual: bool
    final: bool = False
    pulled: list[Pulled] = field(default_factory=list)


class Recorded(nn.Module):
    """Writes down every pass of a model during a training step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.passes: list[Pass] = []
        self.ending = False

    def forward(self, inputs: Tensor) -> Tensor:
        graph = torch.is_grad_enabled()
        dual = forward_ad._current_level >= 0 and forward_ad.unpack_dual(inputs).tangent is not None
        made = Pass(self.model.training, graph, graph and inputs.requires_grad, dual)
        self.passes.append(made)
        if made.tracked:
            inputs = inputs.view_as(inputs)  # the hook goes on a tensor of this pass alone
            inputs.register_hook(lambda grad: self._pulled(made, grad))
        logits: Tensor = self.model(inputs)
        if logits.requires_grad:
            logits.register_hook(lambda _: self._reached(made))
        return logits

    @contextmanager
    def last_backward(self) -> Iterator[None]:
        """Around the backward pass of the loss, to the parameters."""
        self.ending = True
        yield
        self.ending = False

    def _pulled(self, made: Pass, grad: Tensor) -> None:
        if self.ending:
            return
        pulled = Pulled(grad.requires_grad)
        made.pulled.append(pulled)
        if pulled.graph:
            grad.register_hook(lambda _: setattr(pulled, "final", self.ending))

    def _reached(self, made: Pass) -> None:
        made.final |= self.ending


def counts(passes: Sequence[Pass]) -> dict[str, int]:
    """Passes of the whole batch: forward (on dual numbers apart), backward (to the inputs, or through logits to the
    parameters) and backward passes that were differentiated once more."""
    pulled = [p for made in passes for p in made.pulled]
    return {
        "forwards": sum(not made.dual for made in passes),
        "duals": sum(made.dual for made in passes),
        "backwards": len(pulled) + sum(made.final for made in passes),
        "second_backwards": sum(p.final for p in pulled),
    }


def bare_step(model: nn.Module, inputs: Tensor, passes: Sequence[Pass]) -> Callable[[], None]:
    """The passes alone, in their order, on the inputs themselves: fixed gradients with respect to the logits (and to the
    input gradients that are differentiated once more) in place of a loss."""
    with torch.no_grad():
        logits = model.eval()(inputs)
    generator = torch.Generator().manual_seed(0)
    seed = torch.randn(logits.shape, generator=generator).to(inputs)
    direction = torch.randn(inputs.shape, generator=generator).to(inputs)

    def run() -> None:
        roots, seeds = [], []
        for made in passes:
            if model.training != made.training:
                model.train(made.training)
            if made.dual:
                with torch.no_grad(), forward_ad.dual_level():
                    model(forward_ad.make_dual(inputs, direction))
                continue
            point = inputs.detach().requires_grad_(made.tracked)
            with torch.set_grad_enabled(made.graph):
                logits = model(point)
            for number, pulled in enumerate(made.pulled, 1):
                keep = made.final or pulled.graph or number < len(made.pulled)
                (grad,) = torch.autograd.grad(logits, point, seed, retain_graph=keep, create_graph=pulled.graph)
                if pulled.final:
                    roots.append(grad)
                    seeds.append(direction)
            if made.final:
                roots.append(logits)
                seeds.append(seed)
        if roots:
            torch.autograd.backward(roots, seeds)
        model.zero_grad()

    return run
