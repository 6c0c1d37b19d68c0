"""Along what a network stretches its inputs, how much, and whether attacks make use of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust.analysis._draw_spectrum import draw_alignments, draw_spectra
from pyrobust.analysis.alignment import Alignment, alignment, reinitialised
from pyrobust.analysis.commands._radius import sufficient_norm
from pyrobust.analysis.layer_norms import LipschitzUpper, lipschitz_upper
from pyrobust.analysis.lipschitz import LipschitzBounds, lipschitz_lower
from pyrobust.analysis.operator_norms import operator_norms
from pyrobust.analysis.page import Section, Table
from pyrobust.analysis.session import Session
from pyrobust.analysis.spectrum import JacobianSpectrum, jacobian_spectrum
from pyrobust.analysis.work import joined
from pyrobust.attacks import deepfool, pgd
from pyrobust.attacks._common import check_count, check_positive
from pyrobust.evaluation.formatting import NORM_NAMES

PGD_STEPS = 10
QUANTILES = (0.05, 0.5, 0.95)


def spectrum_sections(
    session: Session, layer: str | None = None, k: int | None = None, eps: float | None = None, untrained: bool = True
) -> list[Section]:
    """Singular values, operator norms, alignment of perturbations with singular vectors, and Lipschitz bounds.

    Args:
        session: what is analysed.
        layer: the Jacobian is that of this module's output; None: of the logits. Lipschitz bounds are always of the logits.
        k: the spectrum is of so many of the largest singular values; None: of all.
        eps: l2 radius of the gradient ascent and of the search for steep points; None: that which suffices for 95 % of the
            samples.
        untrained: show the same architecture with fresh weights too, where its modules say how they are drawn.
    """
    check_spectrum(k, eps)
    networks, why = {session.name: session.model}, ""
    if untrained:
        try:
            networks["untrained"] = reinitialised(session.model, session.seed)
        except ValueError as error:  # weights of which nobody says how they are drawn
            why = f" No untrained network: {error}."
    spectra = {
        name: jacobian_spectrum(
            model, session.inputs, layer, k=k, batch_size=session.batch_size, seed=session.seed, work=session.work,
            name=f"spectrum of {name}",
        )
        for name, model in networks.items()
    }  # fmt: skip
    smallest = perturbed(session, "smallest perturbations", lambda x, y, _: deepfool(session.model, x, y))
    radius = sufficient_norm("eps", ops.lp_norm(smallest - session.inputs, 2)) if eps is None else eps
    ascent = perturbed(
        session,
        "gradient ascent",
        lambda x, y, ids: pgd(
            session.model, x, y, eps=radius, norm="l2", steps=PGD_STEPS, seed=session.seed, sample_ids=ids
        ),
    )
    aligned = {
        f"{attack}, {name}": alignment(
            model, session.inputs, points, layer, batch_size=session.batch_size, work=session.work,
            name=f"alignment of {attack}, {name}",
        )
        for name, model in networks.items()
        for attack, points in (("gradient ascent", ascent), ("smallest", smallest))
        if bool((points != session.inputs).any())
    }  # fmt: skip
    outputs = "logits" if layer is None else f"outputs of {layer}"
    return [
        _spectrum(spectra, outputs, k, why),
        _norms(session, layer, outputs),
        *([_alignment(aligned, outputs, radius)] if aligned else []),
        _lipschitz(session, radius),
    ]


def check_spectrum(k: int | None, eps: float | None) -> None:
    """Raises:
    ValueError: naming the option that is not as `spectrum_sections` expects it.
    """
    if k is not None:
        check_count(k=k)
    if eps is not None:
        check_positive(eps=eps)


def perturbed(session: Session, name: str, attack: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """What ``attack(inputs, labels, ids)`` makes of the samples, on their device."""
    ids = torch.arange(len(session.inputs), device=session.device)
    results = session.work.map(
        name,
        ids.split(session.batch_size),
        lambda part: {"points": attack(session.inputs[part], session.labels[part], part)},
    )
    return joined(results)["points"].to(session.device)


def _spectrum(spectra: dict[str, JacobianSpectrum], outputs: str, k: int | None, why: str) -> Section:
    rows = []
    for name, one in spectra.items():
        first, last = one.values[:, 0], one.values[:, -1]
        mass = one.values.square().sum(1)
        rows.append((
            name, *_quantiles(first), f"{last.median():.3g}", f"{100 * (first.square() / mass).median():.1f} %",
            f"{(mass / first.square()).median():.3g}",
        ))  # fmt: skip
    shown = "The" if k is None else f"The {k} largest"
    return Section(
        "Singular values",
        f"{shown} singular values of the Jacobian of the {outputs} in the inputs, by rank, over the samples; untrained is the same "
        "architecture with fresh weights. The largest, σ₁, is the most that a small change of the inputs is stretched, in l2. The "
        "share is that of σ₁² in the sum of all squares shown, the stable rank its inverse; both are medians." + why,
        figure=draw_spectra(spectra),
        table=Table(("network", "σ₁, 5 %", "median", "95 %", "smallest", "share of σ₁²", "stable rank"), rows),
        data={"spectra": spectra},
    )


def _norms(session: Session, layer: str | None, outputs: str) -> Section:
    found = operator_norms(
        session.model, session.inputs, layer, batch_size=session.batch_size, seed=session.seed, work=session.work
    )
    rows = [
        (f"{NORM_NAMES[p]} → {NORM_NAMES[q]}", *_quantiles(values), "exact" if found.exact[p, q] else "lower bound")
        for (p, q), values in found.values.items()
    ]
    named = {f"{p} to {q}": {"values": v, "exact": found.exact[p, q]} for (p, q), v in found.values.items()}
    return Section(
        "Operator norms",
        f"The most that the {outputs} move in the second norm when the inputs move by 1 in the first, to first order: quantiles "
        "over the samples. Norms that are hard to compute are found by trying all signs where there are few, and else bounded "
        "from below by the power method.",
        figure=found.plot(),
        table=Table(("norm", "5 %", "median", "95 %", ""), rows),
        data=named,
    )


def _alignment(aligned: dict[str, Alignment], outputs: str, radius: float) -> Section:
    rows = []
    for name, one in aligned.items():
        there = one.cosines[~one.cosines.isnan().any(1)]
        rows.append((name, str(len(there)), f"{there[:, 0].mean():.3f}", f"{100 * there.square().sum(1).mean():.1f} %"))
    some = next(iter(aligned.values()))
    share = some.cosines.shape[1] * some.expected_share
    rows.append(("random directions", "–", f"{some.expected_cosine:.3f}", f"{100 * share:.1f} %"))
    return Section(
        "Alignment of perturbations",
        f"|cos| between adversarial perturbations and the right singular vectors of the Jacobian of the {outputs} at the input, "
        f"by rank: means over the samples that were moved, two standard errors shaded. Gradient ascent: {PGD_STEPS} steps of the "
        f"cross-entropy within {radius:.3g} in l2; smallest: DeepFool. Untrained: the same perturbations against the Jacobian of "
        "the same architecture with fresh weights. The share is that of the squared length in the span of all of them.",
        figure=draw_alignments(aligned),
        table=Table(("perturbations, network", "samples", "|cos| at rank 1", "share in the span"), rows),
        data={"aligned": aligned, "eps": radius},
    )


def _lipschitz(session: Session, eps: float) -> Section:
    lower = lipschitz_lower(
        session.model, session.inputs, eps=eps, batch_size=session.batch_size, seed=session.seed, work=session.work
    )
    rows = [
        ("σ₁ at the inputs, median", f"{lower.at_inputs.median():.4g}"),
        (f"largest found within {eps:.3g} of them, median", f"{lower.near.median():.4g}"),
        ("largest found of all: lower bound", f"{lower.near.max():.4g}"),
    ]
    upper, why = None, ""
    try:
        upper = lipschitz_upper(session.model, tuple(session.inputs.shape[1:]), seed=session.seed)
    except ValueError as error:  # a layer of which nothing is known
        why = f" No upper bound: {error}."
    else:
        rows.append(("product over the layers: upper bound", f"{upper.bound:.4g}"))
        rows += [(f"layer {one.name}, {one.kind}", f"{one.bound:.4g}") for one in upper.layers if one.bound != 1]
    return Section(
        "Lipschitz bounds",
        "The Lipschitz constant of the logits, l2 to l2, lies between the largest singular value found by an ascent around the "
        "data and the product of the layers' constants (of convolutions: that of the map at its input size; layers of constant 1 "
        "are left out)." + why,
        figure=None if upper is None else LipschitzBounds(lower, upper).plot(),
        table=Table(("quantity", "l2 → l2"), rows),
        data=_lipschitz_data(lower.at_inputs, lower.near, eps, upper),
    )


def _lipschitz_data(at_inputs: Tensor, near: Tensor, eps: float, upper: LipschitzUpper | None) -> dict[str, object]:
    data: dict[str, object] = {"at_inputs": at_inputs, "near": near, "eps": eps}
    return data if upper is None else data | {"bound": upper.bound, "layers": upper.layers}


def _quantiles(values: Tensor) -> list[str]:
    return [f"{value:.3g}" for value in torch.quantile(values, torch.tensor(QUANTILES, dtype=values.dtype)).tolist()]
