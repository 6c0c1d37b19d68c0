"""Loading the native module, and calling it on tensors. Only pyrobust.ops comes here."""

from __future__ import annotations

import functools
import warnings
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


def _load() -> ModuleType:
    try:
        from pyrobust import _native
    except ImportError as error:
        raise ImportError(
            f"pyrobust's native module could not be loaded ({error}). Reinstall the package: `pip install pyrobust`, or in a "
            "source checkout `pip install -e .` with a C++17 compiler on PATH."
        ) from error
    return _native


native = _load()

DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
# Reductions and per-row values: float64 for float64, float32 for every other dtype.
ROW_DTYPES = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}
HAS_CUDA_KERNELS: bool = native.cuda_built


def has_kernel(tensor: Tensor) -> bool:
    """Whether the native module computes on this tensor's device; elsewhere the reference does."""
    return tensor.is_cpu or (HAS_CUDA_KERNELS and tensor.is_cuda and _runs_on(tensor.device.index))


@functools.cache
def _runs_on(index: int) -> bool:
    """Whether the CUDA kernels run on this GPU; where they do not, one warning says why."""
    problem = native.cuda_problem(index)
    if problem:
        warnings.warn(
            f"pyrobust's CUDA kernels do not run on cuda:{index}: {problem} (`pyrobust info` tells what they were built for). "
            "The same operations run there in torch, more slowly.",
            RuntimeWarning,
            stacklevel=2,
        )
    return not problem


def launch(name: str, like: Tensor, rows: int, cols: int, *fields: Any) -> None:
    """Run a native op on ``rows`` rows of ``cols`` elements, with the dtype, device and current stream of ``like``."""
    if like.is_cuda:
        _launch_cuda(name, like, rows, cols, fields)
    else:
        getattr(native, name)(rows, cols, DTYPE_CODES[like.dtype], -1, 0, *fields, 0)


def _launch_cuda(name: str, like: Tensor, rows: int, cols: int, fields: tuple[Any, ...]) -> None:
    code, index = DTYPE_CODES[like.dtype], like.device.index
    workspace = None
    if native.outgrows_chip(rows, cols, code, index):
        workspace = torch.empty(rows * cols, dtype=ROW_DTYPES[like.dtype], device=like.device)
    address = 0 if workspace is None else workspace.data_ptr()
    stream = torch._C._cuda_getCurrentRawStream(index)
    getattr(native, name)(rows, cols, code, index, stream, *fields, address)


def native_info() -> dict[str, object]:
    """How the native module was built, and what it runs on here (shown by ``pyrobust info``)."""
    return dict(native.info())
