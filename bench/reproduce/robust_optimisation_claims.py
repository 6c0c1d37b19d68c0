"""What seed 002 claims of its networks, checked against what was measured."""

from __future__ import annotations

from itertools import pairwise

from bench.reproduce._common import Claim
from bench.reproduce._samples import difference, gap, percent
from bench.reproduce.robust_optimisation_experiments import NAMES
from bench.reproduce.robust_optimisation_measures import Measured


def judge(measured: Measured) -> list[Claim]:
    """The claims that §5.1 and §5.2 have in common; where one does not hold, the numbers that tell why stand behind it."""
    experiment = measured.experiment
    robustified = list(experiment.radii)
    order = ("baseline", *robustified)
    there = {name: percent(mask) for name, mask in measured.on_collection.items()}
    means = [float(measured.on_collection[name].mean()) for name in order]
    (control,) = (share for name, share in there.items() if name not in NAMES)
    stated = [
        Claim(
            f"table {experiment.table}: on the baseline's adversarial examples, {' < '.join(NAMES[n] for n in order)}",
            all(a < b for a, b in pairwise(means)),
            f"{', '.join(there[name] for name in order)}; a baseline from another seed: {control}",
        )
    ]
    for name in robustified:
        mean, error = gap(measured.clean[name], measured.clean["baseline"])
        text = f"table {experiment.table}: {NAMES[name]} improves on the test images"
        numbers = difference(measured.clean[name], measured.clean["baseline"])
        why = "" if mean > 0 else _no_gain(mean, error, measured.fitted["baseline"], measured.fitted[name])
        stated.append(Claim(text, mean > 0, numbers, why))
    for name in robustified:
        gaps = {
            eps: gap(ours, plain)[0]
            for eps, ours, plain in zip(experiment.sweep, measured.fast[name], measured.fast["baseline"], strict=True)
        }
        least, most = min(gaps, key=gaps.__getitem__), max(gaps, key=gaps.__getitem__)
        numbers = f"from {gaps[least]:+.2f} points at eps {least:g} to {gaps[most]:+.2f} at eps {most:g}"
        holds = min(gaps.values()) > 0
        why = "" if holds else f"under PGD at {experiment.checked:g} it has {_under_pgd(measured, name)}"
        stated.append(
            Claim(
                f"figure {experiment.curves}: {NAMES[name]} is more accurate than the baseline under the fast method, at "
                "every eps",
                holds,
                numbers,
                why,
            )
        )
    return stated


def judge_cifar10(measured: Measured) -> list[Claim]:
    """The claims of §5.2 alone: convergence, and linf against l2."""
    reached = {
        name: next(i for i, accuracy in enumerate(values, 1) if accuracy >= 0.98 * max(values))
        for name, values in measured.epochs.items()
        if name in NAMES
    }
    slowest = max(reached[name] for name in measured.experiment.radii)
    fast = {name: sum(float(mask.mean()) for mask in masks) / len(masks) for name, masks in measured.fast.items()}
    gain, error = gap(measured.clean["linf"], measured.clean["l2"])
    return [
        Claim(
            "figure 5: robustified networks need about as many epochs as the baseline (at most half as many more)",
            slowest <= 1.5 * reached["baseline"],
            "98 % of the best test accuracy is reached in epoch: "
            + ", ".join(f"{NAMES[name]} {epoch}" for name, epoch in reached.items()),
        ),
        Claim(
            "figure 6: robust linf stands the fast method better than robust l2",
            fast["linf"] > fast["l2"],
            f"mean over the eps: {percent(fast['linf'])} against {percent(fast['l2'])}; {_radii(measured)}",
        ),
        Claim(
            "table 2: robust linf gains less than robust l2 on the test images",
            gain < 0,
            f"linf less l2: {gain:+.2f} ± {error:.2f} points",
        ),
    ]


def _no_gain(mean: float, error: float, plain: float, robust: float) -> str:
    """Why a robustified network does not improve on the test images: chance, or it has not fitted the training images either."""
    noise = "within" if abs(mean) <= 2 * error else "beyond"
    fitted = f"of the training images it gets {percent(robust)} right, the baseline {percent(plain)}"
    behind = (
        "it is behind on those too, as a network that needs more steps"
        if robust < plain
        else "it has fitted those as well"
    )
    return f"the difference is {noise} two standard errors, and {fitted}: {behind}"


def _under_pgd(measured: Measured, name: str) -> str:
    return f"{percent(measured.pgd[name])} against {percent(measured.pgd['baseline'])} of the baseline"


def _radii(measured: Measured) -> str:
    values, radii = measured.data.test[0][0].numel(), measured.experiment.radii
    return f"the linf set reaches to {radii['linf'] * values**0.5:.2g} in l2, the l2 set to {radii['l2']:g}"
