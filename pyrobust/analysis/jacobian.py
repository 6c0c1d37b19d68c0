"""Jacobians, in the inputs, of a network's logits or of the outputs of any of its layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pyrobust._checks import Model, check_inputs
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import check_count, undisturbed
from pyrobust.attacks._jacobian import pull_back
from pyrobust.training.operator_norm import jacobian_product

ANY = (-math.inf, math.inf)
CAP = 2**25  # values of Jacobians that are held at once: 256 MiB in float64
SEEDS = 2**22  # values of one-hot rows that are held at once


class _ReachedError(Exception):
    """Ends a forward pass at the layer that was asked for; carries its output."""


def layer_outputs(model: Model, layer: str | None = None) -> Model:
    """A function from inputs (N, …) to outputs (N, m): the logits, or the flat output of a module.

    It runs the model up to the end of the first call of that module and no further, so that what follows may be missing,
    costly, or change the output in place.

    Args:
        model: from (N, …) to logits (N, K).
        layer: a name among ``model.named_modules()``; None: the logits.

    Raises:
        ValueError: there is no such module; when called: it was not reached, or gave no floating tensor (N, …).
    """
    whole = getattr(model, "_orig_mod", model)  # torch.compile hides the modules' names
    if layer is None:
        return lambda inputs: _checked(whole(inputs), len(inputs), "model")
    modules = {name: module for name, module in whole.named_modules() if name} if isinstance(whole, nn.Module) else {}
    if layer not in modules:
        raise ValueError(f"layer: expected one of {', '.join(modules) or 'no module'}, got {layer!r}")
    module = modules[layer]

    def outputs(inputs: Tensor) -> Tensor:
        def stop(_module: nn.Module, _inputs: object, output: object) -> None:
            raise _ReachedError(output)

        handle = module.register_forward_hook(stop)
        try:
            whole(inputs)
        except _ReachedError as reached:
            return _checked(reached.args[0], len(inputs), f"layer: {layer!r}")
        finally:
            handle.remove()
        raise ValueError(f"layer: {layer!r} takes no part in a forward pass")

    return outputs


def jacobian(
    model: Model, inputs: Tensor, layer: str | None = None, *, batch_size: int = 128, work: Work | None = None
) -> Tensor:
    """J(x) = ∂f(x) / ∂x at each input.

    Args:
        model: from (N, …) to logits (N, K); run in evaluation mode.
        inputs: (N, …).
        layer: f is the flat output of this module (a name among ``model.named_modules()``); None: the logits.
        batch_size: samples a pass, at most; fewer where their Jacobians have more than 2²⁵ values.
        work: progress and resume.

    Returns:
        (N, m, …): of sample n, the gradient of output i at [n, i]; like ``inputs`` otherwise.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: a forward and m backward passes; on a GPU as many of the latter at once as memory allows.
    Source: seed 004, eq. 2 and §5.2.
    """
    found = map_jacobians(
        "Jacobian", model, inputs, layer, lambda _, rows: {"rows": rows}, batch_size, work, inputs.dtype
    )
    return found["rows"].unflatten(2, inputs.shape[1:]).to(inputs.device)


def map_jacobians(
    name: str,
    model: Model,
    inputs: Tensor,
    layer: str | None,
    reduce: Callable[[Tensor, Tensor], Mapping[str, Tensor]],
    batch_size: int,
    work: Work | None,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """``reduce(ids (n,), Jacobians (n, m, D))`` of as many samples at a time as the cap allows, joined."""
    check_inputs(inputs, ANY)
    check_count(batch_size=batch_size)
    function = layer_outputs(model, layer)
    with undisturbed(model):
        with torch.no_grad():
            width = function(inputs[:1]).shape[1]
        size = max(1, min(batch_size, CAP // (width * inputs[0].numel())))
        parts = torch.arange(len(inputs), device=inputs.device).split(size)
        return joined(
            (work or Work()).map(name, parts, lambda ids: reduce(ids, jacobians_at(function, inputs[ids], dtype)))
        )


def jacobians_at(function: Model, points: Tensor, dtype: torch.dtype) -> Tensor:
    """(n, m, D), the derivatives of flat outputs (n, m) in flat points, written once, in ``dtype``."""
    point = points.detach().requires_grad_()
    with torch.enable_grad():
        outputs = function(point)
    if not outputs.requires_grad:
        raise ValueError("model: expected outputs that depend on the inputs by differentiable operations")
    count, width = outputs.shape
    rows = torch.empty(count, width, point[0].numel(), dtype=dtype, device=point.device)
    block, done = max(1, SEEDS // width), 0
    for first in range(0, width, block):
        chosen = torch.arange(first, min(first + block, width), device=outputs.device)
        seeds = torch.nn.functional.one_hot(chosen, width).to(outputs.dtype).unsqueeze(1).expand(-1, count, -1)
        for chunk in pull_back(outputs, point, seeds, keep=first + block < width):
            rows[:, done : done + len(chunk)] = chunk.flatten(2).transpose(0, 1)
            done += len(chunk)
    return rows


def push_forward(function: Model, points: Tensor, directions: Tensor) -> Tensor:
    """J v (n, m), by forward mode, or where an operation has none by differentiating Jᵀu in u, which is linear in u.

    Attention is computed by plain operations, whose derivatives of both kinds exist; its fused kernels have but one.

    Raises:
        ValueError: the outputs do not depend on the inputs by operations with either derivative.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            return _push_forward(function, points, directions)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _push_forward(function: Model, points: Tensor, directions: Tensor) -> Tensor:
    try:
        return jacobian_product(function, points, directions)
    except RuntimeError as error:
        if "forward AD" not in str(error) and "forward mode AD" not in str(error):
            raise
        reason = error
    point = points.detach().requires_grad_()
    with torch.enable_grad():
        outputs = function(point)
        u = torch.zeros_like(outputs, requires_grad=True)
        (pulled,) = torch.autograd.grad(outputs, point, u, create_graph=True)
    try:
        (product,) = torch.autograd.grad(pulled, u, directions)
    except RuntimeError as error:
        raise ValueError(f"model: expected forward-mode or second derivatives, got: {reason}; {error}") from error
    return product


def _checked(output: object, batch: int, what: str) -> Tensor:
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim < 2 or len(output) != batch:
        got = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"{what}: expected floating outputs of shape ({batch}, ...), got {got}")
    return output.flatten(1)
