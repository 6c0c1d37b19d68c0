"""What a class, or a unit, looks for: inputs that maximise it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust._checks import Bounds, check_logits
from pyrobust.analysis._noise import check_noise, noise_images, unbounded_radius
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import Model, check_count, check_number, check_positive, undisturbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PreferredInputs:
    """What :func:`activation_maximisation` found, on the CPU.

    Attributes:
        images: (N, …).
        units: int64 (N,).
        before, activation: (N,): of the unit at the noise, and at the images.
    """

    images: Tensor
    units: Tensor
    before: Tensor
    activation: Tensor

    def plot(self) -> Figure:
        """The images, eight a row, with their units and activations.

        Raises:
            ValueError: these are not images (N, C, H, W) with 1 or 3 channels.
        """
        from pyrobust.analysis._draw_pictures import draw_preferred

        return draw_preferred(self)


def activation_maximisation(
    model: Model,
    shape: Sequence[int],
    units: Tensor,
    *,
    layer: nn.Module | None = None,
    decay: float = 0.0,
    origin: float | Tensor = 0.0,
    steps: int = 200,
    step_size: float = 0.01,
    noise: Bounds = (0.4, 0.6),
    bounds: Bounds = (0.0, 1.0),
    dtype: torch.dtype = torch.float32,
    batch_size: int = 128,
    seed: int = 0,
    work: Work | None = None,
    name: str | None = None,
) -> PreferredInputs:
    """max over x in ``bounds`` of h_j(x) − decay · ‖x − origin‖₂², from noise; h_j is unit j of a layer, or the logit of class j.

    x ← clip(x + ηₖ g / ‖g‖₂), g the gradient of that objective, ηₖ = (1 − k / steps) · step_size · width of ``bounds`` · √D for
    D values an image, so that every image settles whatever the scale of its unit. Where g is zero (a rectified unit that the
    noise does not reach) the image stays as it is.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2; run in evaluation mode.
        shape: of one image.
        units: int64 (N,): j of each image, an index of dimension 1 of the layer's output, on the model's device. Of a map, as
            a convolution gives, h_j is the mean over its places.
        layer: a module of the model; None: the logits.
        decay: λ ≥ 0, in units of h_j a squared unit of the images.
        origin: what λ pulls to: a number, or an image. Black by default; where the model subtracts a mean image, that.
        steps: of ascent.
        step_size: root mean square of the first step, in units of the width of ``bounds``.
        noise: (low, high) of the start, inside ``bounds``.
        bounds: (low, high) of the images.
        dtype: of the images.
        batch_size: images a pass.
        seed: of the noise; image i depends on (seed, i) alone.
        work: progress and resume.
        name: of the computation in ``work``, unique there; default: after the class of the layer.

    Raises:
        TypeError, ValueError: naming the argument; a layer that the model does not call, or whose output is not (N, units, …).

    Cost: ``steps`` forward and backward passes, two forward passes, and one of a single image.
    Source: seed 003, §2.2.5, eq. 2.8 (Erhan et al. 2009) and 2.9 (corrected: Simonyan et al. 2014, eq. 1, squares the norm).
    """
    bounds = check_noise(noise, bounds)
    if not isinstance(units, Tensor) or units.dtype != torch.int64 or units.ndim != 1 or not len(units):
        raise ValueError("units: expected an int64 tensor of shape (N,), N >= 1")
    check_count(steps=steps, batch_size=batch_size)
    check_number("decay", decay, 0)
    check_positive(step_size=step_size)
    centre = torch.as_tensor(origin, dtype=dtype, device=units.device).detach()
    if centre.ndim and centre.shape != tuple(shape):
        raise ValueError(f"origin: expected a number or shape {tuple(shape)}, got {tuple(centre.shape)}")

    def compute(ids: Tensor) -> dict[str, Tensor]:
        chosen, images = units[ids], noise_images(ids, shape, noise, dtype, seed)
        start, anywhere = images.clone(), unbounded_radius(images, bounds)
        length = step_size * (bounds[1] - bounds[0]) * images[0].numel() ** 0.5
        with torch.no_grad():
            before = _of_unit(_output(model, layer, images), chosen)
        for step in range(steps):
            point = images.detach().requires_grad_()
            with torch.enable_grad():
                total = _of_unit(_output(model, layer, point), chosen).sum()
            (grad,) = torch.autograd.grad(total, point)
            grad = grad.sub(images - centre, alpha=2 * decay)  # autograd may return an expanded tensor
            ops.pgd_step_(images, grad, start, 2.0, anywhere, length * (1 - step / steps), bounds)
        with torch.no_grad():
            after = _of_unit(_output(model, layer, images), chosen)
        return {"images": images, "before": before, "activation": after}

    with undisturbed(model):
        with torch.no_grad():
            width = _output(model, layer, noise_images(torch.zeros_like(units[:1]), shape, noise, dtype, seed)).shape[1]
        if int(units.amin()) < 0 or int(units.amax()) >= width:
            raise ValueError(f"units: expected 0 <= unit < {width}")
        parts = torch.arange(len(units), device=units.device).split(batch_size)
        title = name or f"activation maximisation of {'classes' if layer is None else type(layer).__name__}"
        found = joined((work or Work()).map(title, parts, compute))
    return PreferredInputs(found["images"], units.cpu(), found["before"], found["activation"])


def _output(model: Model, layer: nn.Module | None, images: Tensor) -> Tensor:
    """(N, units, …): what the layer returns, or the logits."""
    if layer is None:
        logits = model(images)
        check_logits(logits, len(images))
        return logits
    seen: list[Any] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        seen.append(output.clone() if isinstance(output, Tensor) else output)  # the next module may work in place

    handle = layer.register_forward_hook(keep)
    try:
        model(images)
    finally:
        handle.remove()
    if not seen:
        raise ValueError("layer: expected a module that the model calls")
    output = seen[-1]
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != len(images):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"layer: expected an output of shape ({len(images)}, units, ...), got {got}")
    return output


def _of_unit(output: Tensor, units: Tensor) -> Tensor:
    """h_j (N,) of each image's unit."""
    values = output.flatten(2).mean(2) if output.ndim > 2 else output
    return values.gather(1, units.unsqueeze(1)).squeeze(1)
