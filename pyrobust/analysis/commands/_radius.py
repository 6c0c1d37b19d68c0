"""The l2 norm that most smallest perturbations are within: where analyses look when they are not told."""

from __future__ import annotations

import torch
from torch import Tensor

FOOLED = 0.95  # share of the samples that the norm suffices for: "almost all" in seed 004


def sufficient_norm(argument: str, norms: Tensor) -> float:
    """The norm that suffices for `FOOLED` of the samples, of those where ``norms`` (N,) is that of a perturbation: neither 0,
    where the sample was wrong already, nor inf, where none was found.

    Raises:
        ValueError: naming ``argument``, which has to be given instead: there is no perturbation.
    """
    broken = norms[(norms > 0) & norms.isfinite()]
    if not len(broken):
        raise ValueError(f"{argument}: the attack found no adversarial example to take it from; give it as a number")
    return float(torch.quantile(broken.double(), FOOLED))
