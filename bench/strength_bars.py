"""The bars of ``python -m bench strength``: ours at no more gradients than the peer it is compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable

from bench import report
from bench.roster import BUDGETS

OPTIMALITY = {"linf": 0.99, "l2": 0.99, "l1": 0.99, "l0": 0.98, "l0-values": 0.98}
ALONE = {"pdpgd 1000": ("linf", "l1"), "pdgd 1000": ("l2",)}
ALONE_OPTIMALITY = 0.95
SAME = 0.99  # a peer that spends this share of a budget is compared with it: FAB's 9 × 111 gradients with 1000


def bars(rows: list[report.Row]) -> list[report.Row]:
    """Of every network and norm: the worst ratio of means to a peer, and optimalities."""
    found: list[report.Row] = []
    for network, norm in dict.fromkeys((row["network"], row["norm"]) for row in rows):
        here = {r["attack"]: r for r in rows if (r["network"], r["norm"]) == (network, norm) and "distances" in r}
        ratio, peer = max(compare(here), default=(None, "no peer that spends as much"))
        where = f"{norm} on {network}"
        found.append(report.bar(f"{where}: minimum_norm over {peer}, mean norm", 1.0, ratio))
        cheaper = uncompared(here)
        if cheaper:
            found.append(
                report.bar(f"{where}: minimum_norm over {', '.join(cheaper)}: none spends as little", 1.0, None)
            )
        largest = here.get(f"minimum_norm {BUDGETS[-1]}", {}).get("optimality")
        found.append(report.bar(f"{where}: minimum_norm, optimality", OPTIMALITY[norm], largest, at_least=True))
        for name, norms in ALONE.items():
            if norm in norms:
                alone = here.get(name, {}).get("optimality")
                found.append(report.bar(f"{where}: {name}, optimality", ALONE_OPTIMALITY, alone, at_least=True))
    return found


def uncompared(rows: dict[str, report.Row]) -> list[str]:
    """The peers that break something with fewer gradients than ours is run with."""
    compared = {peer for _, peer in compare(rows)}
    return [name for name, row in rows.items() if row["peer"] and row["success"] and name not in compared]


def compare(rows: dict[str, report.Row]) -> Iterable[tuple[float, str]]:
    """(mean of ours over that of the peer, the peer's name), for the largest budget that spends no more gradients.

    The means are over the samples that both broke; inf where the peer broke more of them. In l1 and l0 ours counts as its whole
    budget, to the percent, as part of that goes to forward passes, three for a gradient.
    """
    ours = [(budget, rows[name]) for budget in BUDGETS if (name := f"minimum_norm {budget}") in rows]
    for row in rows.values():
        whole = row["norm"] not in ("linf", "l2")
        affordable = [own for budget, own in ours if (SAME * budget if whole else own["gradients"]) <= row["gradients"]]
        if row["peer"] and affordable and row["success"]:
            own = affordable[-1]
            both = (own["distances"] < math.inf) & (row["distances"] < math.inf)
            smaller = own["success"] < row["success"]
            peers = row["distances"][both].mean() if both.any() else math.nan
            yield (math.inf if smaller else float(own["distances"][both].mean() / peers)), row["attack"]
