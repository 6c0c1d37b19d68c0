"""Do attacks without gradients do better than those that follow them? Then the gradients are masked.

Source: Carlini et al., On Evaluating Adversarial Robustness, 2019, section 5; Athalye et al., 2018, section 3; seed 003, §2.4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pyrobust._checks import Model
from pyrobust.attacks import hop_skip_jump, one_pixel, pdpgd, simba, transfer
from pyrobust.evaluation import metrics
from pyrobust.evaluation.attacks import Task, resolve
from pyrobust.evaluation.outcomes import Outcome
from pyrobust.evaluation.subject import hash_model

# Sized so that the decision-based attack comes within a tenth of the white-box norms on small images, at 5000 predictions
# a sample; the others ask for 2000 at most.
_DECISIONS = partial(hop_skip_jump, steps=16)
_SCORES = partial(simba, steps=1000)
# Prolonged, as points at the substitute's boundary seldom are beyond the model's, and then shortened to that.
_PROLONGED = partial(transfer, stretch=5.0, search_steps=10)
_EVOLUTION = partial(one_pixel, population=100, steps=20)
# By the norm that is evaluated, the norms to search in and the attacks. What is found in one norm counts in all: none is
# made for l1, and where gradients lead nowhere a point far away in l0 is still one more than nothing.
_SEARCHES = {
    "linf": (("linf", _DECISIONS), ("linf", _SCORES)),
    "l2": (("l2", _DECISIONS), ("l2", _SCORES)),
    "l1": (("l2", _DECISIONS), ("l2", _SCORES)),
    "l0": (("l2", _DECISIONS), ("l0", _EVOLUTION)),
}
# Attacks of finite length stop this far from the smallest norm themselves, so a smaller lead is no sign of anything.
_LEAD = 0.01


def searches(norms: Sequence[str], substitute: Model | None = None) -> list[Task]:
    """The attacks without gradients of the model for these norms, each once; with a substitute also points made on that."""
    found: dict[tuple[str, str], Task] = {}
    for norm in norms:
        for searched, function in _SEARCHES[norm]:
            attack = replace(resolve(function), name=function.func.__name__)  # its arguments are in the record
            found.setdefault((searched, attack.name), Task(searched, attack, None))
        if substitute is not None:
            led = "linf" if norm == "linf" else "l2"
            function = partial(_PROLONGED, substitute=substitute, attack=partial(pdpgd, norm=led))
            # A module would print as its layers there.
            reference = f"pyrobust.attacks.transfer:transfer(substitute={hash_model(substitute)}, attack=pdpgd {led})"
            attack = replace(resolve(function), name="transfer", reference=reference)
            found.setdefault((led, attack.name), Task(led, attack, None))
    return list(found.values())


@dataclass(frozen=True)
class Lead:
    """How far attacks without gradients are ahead in one norm, on the samples checked.

    Attributes:
        norm: its name.
        samples: how many correct samples were checked.
        ahead: indices of those on which every attack of the run is behind by more than 1 %.
        unbroken: how many of these no attack of the run had broken.
        gain: by what share the norm is smaller than the run's best, in the median over the others of ``ahead``; None
            where there are none.
        attacks: names of the attacks of the run.
        searches: names of the attacks without gradients that are ahead.
    """

    norm: str
    samples: int
    ahead: list[int]
    unbroken: int
    gain: float | None
    attacks: list[str]
    searches: list[str]

    def figures(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "samples": self.samples,
            "ahead": self.ahead,
            "unbroken": self.unbroken,
            "gain": self.gain,
            "searches": self.searches,
        }

    def warning(self) -> str:
        """A sentence, where there is a lead."""
        missed = f" on {self.unbroken} of them nothing else was found" if self.unbroken else ""
        gain = "" if self.gain is None else f" by {100 * self.gain:.3g} % in the median"
        by = ";".join(part for part in (gain, missed) if part)
        return (
            f"{self.norm}: on {len(self.ahead)} of {self.samples} correct samples, attacks without gradients "
            f"({', '.join(self.searches)}) found a smaller perturbation than {', '.join(self.attacks)}:{by}. Attacks that "
            "follow gradients should be ahead, so this points to masked gradients, too few steps or too weak an attack."
        )


def leads(checked: Sequence[tuple[Task, pa.Table]], outcomes: Sequence[Outcome]) -> list[Lead]:
    """Compare what the searches found on the first samples with the run's outcomes there, norm by norm.

    Args:
        checked: the searches, each with its verified rows.
        outcomes: of the attacks of the run, on all samples.
    """
    norms = dict.fromkeys(o.norm for o in outcomes)
    return [_lead(checked, [o for o in outcomes if o.norm == norm]) for norm in norms]


def _lead(checked: Sequence[tuple[Task, pa.Table]], outcomes: Sequence[Outcome]) -> Lead:
    norm, count = outcomes[0].norm, len(checked[0][1])
    correct = outcomes[0].correct[:count]
    run = [o.distances[:count] for o in outcomes]
    shares = []
    for _, rows in checked:
        found = metrics.distances_of(correct, rows["adversarial"].to_numpy(), rows[norm].to_numpy())
        # A sweep is behind only where it failed at a budget that the search kept to.
        seen = [_swept(found, o.budgets) for o in outcomes]
        shares.append(np.minimum.reduce([_gain(s, d) for s, d in zip(seen, run, strict=True)]))
    gain = np.maximum.reduce(shares)
    ahead = gain > _LEAD
    unbroken = ahead & np.isinf(np.minimum.reduce(run))
    measured = gain[ahead & ~unbroken]
    return Lead(
        norm=norm,
        samples=int(correct.sum()),
        ahead=np.flatnonzero(ahead).tolist(),
        unbroken=int(unbroken.sum()),
        gain=float(np.median(measured)) if measured.size else None,
        attacks=[o.attack for o in outcomes],
        searches=[
            f"{task.norm} · {task.attack.name}"
            for (task, _), share in zip(checked, shares, strict=True)
            if (share > _LEAD).any()
        ],
    )


def _swept(distances: metrics.Floats, budgets: Sequence[float]) -> metrics.Floats:
    """Distances as a sweep sees them: the smallest of the budgets that is as large. The same where there is none."""
    if not budgets:
        return distances
    grid = np.array([*budgets, np.inf])
    return np.where(distances > 0, grid[np.searchsorted(grid, distances)], 0.0)


def _gain(found: metrics.Floats, reference: metrics.Floats) -> metrics.Floats:
    """By what share ``found`` is smaller, in [0, 1]: 1 where the reference alone is infinite."""
    smaller = found < reference
    return np.where(smaller, 1 - np.divide(found, reference, out=np.ones_like(found), where=smaller), 0.0)
