"""What a network's layers hold and look for: weights, saliency maps, class images."""

from __future__ import annotations

import torch

from pyrobust._checks import check_logits
from pyrobust.analysis.filters import Filters, filters
from pyrobust.analysis.page import Section, Table
from pyrobust.analysis.recognition import Recognised, recognised
from pyrobust.analysis.saliency import METHODS, Saliency, saliency
from pyrobust.analysis.session import Session
from pyrobust.analysis.visualise import activation_maximisation
from pyrobust.attacks._common import check_count


def filters_sections(
    session: Session, per_layer: int = 32, shown: int = 8, decay: float = 0.1, steps: int = 200
) -> list[Section]:
    """Weights by layer, saliency maps of a few samples, and images that maximise each class.

    Args:
        session: what is analysed; images need 1 or 3 channels.
        per_layer: filters shown of a layer, at most.
        shown: samples whose saliency maps are shown.
        decay: λ of the class images' penalty λ ‖x − mean image‖₂².
        steps: of gradient ascent towards a class image.
    """
    check_count(per_layer=per_layer, shown=shown)
    x = session.inputs
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"data: expected images (N, C, H, W) with 1 or 3 channels, got {tuple(x.shape)}")
    with torch.no_grad():
        classes = check_logits(session.model(x[:1]), 1)
    targets = torch.arange(classes, device=session.device)
    preferred = activation_maximisation(
        session.model, x.shape[1:], targets, decay=decay, origin=x.mean(0), steps=steps, dtype=x.dtype,
        batch_size=session.batch_size, seed=session.seed, work=session.work,
    )  # fmt: skip
    images = preferred.images.to(session.device)
    return [
        _weights(filters(session.model, x, count=per_layer, seed=session.seed)),
        _saliency(_maps(session, shown)),
        _class_images(recognised(session.model, images, targets), decay, steps),
    ]


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
