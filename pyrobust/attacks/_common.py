"""What every attack shares: the checks of its arguments, and running the model without leaving a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pyrobust._checks import Bounds, check_bounds, check_inputs, check_inside, check_labels, check_logits, check_seed
from pyrobust._checks import Model as Model
from pyrobust._checks import check_count as check_count

FORWARDS = 3  # forward passes that take as long as a gradient: that is one, and a backward pass of twice the operations


@contextmanager
def undisturbed(model: Model, eval_mode: bool = True) -> Iterator[None]:
    """Run the model in evaluation mode (or as it is), and leave its training flags, buffers and the random state as
    found: models may draw and count in evaluation mode too."""
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            training = [module for module in model.modules() if module.training]
            if eval_mode:
                for module in training:
                    module.training = False
                stack.callback(_set_training, training)
            # Batch norm moves its statistics in training mode, and does not count that as a change of version.
            silently = bool(training) and not eval_mode
            tracked = [buffer for buffer in model.buffers() if not buffer.is_inference()]
            saved = [(buffer, -1 if silently else buffer._version, buffer.clone()) for buffer in tracked]
            stack.callback(_restore, saved)
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        stack.enter_context(torch.random.fork_rng(devices=devices))
        yield


def _set_training(modules: list[nn.Module]) -> None:
    for module in modules:
        module.training = True


@torch.no_grad()
def _restore(buffers: list[tuple[Tensor, int, Tensor]]) -> None:
    """Put back (buffer, its version, its values) where the version is another: an outer graph may hold the buffers."""
    for buffer, version, saved in buffers:
        if buffer._version != version:
            buffer.copy_(saved)


def check_number(
    name: str, value: float, low: float, high: float = math.inf, *, above: bool = False, below: bool = False
) -> float:
    """``value`` as a float.

    Raises:
        ValueError: it is not a finite number in [low, high]; ``above`` excludes low, and ``below`` high.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high or (above and value == low) or (below and value == high):
        if high == math.inf:
            allowed = f"{'>' if above else '>='} {low:g}"
        else:
            allowed = f"in {'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"
        raise ValueError(f"{name}: expected a finite number {allowed}, got {value!r}")
    return float(value)


def check_positive(*, below: float = math.inf, **values: float) -> None:
    """Raise ValueError naming the first value that is not a finite number above 0, and below ``below``."""
    for name, value in values.items():
        check_number(name, value, 0, below, above=True, below=True)


def check_call(
    inputs: Tensor, labels: Tensor, bounds: Bounds, steps: int, restarts: int, sample_ids: Tensor | None, seed: int
) -> tuple[Tensor, Bounds, Tensor]:
    """Check what all attacks take; return detached contiguous inputs, the bounds as floats, and the sample ids.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    bounds = check_bounds(bounds)
    check_inputs(inputs, bounds)
    check_labels(labels, inputs)
    check_count(steps=steps, restarts=restarts)
    check_seed(seed)
    if sample_ids is None:
        sample_ids = torch.arange(len(inputs), device=inputs.device)
    elif not isinstance(sample_ids, Tensor) or sample_ids.dtype != torch.int64 or sample_ids.shape != (len(inputs),):
        raise ValueError(f"sample_ids: expected a torch.int64 tensor of shape ({len(inputs)},)")
    inputs = inputs.detach().contiguous()
    if inputs.is_inference():  # no leaf of a graph can be made of it
        inputs = inputs.clone()
    return inputs, bounds, sample_ids.to(inputs.device)


def check_starts(starts: Tensor | None, inputs: Tensor, bounds: Bounds) -> Tensor | None:
    """``starts``, detached; raises unless they are None, or like ``inputs``, finite and inside ``bounds``."""
    if starts is None:
        return None
    if not isinstance(starts, Tensor) or (starts.shape, starts.dtype, starts.device) != (
        inputs.shape,
        inputs.dtype,
        inputs.device,
    ):
        raise ValueError(f"starts: expected {inputs.dtype} {tuple(inputs.shape)} on {inputs.device}, as inputs")
    check_inside("starts", starts, bounds)
    return starts.detach()


def check_grouping(grouping: str | None, norm: str, inputs: Tensor) -> str:
    """The grouping that l0 counts by: "pixel" (default for (N, C, H, W)) or "value"; "value" for every other norm.

    Raises:
        ValueError: unknown, not for this norm or not for this shape.
    """
    if grouping is None:
        return "pixel" if norm == "l0" and inputs.ndim == 4 else "value"
    if norm != "l0":
        raise ValueError(f'grouping: applies to norm "l0" alone, got {grouping!r} with norm {norm!r}')
    if grouping not in ("pixel", "value") or (grouping == "pixel" and inputs.ndim != 4):
        raise ValueError(
            f'grouping: expected "value", or "pixel" for inputs (N, C, H, W); got {grouping!r} for {tuple(inputs.shape)}'
        )
    return grouping


@torch.no_grad()
def clean_logits(model: Model, inputs: Tensor, labels: Tensor) -> Tensor:
    """The logits at the inputs, once the model's output and the labels have been checked against each other."""
    logits = model(inputs)
    check_labels(labels, inputs, check_logits(logits, len(inputs)))
    return logits


def differentiating() -> torch.enable_grad:
    """Gradients, also where the caller has switched them off.

    Raises:
        RuntimeError: under ``torch.inference_mode``, which nothing can be differentiated in.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "an attack needs gradients: call it outside torch.inference_mode() (torch.no_grad() is fine)"
        )
    return torch.enable_grad()


def gradient(outputs: Tensor, point: Tensor, seed: Tensor | None = None, **options: Any) -> Tensor:
    """The gradient of ⟨seed, outputs⟩ at ``point``; ``options`` of torch.autograd.grad.

    Raises:
        ValueError: the outputs do not depend on the point by operations that can be differentiated.
    """
    grad = None
    if outputs.requires_grad:
        (grad,) = torch.autograd.grad(outputs, point, seed, allow_unused=True, **options)
    if grad is None:
        raise ValueError(
            "model: expected outputs that depend on the inputs differentiably; without gradients hop_skip_jump, simba, "
            "one_pixel and pixel_swap attack it"
        )
    return grad


def logits_and_grad(model: Model, adv: Tensor, gradient_at: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """One forward and one backward pass: the logits at ``adv``, and the gradient there of a loss whose gradient with
    respect to the logits is ``gradient_at(logits)``."""
    point = adv.detach().requires_grad_()
    with differentiating():
        logits = model(point)
    detached = logits.detach()
    return detached, gradient(logits, point, gradient_at(detached).to(logits.dtype))


def rows_like(values: Tensor, x: Tensor) -> Tensor:
    """One value a sample, shaped to broadcast against ``x``."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def replace_rows_(target: Tensor, chosen: Tensor, source: Tensor) -> None:
    """target ← source in the rows that are ``chosen`` (N,), in place.

    On the CPU the other rows are not touched; elsewhere that would mean to wait for the device, to be told how many they
    are.
    """
    if target.device.type == "cpu":
        rows = chosen.nonzero().squeeze(1)
        target.index_copy_(0, rows, source.index_select(0, rows))
    else:
        torch.where(rows_like(chosen, target), source, target, out=target)


def clear_rows_(target: Tensor, chosen: Tensor) -> None:
    """target ← 0 in the rows that are ``chosen`` (N,), in place; on the CPU the others are not touched."""
    if target.device.type == "cpu":
        target.index_fill_(0, chosen.nonzero().squeeze(1), 0)
    else:
        target.masked_fill_(rows_like(chosen, target), 0)


Callback = Callable[[int, Any], bool | None]
