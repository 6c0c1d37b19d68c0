"""Random points, keyed by (seed, sample id, step) and so independent of how samples are put into batches."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust.ops._native import launch
from pyrobust.ops._register import check_rows, is_plain, register, row_shape, split_scalar
from pyrobust.ops.projections import sphere_norm


def _run(
    like: Tensor, sample_ids: Tensor, radius: float, radii: Tensor | None, seed: int, step: int, p: float
) -> Tensor:
    out = (
        torch.empty_like(like)
        if like.is_contiguous()
        else torch.empty(like.shape, dtype=like.dtype, device=like.device)
    )
    rows, cols = row_shape(like)
    if cols:
        ids = sample_ids.contiguous()
        scale = radius if radii is None else radii.data_ptr()
        launch("sample_lp_ball", out, rows, cols, out.data_ptr(), ids.data_ptr(), scale, seed, step, p)
    return out


def _on_cpu(like: Tensor, sample_ids: Tensor, radius: float, radii: Tensor | None, *rest: int) -> Tensor:
    """Devices without a kernel take the same numbers from the CPU."""
    host = torch.empty(like.shape, dtype=like.dtype)
    rows = None if radii is None else radii.cpu()
    return _run(host, sample_ids.cpu(), radius, rows, *rest).to(like.device)


register(
    "sample_lp_ball",
    "(Tensor like, Tensor sample_ids, float radius, Tensor? radii, int seed, int step, float p) -> Tensor",
    run=_run,
    reference=_on_cpu,
    fake=lambda like, *rest: torch.empty(like.shape, dtype=like.dtype, device=like.device),
)


def sample_lp_ball(
    like: Tensor,
    p: float,
    radius: float | Tensor = 1.0,
    *,
    seed: int = 0,
    sample_ids: Tensor | None = None,
    step: int = 0,
) -> Tensor:
    """Uniform samples of {v : ‖v‖_p ≤ radius}, one a row.

    A row's numbers are a function of (seed, its sample id, step) and its length alone: not of the batch it is in, nor
    of torch's random state. Philox4x32-10; p = 2: a Gaussian direction at radius U^(1/D); p = 1: exponentials over the
    sum of D + 1 of them, with random signs.

    Args:
        like: (N, …) or (D,): shape, dtype and device of the result; its values are not read.
        p: 1, 2 or inf.
        radius: >= 0; a number or (N,).
        seed: in [0, 2⁶³).
        sample_ids: int64 (N,); default 0 … N − 1.
        step: in [0, 2³²): another step gives other numbers.

    Returns:
        A tensor like ``like``.

    Raises:
        TypeError: dtype not supported.
        ValueError: an argument's shape, dtype, device or range does not fit.

    Source: seed 004, eq. 15 (the start of projected gradient ascent); Barthe et al. 2005 for p = 1; Salmon et al. 2011.
    """
    check_rows("sample_lp_ball", like, "like")
    rows = row_shape(like)[0]
    if sample_ids is None:
        sample_ids = torch.arange(rows, device=like.device)
    elif sample_ids.dtype != torch.int64 or sample_ids.shape != (rows,) or sample_ids.device != like.device:
        raise ValueError(
            f"sample_lp_ball: sample_ids: expected torch.int64 ({rows},) on {like.device}, "
            f"got {sample_ids.dtype} {tuple(sample_ids.shape)} on {sample_ids.device}"
        )
    if not 0 <= seed < 2**63:
        raise ValueError(f"sample_lp_ball: seed: expected an integer in [0, 2**63), got {seed}")
    if not 0 <= step < 2**32:
        raise ValueError(f"sample_lp_ball: step: expected an integer in [0, 2**32), got {step}")
    like = like.detach() if like.requires_grad else like
    arguments = (*split_scalar("sample_lp_ball", "radius", radius, like), int(seed), int(step))
    run = _run if is_plain(like) else torch.ops.pyrobust.sample_lp_ball
    return run(like, sample_ids, *arguments, sphere_norm("sample_lp_ball", p))


__all__ = ["sample_lp_ball"]
