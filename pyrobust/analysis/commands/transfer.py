"""Whose adversarial examples fool whom, and how far away those of the network are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pyrobust._checks import norm_name
from pyrobust.analysis.distributions import LEVELS, RobustnessDistribution, robustness_distribution
from pyrobust.analysis.page import Section, Table
from pyrobust.analysis.session import Session
from pyrobust.analysis.transfer import TransferMatrix, transfer_matrix
from pyrobust.attacks import ddn, pgd
from pyrobust.attacks._common import check_count, check_positive
from pyrobust.models import fit, mlp, small_cnn


def transfer_sections(
    session: Session,
    against: Sequence[tuple[str, nn.Module]] = (),
    norm: str = "linf",
    eps: float = 0.1,
    steps: int = 40,
) -> list[Section]:
    """Transfer matrix of the network and others; distances of its adversarial examples, and their classes.

    Args:
        session: what is analysed.
        against: (name, network) of the others, on the session's device; default on digits: a CNN of another seed and an MLP,
            trained on the spot.
        norm: of the transferred points' budget: "linf", "l2" or "l1".
        eps: that budget, > 0.
        steps: of the attack (PGD) that makes them.

    Raises:
        ValueError: naming the argument; no other network, and the data are not digits.
    """
    norm = check_transfer(norm, eps, steps)
    others = dict(against) or _trained_on_digits(session)
    if len(others) < len(against) or session.name in others:
        raise ValueError(
            f"against: expected names that differ, got {', '.join([session.name, *(n for n, _ in against)])}"
        )
    matrix = transfer_matrix(
        {session.name: session.model, **others}, session.inputs, session.labels,
        attack=partial(pgd, norm=norm, eps=eps, steps=steps), batch_size=session.batch_size, seed=session.seed, work=session.work,
    )  # fmt: skip
    return [_matrix(matrix, norm, eps, steps), _distribution(_nearest(session))]


def check_transfer(norm: str, eps: float, steps: int) -> str:
    """The name of the norm.

    Raises:
        ValueError: naming the option that is not as `transfer_sections` expects it.
    """
    check_positive(eps=eps)
    check_count(steps=steps)
    return norm_name(norm, ("l1", "l2", "linf"))


def _nearest(session: Session) -> RobustnessDistribution:
    def compute(ids: Tensor) -> dict[str, Tensor]:
        x, y = session.inputs[ids], session.labels[ids]
        return {"points": ddn(session.model, x, y, seed=session.seed, sample_ids=ids)}

    parts = torch.arange(len(session.inputs), device=session.device).split(session.batch_size)
    points = torch.cat([part["points"] for part in session.work.map("nearest adversarial examples", parts, compute)])
    return robustness_distribution(
        session.model, session.inputs, session.labels, points.to(session.device), batch_size=session.batch_size
    )


def _trained_on_digits(session: Session) -> dict[str, nn.Module]:
    if session.data.name != "digits" or session.data.train is None:
        raise ValueError("against: expected at least one other network, for data other than digits")
    inputs, labels = session.data.train
    made: dict[str, nn.Module] = {
        f"CNN, seed {session.seed + 1}": small_cnn(session.seed + 1),
        "MLP": mlp(session.seed, width=100, inputs=inputs[0].numel()),
    }
    for name, model in made.items():

        def weights(part: Sequence[int], model: nn.Module = model) -> dict[str, Tensor]:
            return fit(model, inputs, labels, epochs=20, batch_size=32, seed=session.seed).state_dict()

        (state,) = session.work.map(f"training {name}", [(0,)], weights)
        model.load_state_dict(state)
        model.to(session.device).eval()
    return made


def _matrix(matrix: TransferMatrix, norm: str, eps: float, steps: int) -> Section:
    rows = [
        (name, f"{100 * matrix.accuracy[i]:.1f} %", *(f"{100 * share:.1f} %" for share in matrix.success[i].tolist()))
        for i, name in enumerate(matrix.names)
    ]
    return Section(
        "Transfer",
        f"Adversarial points of PGD ({steps} steps, {norm}, eps {eps:g}) made on one network (row) and shown to another (column): "
        "the share of the samples that both get right which the latter then mistakes, on the diagonal by its own points. "
        "Right: how much less that is than what the latter's own points reach on the same samples.",
        figure=matrix.plot(),
        table=Table(("made on", "clean accuracy", *(f"fools {name}" for name in matrix.names)), rows),
        data={"matrix": matrix, "gap": matrix.gap},
    )


def _distribution(found: RobustnessDistribution) -> Section:
    names = [*map(str, range(found.classes)), "all"]
    rows = [
        (name, *(f"{value:.4g}" for value in row)) for name, row in zip(names, found.quantiles().tolist(), strict=True)
    ]
    return Section(
        "Distances and classes",
        f"Nearest adversarial examples in l2 (DDN, 100 steps): found for {100 * found.success:.4g} % of the correct samples, "
        f"with ρ = mean ‖r‖ / ‖x‖ = {found.rho:.4g}. The density counts the samples that were not broken as mass that is "
        "missing. The table has the distances within which a share of a class's correct samples is broken.",
        figure=found.plot(),
        table=Table(("class", *(f"{100 * level:g} %" for level in LEVELS)), rows),
        data={"success": found.success, "rho": found.rho, "distribution": found, "confusion": found.confusion()},
    )
