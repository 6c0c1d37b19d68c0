"""What seed 003, §5.4, says of its attacks, checked against the cells measured here."""

from __future__ import annotations

import numpy as np

from bench.reproduce._common import Claim
from bench.reproduce.pdpgd_rows import Cells

OWN = ("pdgd", "pdpgd")


def nearest_of_all(cells: dict[str, dict[str, Cells]], correct: dict[str, np.ndarray]) -> list[Claim]:
    """For each norm and network, and for both sets of parameters: ours finds smaller perturbations than every other attack.

    Args:
        cells: by norm and network.
        correct: by network, (N,) bool.
    """
    found = []
    for norm, networks in cells.items():
        for network, measured in networks.items():
            means = {
                (column.label, column.variant if column.attack in OWN else ""): _mean(
                    result["distances"], correct[network]
                )
                for column, result in measured
                if "distances" in result
            }
            others = {label: mean for (label, variant), mean in means.items() if not variant}
            for preset in ("thesis", "default"):
                own = {label: mean for (label, variant), mean in means.items() if variant == preset}
                if not own or not others:
                    continue
                label, mean = min(own.items(), key=lambda entry: entry[1])
                rival, least = min(others.items(), key=lambda entry: entry[1])
                found.append(
                    Claim(
                        f"{norm}, {network}: {label} ({preset}) finds the smallest perturbations",
                        mean <= least,
                        f"mean {mean:.4g}, {rival} {least:.4g}",
                        _where_others_win(measured, preset, correct[network]),
                    )
                )
    return found


def _mean(distances: list[float], correct: np.ndarray) -> float:
    """Over the images that were right; inf where the attack failed on one."""
    return float(np.array(distances)[correct].mean()) if correct.any() else float("nan")


def _where_others_win(measured: Cells, preset: str, correct: np.ndarray) -> str:
    """On how many images another attack comes nearer, and by how much there."""

    def least(own: bool) -> np.ndarray:
        rows = [
            np.array(result["distances"])[correct]
            for column, result in measured
            if "distances" in result and (column.attack in OWN) == own and (not own or column.variant == preset)
        ]
        return np.minimum.reduce(rows)

    ours, theirs = least(True), least(False)
    behind = theirs < ours
    if not behind.any():
        return "no other attack comes nearer on any image than the best of ours; the means differ by failures alone"
    lost = float(np.median(ours[behind] / theirs[behind]))
    return (
        f"the best of the others comes nearer on {behind.sum()} of {len(ours)} images, there by a factor of {lost:.4g} (median); "
        f"on {(ours < theirs).sum()} ours does"
    )
