"""Argument checks shared by the attacks and the evaluation: one clear error that names the argument.

Every check here reads values, so on a GPU it synchronises; attacks call them once, before their loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NORMS = ("l0", "l1", "l2", "linf")
_NORM_NAMES: dict[object, str] = {0: "l0", 1: "l1", 2: "l2", math.inf: "linf", **{name: name for name in NORMS}}

Norm = int | float | str
Bounds = tuple[float, float]
Model = Callable[[Tensor], Tensor]  # from (N, …) to logits (N, K)


def norm_name(norm: Norm, supported: Sequence[str] = NORMS) -> str:
    """The canonical name of a norm: 0, 1, 2, inf or "l0", "l1", "l2", "linf" give "l0", "l1", "l2", "linf".

    Raises:
        ValueError: ``norm`` is none of these, or not in ``supported``.
    """
    name = _NORM_NAMES.get(norm) if isinstance(norm, (int, float, str)) and not isinstance(norm, bool) else None
    if name is None or name not in supported:
        numbers = ", ".join(
            str(number) for number, known in _NORM_NAMES.items() if known in supported and number != known
        )
        raise ValueError(f"norm: expected one of {', '.join(supported)} (or {numbers}), got {norm!r}")
    return name


def check_bounds(bounds: Bounds) -> Bounds:
    """Return ``bounds`` as two floats; raise ValueError unless (low, high) is finite with low < high."""
    try:
        low, high = (float(b) for b in bounds)
    except (TypeError, ValueError):
        raise ValueError(f"bounds: expected a pair of numbers (low, high), got {bounds!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"bounds: expected finite low < high, got {bounds!r}")
    return low, high


def check_inputs(inputs: Tensor, bounds: Bounds) -> None:
    """Raise unless ``inputs`` is a non-empty floating tensor (N, …) of finite values inside ``bounds``."""
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs: expected a torch.Tensor, got {type(inputs).__name__}")
    if not inputs.is_floating_point():
        raise TypeError(f"inputs: expected a floating dtype, got {inputs.dtype}")
    if inputs.ndim < 2:
        raise ValueError(f"inputs: expected shape (N, ...) with at least 2 dimensions, got {tuple(inputs.shape)}")
    if inputs.numel() == 0:
        raise ValueError(f"inputs: expected a non-empty batch, got shape {tuple(inputs.shape)}")
    low, high = inputs.aminmax()
    if not (math.isfinite(low.item()) and math.isfinite(high.item())):
        raise ValueError("inputs: expected finite values, got NaN or Inf")
    check_inside("inputs", inputs, bounds)


def check_inside(name: str, values: Tensor, bounds: Bounds) -> None:
    """Raise unless all values lie in ``bounds``, as the dtype of the values rounds them; NaN does not."""
    low, high = (torch.tensor(bound, dtype=values.dtype).item() for bound in bounds)
    least, most = (value.item() for value in values.aminmax())
    if not (low <= least and most <= high):
        raise ValueError(f"{name}: expected values inside bounds {bounds}, got [{least:g}, {most:g}]")


def check_count(**values: int) -> None:
    """Raise ValueError naming the first value that is not an integer >= 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected an integer >= 1, got {value!r}")


def check_seed(seed: int) -> None:
    """Raise ValueError unless ``seed`` is an integer in [0, 2⁶³)."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed: expected an integer in [0, 2**63), got {seed!r}")


def check_labels(labels: Tensor, inputs: Tensor, num_classes: int | None = None) -> None:
    """Raise unless ``labels`` is int64 (N,) on the device of ``inputs``, within [0, num_classes) where that is
    known."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels: expected a torch.Tensor, got {type(labels).__name__}")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels: expected dtype torch.int64, got {labels.dtype}")
    if labels.shape != inputs.shape[:1]:
        raise ValueError(f"labels: expected shape ({len(inputs)},), got {tuple(labels.shape)}")
    if labels.device != inputs.device:
        raise ValueError(f"labels: expected device {inputs.device} (that of inputs), got {labels.device}")
    low, high = (v.item() for v in labels.aminmax())
    if low < 0 or (num_classes is not None and high >= num_classes):
        top = "" if num_classes is None else f" < {num_classes}"
        raise ValueError(f"labels: expected 0 <= label{top}, got values in [{low}, {high}]")


def check_logits(logits: Tensor, batch: int) -> int:
    """Raise unless the model returned (N, K) with K >= 2; returns K."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != batch or logits.shape[1] < 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"model: expected logits of shape ({batch}, K) with K >= 2, got {got}")
    if not logits.is_floating_point():
        raise ValueError(f"model: expected logits of a floating dtype, got {logits.dtype}")
    return int(logits.shape[1])
