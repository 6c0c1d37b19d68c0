"""Lipschitz constants of layers in l2, and their product: a bound of the network's, however loose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from pyrobust.analysis.lanczos import largest_singular
from pyrobust.attacks._common import check_count, undisturbed
from pyrobust.models.normalisation import ZCA, MeanStd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAILURE = 1e-9  # probability, over the random start, that a bound by the Lanczos iteration does not hold
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_SHAPES = (nn.Identity, nn.Flatten, nn.Unflatten)
_ONE = (*_SHAPES, *_DROPOUTS, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Tanh, nn.Softplus, nn.Softsign)
# The largest |derivative| of each function.
_SLOPES: dict[type[nn.Module], Callable[[Any], float]] = {
    nn.Sigmoid: lambda _: 0.25,
    nn.GELU: lambda _: 1.13,  # 1.1289; 1.1295 of the tanh approximation
    nn.SiLU: lambda _: 1.1,  # 1.0998
    nn.LeakyReLU: lambda module: max(1.0, abs(module.negative_slope)),
    nn.PReLU: lambda module: max(1.0, float(module.weight.detach().abs().max())),
    nn.ELU: lambda module: max(1.0, abs(module.alpha)),
}


class LayerNorm(NamedTuple):
    """A layer's Lipschitz constant in l2.

    Attributes:
        name: of the module.
        kind: its class.
        estimate: the constant of linear layers, from below where ``bound`` is above; else ``bound``.
        bound: not below the constant.
    """

    name: str
    kind: str
    estimate: float
    bound: float


@dataclass(frozen=True)
class LipschitzUpper:
    """What :func:`lipschitz_upper` found: the layers in order."""

    layers: tuple[LayerNorm, ...]

    @property
    def bound(self) -> float:
        """The product of the layers' bounds."""
        return math.prod(layer.bound for layer in self.layers)

    @property
    def estimate(self) -> float:
        """The product of the layers' estimates: what ``bound`` tends to with more steps."""
        return math.prod(layer.estimate for layer in self.layers)

    def plot(self) -> Figure:
        """The layers' bounds, those of 1 left out."""
        from pyrobust.analysis._draw_spectrum import draw_layers

        return draw_layers(self)


def lipschitz_upper(model: nn.Module, shape: tuple[int, ...], *, steps: int = 100, seed: int = 0) -> LipschitzUpper:
    """‖f(x) − f(y)‖₂ ≤ ∏ L_ℓ ‖x − y‖₂ for all x and y, L_ℓ the Lipschitz constants of the layers in evaluation mode.

    Linear and whitening layers: the largest singular value, by SVD. Convolutions and average pools: that of the very map,
    with its input size, stride, padding and groups (not that of the kernel as a matrix), by Lanczos bidiagonalisation from
    a random start. That comes from below; k steps in d dimensions leave σ₁ ≤ σ̂ / √(1 − e), √e = ln(1.648 √d / 1e-9) /
    (2k − 1), but for a probability of 1e-9, and this is the bound. Batch norm and MeanStd: the largest scale. Max
    pools: the square root of the number of windows that share an entry, 1 where they do not overlap. Activations: the
    largest slope; dropout and reshaping: 1.

    Args:
        model: a layer, or layers in ``nn.Sequential``, nested as may be.
        shape: of one input.
        steps: of the Lanczos iteration.
        seed: of its start.

    Returns:
        LipschitzUpper.

    Raises:
        ValueError: naming a module of which no constant is known, or an argument.

    Cost: ``steps`` forward and backward passes of one sample through each convolution, in float64.
    Source: seed 004, §3 (the product over the layers); Szegedy et al. 2014, §4.3, for convolutions as maps; Kuczyński
    and Woźniakowski 1992, theorem 4.2, for the error of the Lanczos iteration.
    """
    check_count(steps=steps)
    found = []
    parameter = next(model.parameters(), torch.empty(0))
    sample = torch.zeros(1, *shape, dtype=parameter.dtype, device=parameter.device)
    with undisturbed(model), torch.no_grad():
        for name, module in _chain(model, ""):
            estimate, bound = _constant(name, module, sample, steps, seed)
            found.append(LayerNorm(name, type(module).__name__, estimate, bound))
            sample = module(sample)
    return LipschitzUpper(tuple(found))


def _chain(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """The layers in the order in which they are applied."""
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        for child, inner in zip(module._modules, module, strict=True):  # named_children() names a shared layer once
            yield from _chain(inner, f"{name}.{child}" if name else child)
    else:
        yield name, module


def _constant(name: str, module: nn.Module, sample: Tensor, steps: int, seed: int) -> tuple[float, float]:
    """(estimate, bound)."""
    kind = type(module)  # a subclass may compute anything
    if kind in _CONVOLUTIONS + _AVERAGES:
        return _map_norm(module, sample, steps, seed)
    if isinstance(module, (nn.Linear, ZCA)) and kind in (nn.Linear, ZCA):
        value = float(torch.linalg.svdvals(module.weight.detach().double())[0])
    elif isinstance(module, MeanStd) and kind is MeanStd:
        value = float(1 / module.std.double().min())
    elif isinstance(module, _BATCH_NORMS) and kind in _BATCH_NORMS and module.running_var is not None:
        scale = (module.running_var.double() + module.eps).rsqrt()
        value = float((scale if module.weight is None else scale * module.weight.double()).abs().max())
    elif kind in _MAX_POOLS:
        value = _overlap(module, sample.ndim - 2)
    elif kind in _SLOPES:
        value = _SLOPES[kind](module)
    elif kind in _ONE:
        value = 1.0
    else:
        where = f" at {name!r}" if name else ""
        raise ValueError(f"model: no Lipschitz constant is known of {type(module).__name__}{where}")
    return value, value


def _map_norm(module: nn.Module, sample: Tensor, steps: int, seed: int) -> tuple[float, float]:
    """Of an affine layer A x + b, at the shape of the sample."""
    state = {name: tensor.detach().double() for name, tensor in module.named_parameters() if name != "bias"}
    if getattr(module, "bias", None) is not None:
        state["bias"] = torch.zeros_like(module.bias, dtype=torch.float64)  # type: ignore[arg-type]
    zero = torch.zeros_like(sample, dtype=torch.float64).requires_grad_()
    with torch.enable_grad():
        output = torch.func.functional_call(module, state, (zero,))

    def forward(v: Tensor) -> Tensor:
        return torch.func.functional_call(module, state, (v.reshape(zero.shape),)).flatten(1)

    def backward(u: Tensor) -> Tensor:
        return torch.autograd.grad(output, zero, u.reshape(output.shape), retain_graph=True)[0].flatten(1)

    product, transposed = (forward, backward) if zero.numel() <= output.numel() else (backward, forward)
    side = min(zero.numel(), output.numel())
    start = torch.randn(1, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(zero.device)
    triples = largest_singular(product, transposed, start, 1, 0.0, steps)
    value = float(triples.values)
    if triples.steps == side or bool(triples.exhausted):
        return value, value
    root = math.log(1.648 * math.sqrt(side) / FAILURE) / (2 * triples.steps - 1)
    return value, value / math.sqrt(1 - root**2) if root < 1 else math.inf


def _overlap(module: nn.Module, dimensions: int) -> float:
    """√ of how many windows may take their maximum from one entry."""
    per_side = [_each(getattr(module, field), dimensions) for field in ("kernel_size", "stride", "dilation")]
    windows = (math.ceil(size / stride) if gap == 1 else size for size, stride, gap in zip(*per_side, strict=True))
    return math.sqrt(math.prod(windows))


def _each(value: int | tuple[int, ...], dimensions: int) -> tuple[int, ...]:
    return (value,) * dimensions if isinstance(value, int) else value
