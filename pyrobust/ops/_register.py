"""How an op is declared, once: schema, shape check, reference, native call, derivative; and its way around the
dispatcher.

An op works on rows: dimension 0 is the batch, all others together are one row; a 1-D tensor is one row. Every op is a
torch.library op, so it works under torch.compile, torch.export and CUDA graphs. An eager call that needs none of that
machinery goes straight to the native function, which saves several microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyrobust.ops._native import DTYPE_CODES, ROW_DTYPES, has_kernel, launch

LIBRARY = torch.library.Library("pyrobust", "DEF")  # kept alive for the life of the process
_PLAIN_TYPES = (Tensor, torch.nn.Parameter)


_is_compiling = torch.compiler.is_compiling
_dispatch_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._functorch.peek_interpreter_stack
_grad_enabled = torch.is_grad_enabled
_is_inference = torch.is_inference_mode_enabled
_increment_version = torch._C._increment_version  # torch.autograd.graph's, less its Python wrapper


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether an eager call on these tensors may skip the dispatcher: nothing traces, transforms or differentiates it."""
    if _is_compiling() or _dispatch_modes() or _transforms() is not None:
        return False
    for t in tensors:
        if t is None:
            continue
        if type(t) not in _PLAIN_TYPES or not (t.is_cpu or has_kernel(t)) or (t.requires_grad and _grad_enabled()):
            return False
    return True


def mark_changed(tensors: tuple[Tensor, ...]) -> None:
    """Tell autograd that a native call wrote to these tensors, as the dispatcher does for an op's in-place
    arguments."""
    if not _is_inference():
        _increment_version(tensors)


def row_shape(x: Tensor) -> tuple[int, int]:
    """(rows, elements a row) of a tensor: dimension 0 is the batch; a 1-D tensor is one row."""
    if x.dim() < 2:
        return 1, x.numel()
    rows = x.shape[0]
    return rows, (x.numel() // rows if rows else 0)


def per_row(values: Tensor, x: Tensor) -> Tensor:
    """One value a row, shaped to broadcast against ``x`` viewed as (rows, elements)."""
    return values.reshape(-1, *([1] * (max(x.ndim, 2) - 1))) if x.ndim > 1 else values.reshape(1)


def check_rows(name: str, x: Tensor, argument: str = "x") -> None:
    """Raise unless ``x`` is a tensor of a supported dtype with at least one dimension."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: {argument}: expected a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in DTYPE_CODES:
        raise TypeError(f"{name}: {argument}: expected float32, float64, float16 or bfloat16, got {x.dtype}")
    if x.dim() == 0:
        raise ValueError(f"{name}: {argument}: expected at least one dimension, got a scalar tensor")


def check_like(name: str, argument: str, tensor: Tensor, x: Tensor) -> None:
    """Raise unless ``tensor`` has the shape, dtype and device of ``x``."""
    same = isinstance(tensor, Tensor) and tensor.dtype is x.dtype and tensor.shape == x.shape
    if not same or tensor.device != x.device:
        check_tensor(name, argument, tensor, x.shape, x.dtype, x.device)


def check_tensor(
    name: str, argument: str, tensor: Tensor, shape: torch.Size, dtype: torch.dtype, device: torch.device
) -> None:
    """Raise unless ``tensor`` has this shape, dtype and device."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: {argument}: expected a torch.Tensor, got {type(tensor).__name__}")
    if tensor.dtype is not dtype or tensor.shape != shape or tensor.device != device:
        raise ValueError(
            f"{name}: {argument}: expected {dtype} {tuple(shape)} on {device}, "
            f"got {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
        )


def check_bounds(name: str, bounds: tuple[float, float]) -> tuple[float, float]:
    """The bounds as floats; raises unless they are finite with low < high."""
    low, high = float(bounds[0]), float(bounds[1])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{name}: bounds: expected finite (low, high) with low < high, got {bounds}")
    return low, high


def split_scalar(name: str, argument: str, value: float | Tensor, x: Tensor) -> tuple[float, Tensor | None]:
    """A number for every row, or a tensor (N,) with one a row, as the pair (number, tensor or None) of the schemas.

    Raises:
        TypeError, ValueError: not a number >= 0, or not a tensor of one value a row on the device of ``x``. The values
            of a tensor are not read (that would synchronise): a row whose value is negative or NaN becomes NaN.
    """
    if isinstance(value, Tensor):
        rows = x.shape[0] if x.ndim > 1 else 1
        if (
            value.numel() != rows
            or value.device != x.device
            or not (value.is_floating_point() or value.dtype == torch.int64)
        ):
            raise ValueError(
                f"{name}: {argument}: expected a number or a floating tensor of {rows} values, one a row, on {x.device}, "
                f"got {value.dtype} {tuple(value.shape)} on {value.device}"
            )
        if value.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{name}: {argument}: expected a tensor that does not require grad (no derivative is defined)"
            )
        return 0.0, value.detach().to(ROW_DTYPES[x.dtype]).reshape(-1).contiguous()
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {argument}: expected a number or a tensor, got {type(value).__name__}") from None
    if not number >= 0:
        raise ValueError(f"{name}: {argument}: expected a value >= 0, got {number}")
    return number, None


def register(
    name: str,
    schema: str,
    *,
    run: Callable[..., Any],
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> None:
    """Declare ``pyrobust::name``: ``run`` for devices with kernels, ``reference`` for every other."""
    LIBRARY.define(f"{name}{schema}", tags=[torch.Tag.needs_fixed_stride_order])
    LIBRARY.impl(name, reference, "CompositeExplicitAutograd")
    LIBRARY.impl(name, run, "CPU")
    LIBRARY.impl(name, lambda x, *args: run(x, *args) if has_kernel(x) else reference(x, *args), "CUDA")
    torch.library.register_fake(f"pyrobust::{name}", fake, lib=LIBRARY)
    if backward is not None:
        torch.library.register_autograd(f"pyrobust::{name}", backward, setup_context=setup_context, lib=LIBRARY)


class RowOp:
    """An op from ``x`` to a tensor like ``x``, with an in-place twin; called with its schema's arguments, already
    checked.

    Args:
        name: of the native function.
        args: the schema after ``Tensor x``. A pair ``float radius, Tensor? radii`` (any name ending in "s" or not) is
            one native
            field: the address of the per-row values where there are some, else the number.
        reference: the same function in plain PyTorch, rows flattened: ``reference(x2d, *args)`` in x's dtype.
        vjp: ``vjp(grad, x, y, *args)`` in the shape of x, or None where no derivative is defined.
        planes: rows are (C, elements) planes; the position-wise groups over C are what the native function counts as
            elements.
    """

    def __init__(
        self,
        name: str,
        args: str,
        reference: Callable[..., Tensor],
        vjp: Callable[..., Tensor] | None = None,
        channels: int | None = None,
    ) -> None:
        self.name = name
        self.channels = channels  # the place of `int channels` among args, or None
        parts = [part.strip() for part in args.split(",")] if args else []
        self._optional = next((i for i, part in enumerate(parts) if part.startswith("Tensor?")), None)
        self._tensors = [i for i, part in enumerate(parts) if part.startswith("Tensor ")]
        tail = "".join(f", {part}" for part in parts)

        def flat_reference(x: Tensor, *rest: Any) -> Tensor:
            flat = [r.reshape(row_shape(x)) if isinstance(r, Tensor) and r.shape == x.shape else r for r in rest]
            return reference(x.reshape(row_shape(x)), *flat).to(x.dtype).reshape(x.shape)

        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            x, *rest = inputs
            ctx.tensors_at = [i for i, r in enumerate(rest) if isinstance(r, Tensor)]
            ctx.rest = [None if isinstance(r, Tensor) else r for r in rest]
            ctx.save_for_backward(x, output, *(rest[i] for i in ctx.tensors_at))

        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            x, y, *tensors = ctx.saved_tensors
            rest = list(ctx.rest)
            for i, tensor in zip(ctx.tensors_at, tensors, strict=True):
                rest[i] = tensor
            assert vjp is not None
            wide = ROW_DTYPES[x.dtype]  # counts and sums over a row leave the range of float16
            return (vjp(grad.to(wide), x.to(wide), y.to(wide), *rest).to(x.dtype), *([None] * len(rest)))

        register(
            name,
            f"(Tensor x{tail}) -> Tensor",
            run=self.new,
            reference=flat_reference,
            fake=lambda x, *rest: torch.empty(x.shape, dtype=x.dtype, device=x.device),
            setup_context=setup_context if vjp is not None else None,
            backward=backward if vjp is not None else None,
        )
        register(
            f"{name}_",
            f"(Tensor(a!) x{tail}) -> ()",
            run=self.overwrite,
            reference=lambda x, *rest: (x.copy_(flat_reference(x, *rest)), None)[1],
            fake=lambda x, *rest: None,
        )
        self.reference = flat_reference
        self._op = getattr(torch.ops.pyrobust, name).default
        self._op_ = getattr(torch.ops.pyrobust, f"{name}_").default

    def __call__(self, x: Tensor, *rest: Any) -> Tensor:
        return self.new(x, *rest) if is_plain(x) else self._op(x, *rest)

    def in_place(self, x: Tensor, *rest: Any) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{self.name}_: x: expected a tensor that does not require grad; {self.name} is differentiable"
            )
        if is_plain(x):
            self.overwrite(x, *rest)
            mark_changed((x,))
        else:
            self._op_(x, *rest)
        return x

    def new(self, x: Tensor, *rest: Any) -> Tensor:
        x = x.contiguous()
        out = torch.empty_like(x)
        self._launch(out, x, rest)
        return out

    def overwrite(self, x: Tensor, *rest: Any) -> None:
        if x.is_contiguous():
            self._launch(x, x, rest)
        else:
            x.copy_(self.new(x, *rest))

    def _launch(self, out: Tensor, x: Tensor, rest: tuple[Any, ...]) -> None:
        rows, cols = row_shape(x)
        if cols == 0:
            return
        if self.channels is not None:
            cols //= rest[self.channels]
        fields = list(rest)
        copies = []  # made for contiguity: they have to outlive their addresses
        for at in self._tensors:
            copies.append(fields[at].contiguous())
            fields[at] = copies[-1].data_ptr()
        if self._optional is not None:
            values = fields.pop(self._optional)
            if values is not None:
                fields[self._optional - 1] = values.data_ptr()
        launch(self.name, x, rows, cols, out.data_ptr(), x.data_ptr(), *fields)


def channels_of(name: str, x: Tensor, grouping: str) -> int:
    """Planes a row: C for grouping "pixel" of an (N, C, …) tensor, 1 for "value".

    Raises:
        ValueError: another grouping, or "pixel" of a tensor with fewer than three dimensions.
    """
    if grouping == "value":
        return 1
    if grouping != "pixel":
        raise ValueError(f'{name}: grouping: expected "pixel" or "value", got {grouping!r}')
    if x.ndim < 3:
        raise ValueError(
            f'{name}: x: grouping="pixel" expects shape (N, C, ...), got {tuple(x.shape)}; use grouping="value"'
        )
    return x.shape[1]
