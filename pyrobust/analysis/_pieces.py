"""Which linear piece every unit of a network is on, and where a line leaves it, read while the network runs.

A function mode sees the activations that a model calls, as modules or as functions, and their arguments as dual numbers where
there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from pyrobust._checks import Model
from pyrobust.training.operator_norm import jacobian_product

Value = float | Tensor
Pieces = tuple[Sequence[Value], Sequence[Value]]  # breakpoints, rising, and the slopes before, between and after them


def _clamp(x: Tensor, min: Value | None = None, max: Value | None = None, **_: Any) -> Pieces:
    breaks, slopes = [] if min is None else [min], [1.0] if min is None else [0.0, 1.0]
    return (breaks, slopes) if max is None else ([*breaks, max], [*slopes, 0.0])


def _rrelu(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, *_: Any, **__: Any) -> Pieces:
    return (0.0,), ((lower + upper) / 2, 1.0)  # that of evaluation mode


# The pieces of each function, called with its arguments.
ACTIVATIONS: dict[str, Callable[..., Pieces]] = {
    "relu": lambda x, *_, **__: ((0.0,), (0.0, 1.0)),
    "relu6": lambda x, *_, **__: ((0.0, 6.0), (0.0, 1.0, 0.0)),
    "leaky_relu": lambda x, negative_slope=0.01, *_, **__: ((0.0,), (negative_slope, 1.0)),
    "prelu": lambda x, weight: ((0.0,), (weight if weight.numel() == 1 else _by_channel(weight, x), 1.0)),
    "rrelu": _rrelu,
    "hardtanh": lambda x, min_val=-1.0, max_val=1.0, *_, **__: ((min_val, max_val), (0.0, 1.0, 0.0)),
    "hardsigmoid": lambda x, *_, **__: ((-3.0, 3.0), (0.0, 1 / 6, 0.0)),
    "threshold": lambda x, threshold, *_, **__: ((threshold,), (0.0, 1.0)),
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": lambda x, min: _clamp(x, min),
    "clamp_max": lambda x, max: _clamp(x, None, max),
}
POOLS = {"max_pool1d": 1, "max_pool2d": 2, "max_pool3d": 3}
# Not linear by pieces, or by pieces that are not followed here.
OTHERS = frozenset(
    [
        "abs", "absolute", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "amax", "amin",
        "atan", "celu", "cos", "cosh", "cosine_similarity", "cumprod", "elu", "erf", "exp", "exp2", "expm1",
        "fractional_max_pool2d", "fractional_max_pool3d", "ge", "gelu", "glu", "greater", "greater_equal",
        "group_norm", "gt", "gumbel_softmax", "hardshrink", "hardswish", "instance_norm", "layer_norm", "le",
        "less", "less_equal", "local_response_norm", "log", "log10", "log1p", "log2", "log_sigmoid", "log_softmax",
        "logaddexp", "logsigmoid", "logsumexp", "lp_pool1d", "lp_pool2d", "lp_pool3d", "lt", "max",
        "max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices", "maximum", "median",
        "min", "minimum", "mish", "multi_head_attention_forward", "norm", "normalize", "pow", "prod", "rdiv",
        "reciprocal", "rms_norm", "rpow", "rsqrt", "rtruediv", "scaled_dot_product_attention", "selu", "sigmoid",
        "sign", "silu", "sin", "sinh", "softmax", "softmin", "softplus", "softshrink", "softsign", "sort", "sqrt",
        "square", "std", "tan", "tanh", "tanhshrink", "topk", "var", "vector_norm",
    ]
)  # fmt: skip
# Linear in each operand, but not in two that depend on the inputs; nor in a divisor.
QUOTIENTS = frozenset(["div", "divide", "itruediv", "true_divide", "truediv"])
PRODUCTS = QUOTIENTS | {"bilinear", "bmm", "dot", "einsum", "imul", "inner", "matmul", "mm", "mul", "multiply", "mv"}


def _by_channel(weight: Tensor, x: Tensor) -> Tensor:
    return weight.reshape(-1, *[1] * (x.ndim - 2))


def _name(func: Any) -> str:
    return getattr(func, "__name__", "").strip("_")


def _input_first(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with ``input``, where it was given by name, in its place."""
    kwargs = dict(kwargs or {})
    return (args, kwargs) if args or "input" not in kwargs else ((kwargs.pop("input"),), kwargs)


def _is_dual(value: object) -> bool:
    return isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None


class Pattern(TorchFunctionMode):
    """Keeps the piece (uint8) of each unit, a tensor (N, …) an activation; with those of another point, ``base``, counts
    per sample in ``equal`` the units on the same piece instead. ``depends``: as `follow` found it; None: all do.

    A value on a breakpoint belongs to the piece above it.
    """

    def __init__(self, base: Sequence[Tensor] | None = None, depends: Sequence[bool] | None = None) -> None:
        super().__init__()
        self.pieces, self.equal = list[Tensor](), torch.zeros(())
        self._base, self._depends = (
            None if base is None else iter(base),
            repeat(True) if depends is None else iter(depends),
        )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = _input_first(args, kwargs)
        if (found := ACTIVATIONS.get(_name(func))) is not None and next(self._depends):
            breaks, _ = found(*args, **kwargs)
            piece = sum(((args[0] >= b).byte() for b in breaks), torch.zeros_like(args[0], dtype=torch.uint8))
            if self._base is None:
                self.pieces.append(piece)
            else:
                self.equal = self.equal + (piece == next(self._base)).flatten(1).sum(1)
        return func(*args, **kwargs)


class FirstChange(TorchFunctionMode):
    """On dual numbers x + t v: keeps in ``first`` (N,) the smallest t > 0 at which a unit, or the winner of a max pooling,
    changes; inf where none does. Up to there every value is linear in t, so each unit's t is a quotient.

    On a breakpoint, and among equal values in a pooling, it is the direction that says what comes: the tangent is that of the
    piece which the line enters, where autograd would take one of the two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first: Tensor | None = None
        self.depends = list[bool]()  # of each activation in turn, on the inputs
        self.module = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        (args, kwargs), name = _input_first(args, kwargs), _name(func)
        if name in PRODUCTS:
            operands = args[1] if name == "einsum" and isinstance(args[1], (list, tuple)) else (*args, *kwargs.values())
            if sum(map(_is_dual, operands)) > 1 or (name in QUOTIENTS and any(map(_is_dual, operands[1:]))):
                self._refuse(f"{name} by a value that depends on the inputs")
        if name in OTHERS and any(map(_is_dual, args)):
            self._refuse(name)
        if name not in ACTIVATIONS and name not in POOLS:
            return func(*args, **kwargs)
        x = args[0]
        value, tangent = forward_ad.unpack_dual(x)
        if name in ACTIVATIONS:
            self.depends.append(tangent is not None)
        if tangent is None:  # does not depend on the inputs
            return func(*args, **kwargs)
        if name in POOLS:
            return self._pool(func, POOLS[name], value, tangent, *args[1:], **kwargs)
        breaks, slopes = ACTIVATIONS[name](value, *args[1:], **kwargs)
        slope = torch.as_tensor(slopes[0], dtype=value.dtype, device=value.device)
        for b, before, after in zip(breaks, slopes[:-1], slopes[1:], strict=True):
            self._meet((b - value) / tangent)
            above = (value > b) | ((value == b) & (tangent >= 0))
            slope = slope + above.to(value.dtype) * (after - before)  # times a bool it would be rounded to float32
        in_place = func.__name__.endswith("_") or kwargs.get("inplace", False)
        output = forward_ad.make_dual(func(value.clone() if in_place else value, *args[1:], **kwargs), slope * tangent)
        return x.copy_(output) if in_place else output

    def _refuse(self, what: str) -> None:
        where = f" in module {self.module!r}" if self.module else ""
        raise ValueError(
            "model: expected activations that are linear by pieces "
            f"({', '.join(sorted(ACTIVATIONS))}) or max_pool1d to 3d, got {what}{where}: patterns do not apply"
        )

    def _meet(self, times: Tensor) -> None:
        first = torch.where(times > 0, times, torch.inf).flatten(1).amin(1)  # NaN, 0 / 0, is no crossing either
        self.first = first if self.first is None else torch.minimum(self.first, first)

    def _pool(
        self,
        func: Any,
        dims: int,
        value: Tensor,
        tangent: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        **_: Any,
    ) -> Tensor:
        stride = stride or kernel_size
        best = func(value, kernel_size, stride, padding, dilation, ceil_mode)
        each: list[Any] = [[n] * dims if isinstance(n, int) else n for n in (kernel_size, stride, padding, dilation)]
        values, tangents = (
            _windows(x, *each, counts=best.shape[2:], fill=fill) for x, fill in ((value, -torch.inf), (tangent, 0.0))
        )
        ahead = values == best.unsqueeze(-1)
        slope = torch.where(ahead, tangents, -torch.inf).amax(-1)
        faster = tangents - slope.unsqueeze(-1)
        self._meet(torch.where(faster > 0, (best.unsqueeze(-1) - values) / faster, torch.inf))
        return forward_ad.make_dual(best, slope)


def _windows(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *,
    counts: Sequence[int],
    fill: float,
) -> Tensor:
    """The values under each window of a pooling, (N, C, *counts, values of a window), ``fill`` beyond the edges."""
    for dim, (k, s, p, d, n) in enumerate(zip(kernel, stride, padding, dilation, counts, strict=True), 2):
        span = d * (k - 1) + 1
        edges = [0, 0] * (x.ndim - dim - 1) + [p, (n - 1) * s + span - x.shape[dim] - p]
        x = F.pad(x, edges, value=fill).unfold(dim, span, s)[..., ::d]
    return x.flatten(-len(kernel))


def first_change(model: Model, points: Tensor, directions: Tensor) -> Tensor:
    """(N,) the smallest t > 0 at which the network at points + t · directions leaves its linear piece.

    Raises:
        ValueError: an activation that is not linear by pieces, by name, and its module's.
    """
    first = follow(model, points, directions).first
    return points.new_full((len(points),), torch.inf) if first is None else first


def follow(model: Model, points: Tensor, directions: Tensor) -> FirstChange:
    """What the network does along the directions: the first change, and which of its activations depend on the inputs.

    Raises:
        ValueError: as of :func:`first_change`.
    """
    model = getattr(model, "_orig_mod", model)
    with ExitStack() as stack:
        mode = stack.enter_context(FirstChange())
        if isinstance(model, nn.Module):
            for name, module in model.named_modules():
                stack.enter_context(
                    module.register_forward_pre_hook(lambda *_, name=name: setattr(mode, "module", name))
                )
        jacobian_product(model, points, directions)
    return mode
