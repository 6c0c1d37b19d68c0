"""Clean and robust accuracy on samples that are held out of the training set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks import pgd
from pyrobust.attacks._common import check_count, check_number, check_positive, undisturbed
from pyrobust.training.distributed import World
from pyrobust.training.randomness import SPLIT, shuffled


@dataclass(frozen=True)
class Validation:
    """What is held out, and how strong the attack on it is.

    The robust accuracy is over all held-out samples: those that PGD at this budget leaves correct. It serves to choose
    between epochs; the test set and stronger attacks are for `pyrobust.evaluate`.

    Attributes:
        share: of the training set, in (0, 1); which samples follows from the seed of the training.
        eps: radius of the ball in the units of the inputs, > 0; None: the clean accuracy alone.
        norm: "linf", "l2" or "l1".
        steps: of PGD.
        batch_size: samples a forward pass.
    """

    share: float = 0.1
    eps: float | None = None
    norm: Norm = "linf"
    steps: int = 10
    batch_size: int = 256

    def __post_init__(self) -> None:
        check_positive(share=self.share, below=1)
        if self.eps is not None:
            check_number("eps", self.eps, 0, above=True)
        norm_name(self.norm, ("l1", "l2", "linf"))
        check_count(steps=self.steps, batch_size=self.batch_size)

    @property
    def measure(self) -> str:
        """What epochs are compared by: "robust" where ``eps`` is given, else "clean"."""
        return "clean" if self.eps is None else "robust"

    def split(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Indices (ascending) of the samples to train on, and of those that are held out: at least one of each."""
        held = min(max(round(self.share * count), 1), count - 1)
        order = shuffled(torch.arange(count), SPLIT, seed)
        return order[held:].sort().values, order[:held].sort().values

    def run(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, sample_ids: Tensor, bounds: Bounds, seed: int
    ) -> dict[str, float]:
        """`accuracies` of the samples ``sample_ids`` of the training set ``inputs``, ``labels``."""
        return accuracies(
            model, inputs, labels, sample_ids, norm=self.norm, eps=self.eps, steps=self.steps, bounds=bounds, seed=seed,
            batch_size=self.batch_size,
        )  # fmt: skip


def accuracies(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    sample_ids: Tensor,
    *,
    norm: Norm = "linf",
    eps: float | None = None,
    steps: int = 10,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    batch_size: int = 256,
) -> dict[str, float]:
    """The shares of the samples that the model gets right: "clean", and "robust" after PGD where ``eps`` is given.

    The model runs in evaluation mode and in its own precision, and is left as found. Under DDP each process takes some
    of the batches.

    Args:
        inputs, labels: the whole set, anywhere; batches go to the model's device.
        sample_ids: int64, which samples of the set; they key the random starts.

    Cost: one forward pass a sample; with ``eps``, steps + 3 more forward and ``steps`` backward passes.
    """
    device = next(model.parameters()).device
    world = World.current()
    right = torch.zeros(2, dtype=torch.float64, device=device)
    with undisturbed(model):
        for ids in sample_ids.split(batch_size)[world.rank :: world.size]:
            chosen = ids.to(inputs.device)
            x, y = inputs[chosen].to(device), labels[chosen].to(device)
            with torch.no_grad():
                right[0] += (model(x).argmax(1) == y).sum()
            if eps is not None:
                adv = pgd(
                    model, x, y, eps=eps, norm=norm, steps=steps, bounds=bounds, seed=seed, sample_ids=ids.to(device)
                )
                with torch.no_grad():
                    right[1] += (model(adv).argmax(1) == y).sum()
    clean, robust = (world.sum(right) / len(sample_ids)).tolist()
    return {"clean": clean} if eps is None else {"clean": clean, "robust": robust}
