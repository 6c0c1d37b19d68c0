"""How linear a network is around data, and what its linear models tell of its robustness and of its confidence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust.analysis._draw_linearity import draw_linearity
from pyrobust.analysis.calibration import Calibration, calibration
from pyrobust.analysis.commands._radius import sufficient_norm
from pyrobust.analysis.linearity import (
    LocalLinearity,
    adversarial_directions,
    local_linearity,
    random_directions,
)
from pyrobust.analysis.local import LocalClassifier, layer_weights, local_classifier
from pyrobust.analysis.page import Section, Table
from pyrobust.analysis.session import Session
from pyrobust.analysis.work import joined
from pyrobust.attacks import fmn
from pyrobust.attacks._common import check_count, check_positive
from pyrobust.evaluation.checks import predict, verify

QUARTILES = ("lower quartile", "median", "upper quartile")


def linearity_sections(
    session: Session,
    layer: str | None = None,
    reach: float | None = None,
    points: int = 13,
    attack_steps: int = 100,
    bins: int = 15,
) -> list[Section]:
    """Deviation from linearity, local classifiers against an attack, calibration, and weights.

    Args:
        session: what is analysed.
        layer: the deviation is that of this module's output; None: of the logits.
        reach: the largest distance; None: twice the l2 norm that suffices for 95 % of the samples.
        points: distances, from 0.
        attack_steps: of the minimum-norm attack (FMN).
        bins: of confidence.
    """
    check_linearity(reach, points, attack_steps, bins)
    found = smallest_norms(session, attack_steps)
    reference = reference_distance(found, reach)
    directions = directions_of(session, reference)
    linearity = local_linearity(
        session.model, session.inputs, directions, layer, distances=torch.linspace(0, 2 * reference, points).tolist(),
        batch_size=session.batch_size, seed=session.seed, work=session.work,
    )  # fmt: skip
    local = local_classifier(
        session.model, session.inputs, session.labels, batch_size=session.batch_size, work=session.work
    )
    # All samples: a forward pass costs little, and bins of a few samples tell nothing.
    confidence = calibration(
        lambda x: session.model(x.to(session.device)), *session.data.test,
        bins=bins, batch_size=session.batch_size, work=session.work,
    )  # fmt: skip
    return [
        _linearity(linearity, layer, reference),
        _local(local, found, attack_steps),
        _calibration(confidence),
        _weights(session),
    ]


def check_linearity(reach: float | None, points: int, attack_steps: int, bins: int = 1) -> None:
    """Raises:
    ValueError: naming the option that is not as `linearity_sections` expects it.
    """
    if reach is not None:
        check_positive(reach=reach)
    check_count(points=points, attack_steps=attack_steps, bins=bins)


def smallest_norms(session: Session, steps: int) -> Tensor:
    """(N,) l2 norms of the perturbations that FMN finds, predicted again: 0 where wrong already, inf where none was found."""

    def attack(ids: Tensor) -> dict[str, Tensor]:
        x, y = session.inputs[ids], session.labels[ids]
        adv = fmn(session.model, x, y, norm="l2", steps=steps, seed=session.seed, sample_ids=ids)
        verdict = verify(x, adv, y, predict(session.model, adv)[1], norm="l2", bounds=(0.0, 1.0))
        wrong = (predict(session.model, x)[1] != y).cpu()
        norms = verdict.norms["l2"].masked_fill(~verdict.adversarial, math.inf)
        return {"norms": norms.masked_fill(wrong, 0.0)}

    ids = torch.arange(len(session.inputs), device=session.device)
    return joined(session.work.map("smallest perturbations", ids.split(session.batch_size), attack))["norms"].double()


def reference_distance(found: Tensor, reach: float | None) -> float:
    """Half the reach: by default the norm that suffices for 95 % of the samples, of those where one was found.

    Raises:
        ValueError: the reach is not a number above 0, or none was found to take it from.
    """
    if reach is not None:
        check_positive(reach=reach)
        return reach / 2
    return sufficient_norm("reach", found)


def directions_of(session: Session, eps: float) -> dict[str, Tensor]:
    """Unit directions, at random and by gradient ascent within eps."""
    return {
        "random": random_directions(session.inputs, seed=session.seed),
        "adversarial": adversarial_directions(
            session.model, session.inputs, session.labels, eps=eps, batch_size=session.batch_size, seed=session.seed
        ),
    }


def _linearity(found: LocalLinearity, layer: str | None, reference: float) -> Section:
    middle = len(found.distances) // 2
    rows = [
        (
            name,
            f"{found.distances[middle]:.3g}",
            f"{found.deviation[name][middle].median():.3g}",
            f"{100 * found.relative(name)[middle].nanmedian():.1f} %",
            f"{found.largest_singular[name][0].median():.3g}",
            f"{found.largest_singular[name][middle].median():.3g}",
        )
        for name in found.deviation
    ]
    outputs = "logits" if layer is None else f"outputs of {layer}"
    columns = ("direction", "at distance", "deviation", "of the change", "σ at the data", "σ there")
    return Section(
        "Local linearity",
        f"How far the {outputs} at x + z are from their linear model at x, and the largest singular value of their Jacobian at "
        "x + z: medians over samples, the middle half shaded. Adversarial is the direction of projected gradient ascent of the "
        f"cross-entropy within {reference:.3g} in l2 (dotted). Points are not cut off at the bounds of the inputs.",
        figure=draw_linearity({"": found}, mark=reference),
        table=Table(columns, rows),
        data={"found": found},
    )


def _local(local: LocalClassifier, found: Tensor, steps: int) -> Section:
    correct = (local.distances > 0) & local.distances.isfinite() & found.isfinite() & (found > 0)
    quantities = {
        "distance to the local boundary": local.distances,
        "smallest perturbation found": found,
        "found / local": found / local.distances,
        "score s(x)": local.scores,
        "its scale, the gradient's norm": local.scales,
    }
    at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    rows = [
        (name, *(f"{v:.3g}" for v in torch.quantile(values[correct], at).tolist()))
        for name, values in quantities.items()
        if bool(correct.any())
    ]
    numbers = {name: getattr(local, name) for name in ("others", "offsets", "scores", "scales", "distances")}
    return Section(
        "Local linear classifiers",
        "Around x the network is the linear classifier s(x) = w·x + b, s the label's logit less that of the class whose "
        "boundary is nearest, at the distance d(x) = s(x) / ‖w‖: over it the smallest l2 perturbation that an attack found "
        f"(FMN, {steps} steps, each point predicted again). Points above the line: the boundary bends away, the linear model is "
        "too pessimistic, or the attack stopped short. Correctly classified samples.",
        figure=local.plot(found),
        table=Table(("quantity", *QUARTILES), rows),
        data={"local": numbers, "found": found},
    )


def _calibration(found: Calibration) -> Section:
    shown = {"as it is": found.plain, "least loss": found.scaled, "median confidence 0.95": found.median}
    rows = [
        (name, f"{one.temperature:.3g}", f"{100 * one.ece:.2f} %", f"{one.nll:.4g}")
        for name, one in shown.items()
        if one is not None
    ]
    missing = (
        ""
        if found.scaled
        else " No finite temperature above 0 has the least loss: all samples are correct, or no better."
    )
    return Section(
        "Calibration",
        f"Accuracy over confidence of all {int(found.plain.counts.sum())} test samples, by bins of equal width, for logits "
        "divided by a temperature t: as they are, at the t of the least mean log-likelihood loss, and at that of a median "
        "confidence of 0.95. ECE is the mean distance of the two, weighted by the samples in each bin." + missing,
        figure=found.plot(),
        table=Table(("logits", "temperature", "ECE", "loss"), rows),
        data={"found": found},
    )


def _weights(session: Session) -> Section:
    layers = layer_weights(session.model)
    rows = [(one.name, one.kind, " × ".join(map(str, one.shape)), f"{one.rms:.4g}") for one in layers]
    return Section(
        "Weights by layer",
        "Root mean square of each layer's weights: what weight decay makes small, and with it the scale of the scores.",
        table=Table(("layer", "kind", "shape", "RMS"), rows),
        data={"layers": layers},
    )
