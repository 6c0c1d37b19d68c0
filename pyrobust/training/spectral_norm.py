"""Global spectral norm regularisation: of the weights, whatever the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust.attacks._common import check_count
from pyrobust.training.randomness import keyed_seed
from pyrobust.training.term import Batch, Term

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class SpectralNorm(Term):
    """½ Σ_ℓ σ(Wˡ)² over all linear and convolutional layers, σ the largest singular value.

    A kernel (C_out, C_in / groups, …) is taken as the matrix C_out × (C_in / groups · …), as in the paper: its σ is not that
    of the convolution. σ comes from power iteration from the u of the training step before, one vector a layer, which the
    buffer ``u`` holds end to end: σ grows towards its value over the steps. The product of all σ bounds the spectral norm of
    the Jacobian of a network without batch norm or shortcuts, if loosely.

    Args:
        model: to be trained; only the sizes, the dtype and the device of its weights are read.
        steps: of the power iteration a training step, at least 1.
        seed: of the first u.

    Raises:
        ValueError: ``steps``; a model without such layers, or another model than at the start.

    Cost: no pass through the model. ``steps`` reads of all weights in one launch; their gradients are written once.
    Source: seed 004, eq. 4–5; Yoshida and Miyato 2017, §3.
    """

    u: Tensor

    def __init__(self, model: nn.Module, steps: int = 1, seed: int = 0) -> None:
        super().__init__()
        check_count(steps=steps)
        self.steps = steps
        weights = _weights(model)
        if not weights:
            raise ValueError("model: expected at least one linear or convolutional layer")
        dtype = torch.float64 if weights[0].dtype == torch.float64 else torch.float32
        generator = torch.Generator().manual_seed(keyed_seed(seed))
        u = torch.randn(sum(map(len, weights)), generator=generator, dtype=dtype)
        self.register_buffer("u", u.to(weights[0].device))

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        weights = _weights(model)
        rows = [len(weight) for weight in weights]
        if sum(rows) != len(self.u):
            raise ValueError(
                f"model: expected layers of {len(self.u)} outputs in all, as at the start, got {sum(rows)}"
            )
        return 0.5 * ops.spectral_norm_step_(weights, self.u.split(rows), self.steps).sigmas.square().sum()


def _weights(model: nn.Module) -> list[Tensor]:
    return [module.weight for module in model.modules() if isinstance(module, _LAYERS)]
