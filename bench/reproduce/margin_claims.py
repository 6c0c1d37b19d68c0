"""The orderings that seed 003, chapter 3, states, checked on our numbers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise

from bench.reproduce._common import Claim
from bench.reproduce._runs import Runs, below, mean

ROBUST = {"MLP": ("VAT", "our l1", "our l2"), "LeNet-5": ("our l1", "our l2")}


def of_mnist(rows: Mapping[str, Mapping[str, Runs]], by_weight: Mapping[str, Mapping[float, Runs]]) -> list[Claim]:
    """Of table 3.1 and its text, with what the sweeps over C tell of the reasons."""
    stated = []
    for network, found in rows.items():
        robust, told = ROBUST[network], f"{network}: {', '.join(ROBUST[network])}"
        others = [name for name in found if name not in robust]
        trained_otherwise = [name for name in found if name != "AT"]
        pgd = " against ".join(f"{mean(found[name], 'pgd'):.1f}" for name in ("our l1", "our l2"))
        largest = partial(below, rows=found, lower=others, higher=robust, why=_short_of_at(found, by_weight[network]))
        stated += [
            below(f"{told} have a lower test error than the baseline", "error", found, robust, ["baseline"], 2),
            below(f"{network}: AT has the lowest error under FGSM", "fgsm", found, ["AT"], trained_otherwise, 1),
            below(
                f"{network}: our l1 has a lower error under FGSM than our l2", "fgsm", found, ["our l1"], ["our l2"], 1,
                f"one step is a weak attack; PGD with the same eps leaves {pgd}",
            ),
            below(
                f"{network}: our l1 has a lower error under PGD than our l2", "pgd", found, ["our l1"], ["our l2"], 1
            ),
            largest(f"{told} have the largest ρ", "rho"),
            largest(f"{told} have the largest ρ by the nearest of DeepFool and DDN too", "nearest"),
        ]  # fmt: skip
    baselines = {network: found["baseline"] for network, found in rows.items()}
    stated.append(below("LeNet-5 without defence has a larger ρ than the MLP", "rho", baselines, ["MLP"], ["LeNet-5"]))
    return stated


def _short_of_at(found: Mapping[str, Runs], sweep: Mapping[float, Runs]) -> str:
    """Why the margin falls short of adversarial training: what another C reaches, and how far DeepFool flatters AT."""
    best = _best(sweep)
    over = mean(found["AT"], "rho") / mean(found["AT"], "nearest")
    return (
        f"the thesis chose C = 0.1 for its long training; here C = {best:g} of the figure reaches "
        f"{mean(sweep[best], 'nearest'):.3f} by the nearest, AT {mean(found['AT'], 'nearest'):.3f}, whose ρ DeepFool "
        f"overestimates by {100 * (over - 1):.0f} %"
    )


def _best(sweep: Mapping[float, Runs]) -> float:
    """The C of the largest ρ by the nearest."""
    return max(sweep, key=lambda weight: mean(sweep[weight], "nearest"))


def of_sweeps(by_weight: Mapping[str, Mapping[float, Runs]], rows: Mapping[str, Mapping[str, Runs]]) -> list[Claim]:
    """Of figures 3.4 and 3.5, whose numbers cannot be read: what the text says of them.

    Args:
        rows: of table 3.1: adversarial training may be excelled by another C than the thesis's.
    """
    rho = {weight: mean(runs, "rho") for weight, runs in sorted(by_weight["LeNet-5"].items())}
    over = {weight: mean(runs, "rho") / mean(runs, "nearest") for weight, runs in sorted(by_weight["MLP"].items())}
    excelled = [
        below(
            f"{name}: the margin with the best C of the figure, {_best(sweep):g}, has a larger ρ than AT by the nearest",
            "nearest",
            {"AT": rows[name]["AT"], "margin": sweep[_best(sweep)]},
            ["AT"],
            ["margin"],
        )
        for name, sweep in by_weight.items()
    ]
    rises = all(before < after for before, after in pairwise(rho.values()))
    worst = max(over, key=over.__getitem__)
    inside = ", ".join(f"{weight:g}" for weight in over if 1e-4 <= weight <= 1e-3)
    return [
        Claim("LeNet-5: ρ rises steadily with C", rises, _by_weight(rho)),
        Claim(
            "MLP: DeepFool overestimates most for some C in [1e-4, 1e-3]",
            1e-4 <= worst <= 1e-3 and over[worst] > 1.01,
            f"ρ by DeepFool over ρ by the nearest, {_by_weight(over)}",
            f"of that range this size tries C = {inside}, and DeepFool, whose steps are clipped, overestimates by at most "
            f"{100 * (over[worst] - 1):.0f} % for any C",
        ),
        *excelled,
    ]


def _by_weight(values: Mapping[float, float]) -> str:
    return ", ".join(f"C = {weight:g}: {value:.3f}" for weight, value in values.items())


def of_cifar(rows: Mapping[str, Runs], test: int, attacked: int) -> list[Claim]:
    """Of table 3.2, and the same of the weight that is not in the thesis.

    Args:
        test, attacked: images on which the errors and ρ were measured.
    """
    stated = []
    for plain, with_margin in (
        ("NIN w/o data augm.", {"NIN l2, C = 0.01": 0.01, "NIN l2, C = 0.001": 0.001}),
        ("NIN with data augm.", {"NIN l2, C = 0.005": 0.005}),
        ("NIN w/o data augm.", {"NIN l2, C = 0.3": 0.3}),
    ):
        shares = {
            name: weight * mean(rows[name], "sensitivity") / mean(rows[name], "cross-entropy")
            for name, weight in with_margin.items()
        }
        parts = ", ".join(f"{100 * share:.2g} % of the cross-entropy in {name}" for name, share in shares.items())
        short = (
            f"the training is too short for such a C to matter: on training images C times the sensitivity is {parts}; "
            "the thesis trains 200 epochs on 45,000 images"
        )
        share = mean(rows[plain], "fgsm") / 100
        error = 100 * (2 * share * (1 - share) / (test * len(rows[plain]))) ** 0.5
        right = round(attacked * (1 - mean(rows[plain], "error") / 100))
        names, beside = list(with_margin), f"C = {' or '.join(f'{weight:g}' for weight in with_margin.values())}"
        stated += [
            below(
                f"{plain}: the margin with {beside} lowers the error under FGSM", "fgsm", rows, names, [plain], 1,
                f"{short}; {test} images leave a standard error of {error:.1f} points",
            ),
            below(
                f"{plain}: the margin with {beside} raises ρ", "rho", rows, [plain], names, 4,
                f"{short}; ρ is a mean over some {right} images",
            ),
        ]  # fmt: skip
    return stated
