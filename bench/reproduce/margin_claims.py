"""The orderings that seed 003, chapter 3, states, checked on our numbers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from bench.reproduce._common import Claim
from bench.reproduce._runs import Runs, below, mean

ROBUST = {"MLP": ("VAT", "our l1", "our l2"), "LeNet-5": ("our l1", "our l2")}


def of_mnist(rows: Mapping[str, Mapping[str, Runs]]) -> list[Claim]:
    """Of table 3.1 and its text."""
    stated = []
    for network, found in rows.items():
        robust, told = ROBUST[network], f"{network}: {', '.join(ROBUST[network])}"
        others = [name for name in found if name not in robust]
        trained_otherwise = [name for name in found if name != "AT"]
        stated += [
            below(f"{told} have a lower test error than the baseline", "error", found, robust, ["baseline"], 2),
            below(f"{network}: AT has the lowest error under FGSM", "fgsm", found, ["AT"], trained_otherwise, 1),
            below(
                f"{network}: our l1 has a lower error under FGSM than our l2", "fgsm", found, ["our l1"], ["our l2"], 1
            ),
            below(
                f"{network}: our l1 has a lower error under PGD than our l2", "pgd", found, ["our l1"], ["our l2"], 1
            ),
            below(f"{told} have the largest ρ", "rho", found, others, robust),
            below(
                f"{told} have the largest ρ by the nearest of DeepFool and DDN too", "nearest", found, others, robust
            ),
        ]
    baselines = {network: found["baseline"] for network, found in rows.items()}
    stated.append(below("LeNet-5 without defence has a larger ρ than the MLP", "rho", baselines, ["MLP"], ["LeNet-5"]))
    return stated


def of_sweeps(by_weight: Mapping[str, Mapping[float, Runs]], at: Mapping[str, Runs]) -> list[Claim]:
    """Of figures 3.4 and 3.5, whose numbers cannot be read: what the text says of them.

    Args:
        at: by network its runs with adversarial training, which another C than the thesis's may excel.
    """
    rho = {weight: mean(runs, "rho") for weight, runs in sorted(by_weight["LeNet-5"].items())}
    over = {weight: mean(runs, "rho") / mean(runs, "nearest") for weight, runs in sorted(by_weight["MLP"].items())}
    best = {name: max(sweep, key=lambda weight: mean(sweep[weight], "nearest")) for name, sweep in by_weight.items()}
    excelled = [
        below(
            f"{name}: the margin with the best C of the figure, {best[name]:g}, has a larger ρ than AT by the nearest",
            "nearest",
            {"AT": at[name], "margin": sweep[best[name]]},
            ["AT"],
            ["margin"],
        )
        for name, sweep in by_weight.items()
    ]
    rises = all(before < after for before, after in pairwise(rho.values()))
    worst = max(over, key=over.__getitem__)
    return [
        Claim("LeNet-5: ρ rises steadily with C", rises, _by_weight(rho)),
        Claim(
            "MLP: DeepFool overestimates most for some C in [1e-4, 1e-3]",
            1e-4 <= worst <= 1e-3 and over[worst] > 1.01,
            f"ρ by DeepFool over ρ by the nearest, {_by_weight(over)}",
        ),
        *excelled,
    ]


def _by_weight(values: Mapping[float, float]) -> str:
    return ", ".join(f"C = {weight:g}: {value:.3f}" for weight, value in values.items())


def of_cifar(rows: Mapping[str, Runs]) -> list[Claim]:
    """Of table 3.2, where it was measured."""
    stated = []
    for plain, with_margin in (
        ("NIN w/o data augm.", ("NIN l2, C = 0.01", "NIN l2, C = 0.001")),
        ("NIN with data augm.", ("NIN l2, C = 0.005",)),
    ):
        if plain in rows:
            stated += [
                below(f"{plain}: the margin lowers the error under FGSM", "fgsm", rows, with_margin, [plain], 1),
                below(f"{plain}: the margin raises ρ", "rho", rows, [plain], with_margin),
            ]
    return stated
