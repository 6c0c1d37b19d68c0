"""Input normalisation as the first layers of a network, so that attacks, budgets and bounds stay in pixel space.

All are differentiable, keep the shape of their input, and hold what they were fitted to in buffers, which weight files
store.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROWS = 4096  # of the data, that are held in float64 at a time


class MeanStd(nn.Module):
    """y = (x − mean) / std.

    Args:
        mean: a number, one value a channel (dimension 1 of the inputs), or a tensor of an input's shape, as a mean image.
        std: the same, > 0.

    Raises:
        ValueError: ``mean`` is not finite, or ``std`` not finite and > 0.

    Cost: one pass over memory.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | Sequence[float] | Tensor, std: float | Sequence[float] | Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", _values(mean))
        self.register_buffer("std", _values(std))
        if not bool(self.mean.isfinite().all()):
            raise ValueError(f"mean: expected finite values, got {mean}")
        if not bool((self.std.isfinite() & (self.std > 0)).all()):
            raise ValueError(f"std: expected finite values > 0, got {std}")

    @classmethod
    def fit(cls, inputs: Tensor) -> MeanStd:
        """With mean and standard deviation of each channel over the (N, C, …) inputs.

        Raises:
            ValueError: a channel is constant, or there are no inputs.
        """
        _check_data(inputs)
        others = [dim for dim in range(inputs.ndim) if dim != 1]
        std, mean = torch.std_mean(inputs.detach().double(), dim=others, correction=0)
        return cls(mean.to(inputs), std.to(inputs))

    def forward(self, inputs: Tensor) -> Tensor:
        scale = 1 / self.std
        shift = -self.mean * scale
        return torch.addcmul(_by_channel(shift, inputs), inputs, _by_channel(scale, inputs))


class GlobalContrast(nn.Module):
    """y = scale · (x − m) / √(v + bias), with the mean m and the variance v of all values of each input.

    Args:
        scale: standard deviation of the result, > 0.
        bias: > 0, in squared units of the inputs: inputs with less contrast are not blown up to the full scale, and the
            gradient exists for constant inputs too.

    Raises:
        ValueError: naming the argument.

    Cost: that of a layer norm, which it is.
    Source: Goodfellow, Bengio and Courville 2016, eq. 12.3 (with λ = bias); seed 003, §3.5.2. The scale of 55 that is
    common for CIFAR-10 is the l2 norm √3072 of an input, so ``scale=1`` here.
    """

    def __init__(self, scale: float = 1.0, bias: float = 1e-8) -> None:
        super().__init__()
        for name, value in (("scale", scale), ("bias", bias)):
            _check_positive(name, value)
        self.scale, self.bias = float(scale), float(bias)

    def forward(self, inputs: Tensor) -> Tensor:
        shape = inputs.shape[1:]
        return F.layer_norm(inputs, shape, weight=inputs.new_full(shape, self.scale), eps=self.bias)


class ZCA(nn.Module):
    """y = W (x − mean) with W = U (Λ + eps)^(−1/2) Uᵀ, where U Λ Uᵀ is the covariance of the data: whitened values that
    stay as near to the pixels as possible.

    On the data it was fitted to, the covariance of y is U Λ (Λ + eps)⁻¹ Uᵀ: the identity, but for the directions whose
    variance is not large against eps.

    Args:
        mean: (D,), D the number of values of an input.
        weight: W, (D, D).

    Raises:
        ValueError: the shapes do not fit each other.

    Cost: one product with a D × D matrix, outside autocast: whitening magnifies small differences, which half precision
    would lose.
    Source: Bell and Sejnowski 1997; seed 003, §3.5.2, after Krizhevsky 2009.
    """

    mean: Tensor
    weight: Tensor

    def __init__(self, mean: Tensor, weight: Tensor) -> None:
        super().__init__()
        if mean.ndim != 1 or weight.shape != (len(mean), len(mean)):
            raise ValueError(
                f"weight: expected mean (D,) and weight (D, D), got {tuple(mean.shape)}, {tuple(weight.shape)}"
            )
        self.register_buffer("mean", mean)
        self.register_buffer("weight", weight)

    @classmethod
    def fit(cls, inputs: Tensor, eps: float = 0.1) -> ZCA:
        """Whitening of (N, …) inputs, computed in float64, in their dtype and on their device.

        Args:
            inputs: what the layer will be given, so after :class:`GlobalContrast` where that comes first.
            eps: added to all variances, > 0; 0.1 is usual for inputs of variance 1.

        Raises:
            ValueError: ``eps`` is out of range, or there are no inputs.

        Cost: O(N D² + D³).
        """
        _check_positive("eps", eps)
        _check_data(inputs)
        rows = inputs.detach().flatten(1)
        mean = rows.mean(0, dtype=torch.float64)
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=rows.device)
        for part in rows.split(_ROWS):
            centred = part.double() - mean
            covariance.addmm_(centred.T, centred, alpha=1 / len(rows))
        variances, directions = torch.linalg.eigh(covariance)
        # Rounding leaves variances that are zero a little to either side of it.
        weight = (directions * (variances.clamp(min=0) + eps).rsqrt()) @ directions.T
        return cls(mean.to(inputs.dtype), weight.to(inputs.dtype))

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            centred = inputs.flatten(1).to(self.mean.dtype) - self.mean
            return F.linear(centred, self.weight).reshape(inputs.shape)


def _values(given: float | Sequence[float] | Tensor) -> Tensor:
    if isinstance(given, Tensor):
        return torch.atleast_1d(given.detach().clone())
    return torch.atleast_1d(torch.tensor(given, dtype=torch.get_default_dtype()))


def _by_channel(values: Tensor, inputs: Tensor) -> Tensor:
    """Values (C,) shaped to go with dimension 1 of the inputs; others as they are."""
    return values.reshape(-1, *[1] * (inputs.ndim - 2)) if values.ndim == 1 else values


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a finite number > 0, got {value!r}")


def _check_data(inputs: Tensor) -> None:
    if inputs.ndim < 2 or math.prod(inputs.shape) == 0:
        raise ValueError(f"inputs: expected a non-empty tensor (N, C, …), got shape {tuple(inputs.shape)}")
