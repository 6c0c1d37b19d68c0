"""Spectral norms of all weights of a network at once: a power-iteration step in one launch, and σ's derivative."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrobust.ops._native import DTYPE_CODES, ROW_DTYPES, has_kernel, native
from pyrobust.ops._register import LIBRARY, check_rows, is_plain, mark_changed


class SpectralStep(NamedTuple):
    """Result of :func:`spectral_norm_step`: one entry a layer."""

    sigmas: Tensor
    us: list[Tensor]
    vs: list[Tensor]


def _sizes(weights: Sequence[Tensor]) -> tuple[list[int], list[int]]:
    """Rows and columns of each weight, all dimensions but the first being columns."""
    return [w.shape[0] for w in weights], [w.numel() // w.shape[0] for w in weights]


def _run_in_place(weights: Sequence[Tensor], us: Sequence[Tensor], steps: int, eps: float) -> tuple[Tensor, Tensor]:
    """Replaces the contiguous ``us``; returns σ of each layer, and their v one after another."""
    like = weights[0]
    held = [w.contiguous() for w in weights]  # copies made for contiguity outlive their addresses
    rows, cols = _sizes(held)
    table = array("q")
    for w, u, m, n in zip(held, us, rows, cols, strict=True):
        table.extend((w.data_ptr(), u.data_ptr(), m, n))
    wide = ROW_DTYPES[like.dtype]
    sigmas = torch.empty(len(held), dtype=wide, device=like.device)
    vs = torch.empty(sum(cols), dtype=wide, device=like.device)
    device, stream, workspace = -1, 0, 0
    if like.is_cuda:
        device = like.device.index
        stream = torch._C._cuda_getCurrentRawStream(device)
        size = sum(native.spectral_space(m, n) for m, n in zip(rows, cols, strict=True))
        space = torch.empty(size, dtype=wide, device=like.device)
        workspace = space.data_ptr()
    fields = (sigmas.data_ptr(), vs.data_ptr(), table.buffer_info()[0], steps, eps, workspace)
    native.spectral_norm_step(len(held), 1, DTYPE_CODES[like.dtype], device, stream, *fields)
    return sigmas, vs


def _run(weights: Sequence[Tensor], us: Sequence[Tensor], steps: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    if not has_kernel(weights[0]):
        return _reference(weights, us, steps, eps)
    new = torch.cat(list(us))
    return _with_us(new, _run_in_place(weights, new.split([len(u) for u in us]), steps, eps))


def _with_us(us: Tensor, result: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    return result[0], us, result[1]


def _reference(
    weights: Sequence[Tensor], us: Sequence[Tensor], steps: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """In plain PyTorch: the oracle that every backend is compared with, and the path of devices without kernels."""
    sigmas, new, vs = [], [], []
    for weight, start in zip(weights, us, strict=True):
        u, matrix = start.clone(), weight.to(start.dtype).flatten(1)
        for _ in range(steps):
            z = matrix.T @ u
            length = z.norm()
            v = torch.where(length <= eps, torch.zeros_like(z), z / length)
            y = matrix @ v
            sigma = y.norm()
            u = torch.where(sigma == 0, u, y / sigma)
        bad = ~length.isfinite()
        sigmas.append(sigma.masked_fill(bad, torch.nan))
        new.append(u.masked_fill(bad, torch.nan))
        vs.append(v.masked_fill(bad, torch.nan))
    return torch.stack(sigmas), torch.cat(new), torch.cat(vs)


def _fake(weights: Sequence[Tensor], us: Sequence[Tensor], steps: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    rows, cols = _sizes(weights)
    sigmas = torch.empty(len(weights), dtype=ROW_DTYPES[weights[0].dtype], device=weights[0].device)
    return sigmas, sigmas.new_empty(sum(rows)), sigmas.new_empty(sum(cols))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    weights = inputs[0]
    ctx.shapes = [w.shape for w in weights]
    ctx.dtype = weights[0].dtype
    ctx.save_for_backward(output[1], output[2])
    ctx.mark_non_differentiable(output[1], output[2])


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    """∂σ/∂W = u vᵀ."""
    us, vs = ctx.saved_tensors
    rows = [shape[0] for shape in ctx.shapes]
    cols = [shape.numel() // shape[0] for shape in ctx.shapes]
    layers = zip(grad.unbind(), us.split(rows), vs.split(cols), ctx.shapes, strict=True)
    grads = [torch.outer(g * u, v).to(ctx.dtype).reshape(shape) for g, u, v, shape in layers]
    return grads, [None] * len(rows), None, None


LIBRARY.define(
    "spectral_norm_step(Tensor[] weights, Tensor[] us, int steps, float eps) -> (Tensor, Tensor, Tensor)",
    tags=[torch.Tag.needs_fixed_stride_order],
)
LIBRARY.impl("spectral_norm_step", _reference, "CompositeExplicitAutograd")
LIBRARY.impl("spectral_norm_step", _run, "CPU")
LIBRARY.impl("spectral_norm_step", _run, "CUDA")
torch.library.register_fake("pyrobust::spectral_norm_step", _fake, lib=LIBRARY)
torch.library.register_autograd("pyrobust::spectral_norm_step", _backward, setup_context=_setup, lib=LIBRARY)


def _check(name: str, weights: Sequence[Tensor], us: Sequence[Tensor], steps: int, eps: float) -> None:
    if isinstance(weights, Tensor) or isinstance(us, Tensor) or len(weights) != len(us) or not weights:
        raise ValueError(f"{name}: weights, us: expected two lists of one tensor a layer, of the same length >= 1")
    for i, (w, u) in enumerate(zip(weights, us, strict=True)):
        check_rows(name, w, f"weights[{i}]")
        if w.ndim < 2 or w.numel() == 0:
            raise ValueError(f"{name}: weights[{i}]: expected a non-empty matrix or kernel, got shape {tuple(w.shape)}")
        if w.dtype != weights[0].dtype or w.device != weights[0].device:
            first = f"{weights[0].dtype} on {weights[0].device}"
            raise ValueError(f"{name}: weights[{i}]: expected {first} as weights[0], got {w.dtype} on {w.device}")
        if not isinstance(u, Tensor):
            raise TypeError(f"{name}: us[{i}]: expected a torch.Tensor, got {type(u).__name__}")
        wide = ROW_DTYPES[w.dtype]
        if u.shape != w.shape[:1] or u.dtype != wide or u.device != w.device:
            wanted = f"{wide} ({w.shape[0]},) on {w.device}"
            raise ValueError(f"{name}: us[{i}]: expected {wanted}, got {u.dtype} {tuple(u.shape)} on {u.device}")
        if u.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{name}: us[{i}]: expected a tensor that does not require grad (σ has no derivative in u)"
            )
    if steps < 1:
        raise ValueError(f"{name}: steps: expected an integer >= 1, got {steps}")
    if not eps >= 0:
        raise ValueError(f"{name}: eps: expected a number >= 0, got {eps}")


def _step(
    weights: Sequence[Tensor], us: Sequence[Tensor], steps: int, eps: float
) -> tuple[Tensor, Sequence[Tensor], list[Tensor]]:
    if is_plain(*weights, *us):
        sigmas, flat_us, flat_vs = _run(weights, us, steps, eps)
    else:
        sigmas, flat_us, flat_vs = torch.ops.pyrobust.spectral_norm_step(list(weights), list(us), steps, eps)
    rows, cols = _sizes(weights)
    return sigmas, flat_us.split(rows), list(flat_vs.split(cols))


def spectral_norm_step(
    weights: Sequence[Tensor], us: Sequence[Tensor], steps: int = 1, eps: float = 1e-12
) -> SpectralStep:
    """A power-iteration step for the spectral norm of every layer: v = Wᵀu / ‖Wᵀu‖₂, u = Wv / ‖Wv‖₂, σ = uᵀWv = ‖Wv‖₂.

    σ is a lower bound of the largest singular value, and grows towards it with every step; one step per parameter
    update is usual, from the u of the update before. All layers are done at once, on a GPU in one launch (one for every
    80). A step reads each weight twice, row by row; on a GPU the second time from its cache, where they fit.

    Args:
        weights: of each layer (rows, …), such as Linear's (out, in) and Conv2d's (C_out, C_in, kh, kw), which is taken
            as the matrix C_out × (C_in kh kw); all of one dtype and device.
        us: of each layer (rows,), of any length but zero; to begin with a random vector, such as
            ``torch.randn(w.shape[0])``. float64 for float64 weights, float32 for every other dtype.
        steps: how many steps to take, >= 1.
        eps: a layer with ‖Wᵀu‖₂ <= eps counts as zero: σ = 0, v = 0, and u stays as it was.

    Returns:
        SpectralStep(sigmas (L,), us, vs), vs (columns,) of each layer, in the dtype of ``us``. sigmas are
        differentiable in the weights, with u and v held constant: ∂σ/∂W = u vᵀ, and second derivatives are zero. A
        layer with NaN or ±Inf in its weights has NaN in all three.

    Raises:
        TypeError: dtype not supported.
        ValueError: lists that do not match, a shape, dtype or device that does not fit, bad ``steps`` or ``eps``.

    Source: seed 004, eq. 4–5 (there begun from v; the iterates are the same); Yoshida & Miyato 2017, §3, for kernels as
    matrices.
    """
    _check("spectral_norm_step", weights, us, steps, eps)
    sigmas, new, vs = _step(weights, us, steps, eps)
    return SpectralStep(sigmas, list(new), vs)


def spectral_norm_step_(
    weights: Sequence[Tensor], us: Sequence[Tensor], steps: int = 1, eps: float = 1e-12
) -> SpectralStep:
    """:func:`spectral_norm_step` that replaces the values of ``us``, and returns them.

    The derivative of σ is that of the u and v of this call, whatever later calls make of ``us``.

    Raises:
        ValueError: also where one tensor stands twice in ``us``.
    """
    _check("spectral_norm_step_", weights, us, steps, eps)
    if len({id(u) for u in us}) < len(us):
        raise ValueError("spectral_norm_step_: us: expected a tensor of its own for every layer")
    if is_plain(*weights, *us) and all(u.is_contiguous() for u in us):
        sigmas, flat = _run_in_place(weights, us, steps, eps)
        mark_changed(tuple(us))
        return SpectralStep(sigmas, list(us), list(flat.split(_sizes(weights)[1])))
    sigmas, new, vs = _step(weights, us, steps, eps)
    with torch.no_grad():
        torch._foreach_copy_(list(us), list(new))
    return SpectralStep(sigmas, list(us), vs)


__all__ = ["SpectralStep", "spectral_norm_step", "spectral_norm_step_"]
