"""What a network's layers hold and look for: weights, saliency maps, inputs that maximise units and classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyrobust._checks import check_logits
from pyrobust.analysis.filters import Filters, filters
from pyrobust.analysis.local import layer_weights
from pyrobust.analysis.page import Section, Table
from pyrobust.analysis.recognition import Recognised, recognised
from pyrobust.analysis.saliency import METHODS, Saliency, saliency
from pyrobust.analysis.session import Session
from pyrobust.analysis.visualise import PreferredInputs, activation_maximisation
from pyrobust.attacks._common import check_count, check_number


def filters_sections(
    session: Session,
    per_layer: int = 32,
    shown: int = 8,
    decay: float = 0.1,
    steps: int = 200,
    layer: str | None = None,
    units: int = 16,
) -> list[Section]:
    """Weights by layer, saliency maps of a few samples, and images that maximise units of a layer and each class.

    Args:
        session: what is analysed; images need 1 or 3 channels.
        per_layer: filters shown of a layer, at most.
        shown: samples whose saliency maps are shown.
        decay: λ of the penalty λ ‖x − mean image‖₂² of the images that maximise something.
        steps: of gradient ascent towards them.
        layer: name of the module whose units are maximised; None: the last layer with weights before the one that gives the logits,
            where there is one.
        units: the first so many of it, at most.
    """
    check_filters(per_layer, shown, decay, steps, units)
    x = session.inputs
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"data: expected images (N, C, H, W) with 1 or 3 channels, got {tuple(x.shape)}")
    with torch.no_grad():
        classes = check_logits(session.model(x[:1]), 1)
    targets = torch.arange(classes, device=session.device)
    maximise = partial(
        activation_maximisation, session.model, x.shape[1:], decay=decay, origin=x.mean(0), steps=steps, dtype=x.dtype,
        batch_size=session.batch_size, seed=session.seed, work=session.work,
    )  # fmt: skip
    sections = [
        _weights(filters(session.model, x, count=per_layer, seed=session.seed)),
        _saliency(_maps(session, shown)),
    ]
    chosen = _hidden(session.model, x[:1]) if layer is None else layer
    if chosen is not None:
        width = _width(session.model, chosen, x[:1])
        numbers = torch.arange(min(units, width), device=session.device)
        module = _modules(session.model)[chosen]
        sections.append(_units(maximise(numbers, layer=module), chosen, width, decay, steps))
    images = maximise(targets).images.to(session.device)
    return [*sections, _class_images(recognised(session.model, images, targets), decay, steps)]


def check_filters(per_layer: int, shown: int, decay: float, steps: int, units: int) -> None:
    """Raises:
    ValueError: naming the option that is not as `filters_sections` expects it.
    """
    check_count(per_layer=per_layer, shown=shown, steps=steps, units=units)
    check_number("decay", decay, 0)


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    return dict(getattr(model, "_orig_mod", model).named_modules())  # torch.compile hides the modules' names


def _outputs(model: nn.Module, names: Sequence[str], example: Tensor) -> dict[str, Any]:
    """What these modules return for it, in the order of their last calls."""
    modules, seen = _modules(model), dict[str, Any]()

    def keep(name: str, output: Any) -> None:
        seen.pop(name, None)
        seen[name] = output

    handles = [
        modules[name].register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name in names
    ]
    try:
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _hidden(model: nn.Module, example: Tensor) -> str | None:
    """The last but one of the layers with weights that are called and return units."""
    found = _outputs(model, [layer.name for layer in layer_weights(model)], example)
    called = [name for name, output in found.items() if isinstance(output, Tensor) and output.ndim > 1]
    return called[-2] if len(called) > 1 else None


def _width(model: nn.Module, layer: str, example: Tensor) -> int:
    """How many units it has.

    Raises:
        ValueError: there is no such module, the model does not call it, or it returns no units.
    """
    names = [name for name in _modules(model) if name]
    if layer not in names:
        raise ValueError(f"layer: expected one of {', '.join(names) or 'no module'}, got {layer!r}")
    output = _outputs(model, [layer], example).get(layer)
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != len(example):
        raise ValueError(
            f"layer: expected a module that the model calls and that returns (N, units, ...), got {layer!r}"
        )
    return output.shape[1]


def _units(found: PreferredInputs, layer: str, width: int, decay: float, steps: int) -> Section:
    shown = "All" if len(found.units) == width else f"The first {len(found.units)} of"
    return Section(
        "Preferred inputs of units",
        f"{shown} {width} units of layer {layer}: images that maximise unit − {decay:g} ‖x − mean image‖², a unit of a convolution "
        f"being the mean of its map, by {steps} steps of gradient ascent from noise; below them what the unit gives.",
        figure=found.plot(),
        data={"layer": layer, "units": found.units, "before": found.before, "activation": found.activation},
    )


def _weights(found: Filters) -> Section:
    rows = [(layer.name, " × ".join(map(str, layer.shape)), f"{layer.rms:.4g}") for layer in found.layers]
    drawn = any(layer.kernels is not None for layer in found.layers)
    return Section(
        "Weights",
        "Root mean square of each layer's weights, and filters at random of those whose weights are images or maps: whole where "
        "they read the image, else of one input channel. Grey is 0; black to white is one scale a layer.",
        figure=found.plot() if drawn else None,
        table=Table(("layer", "shape", "RMS"), rows),
        data={"layers": [{"name": layer.name, "shape": layer.shape, "rms": layer.rms} for layer in found.layers]},
    )


def _maps(session: Session, shown: int) -> Saliency:
    """By all methods, or by the gradient alone where the network has no rectifiers that the others could change."""
    x = session.inputs[:shown]
    try:
        return saliency(session.model, x, batch_size=session.batch_size)
    except ValueError as error:
        if "relu" not in str(error):
            raise
        return saliency(session.model, x, methods=METHODS[:1], batch_size=session.batch_size)


def _saliency(found: Saliency) -> Section:
    missing = "" if len(found.maps) > 1 else " The network calls no ReLU, which the other methods would change."
    return Section(
        "Saliency",
        "Largest magnitude over channels of what arrives at the input when the logit of the class predicted is propagated back; "
        "brightest is the largest of each map. Gradient: as it is. Deconvolution: ReLUs pass on what is positive. Guided: ReLUs "
        "pass on what is positive where they were active." + missing,
        figure=found.plot(),
        data={"classes": found.classes},
    )


def _class_images(found: Recognised, decay: float, steps: int) -> Section:
    return Section(
        "Class images",
        f"Images that maximise logit − {decay:g} ‖x − mean image‖², by {steps} steps of gradient ascent from noise, with the "
        "probability that the network gives them.",
        figure=found.plot(),
        data={"confidence": found.confidence, "predictions": found.predictions},
    )
