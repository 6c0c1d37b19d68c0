"""Figure 3 of seed 004 and the interpolation of §5.3 as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from bench.reproduce._common import Claim, claims, table
from bench.reproduce._figures import DPI
from pyrobust.evaluation.plots import COLOURS, panels, png, styled

Bools = NDArray[np.bool_]
GLOBAL = 3  # the place among the orderings of that which is about global SNR
SAYS = {
    "standard": "wrong on almost all at ε*",
    "adversarial": "robust",
    "global SNR": "not substantially more robust than standard",
    "d.d. SNR": "as robust as adversarial",
}


@dataclass(frozen=True)
class Trial:
    """A constant that was tried, and the clean accuracy that came of it; None: the training diverged."""

    weight: float
    clean: float | None


@dataclass(frozen=True)
class Measured:
    """One network.

    Attributes:
        weight: λ of its regulariser or of its adversarial loss.
        right: (1 + E, N), at ε = 0 and at each ε: the image is correct, and stays so under the paper's attack.
        strictly: (N,) the same at ε*, under both attacks.
        sigma: mean of the largest singular value of the logits' Jacobian.
    """

    name: str
    weight: float | None
    right: Bools
    strictly: Bools
    sigma: float


@dataclass(frozen=True)
class Found:
    """All that was measured; ``between`` goes from adversarial training to the regulariser."""

    star: float
    multiples: Sequence[float]
    methods: Sequence[Measured]
    between: Sequence[Measured]
    trials: dict[str, list[Trial]]

    @property
    def eps(self) -> list[float]:
        return [0.0, *(multiple * self.star for multiple in self.multiples)]

    def at_star(self, network: Measured) -> Bools:
        return network.right[1 + self.multiples.index(1.0)]

    def plain(self) -> dict[str, Any]:
        """The numbers for JSON."""

        def numbers(network: Measured) -> dict[str, Any]:
            return {
                "name": network.name,
                "weight": network.weight,
                "accuracy": network.right.mean(1).tolist(),
                "standard_error": _error(network.right).tolist(),
                "accuracy_under_both_attacks": float(network.strictly.mean()),
                "largest_singular_value": network.sigma,
            }

        return {
            "eps": self.eps,
            "eps_star": self.star,
            "methods": [numbers(network) for network in self.methods],
            "interpolation": [numbers(network) for network in self.between],
            "trials": {name: [asdict(trial) for trial in tried] for name, tried in self.trials.items()},
        }


def _error(right: Bools) -> NDArray[np.float64]:
    """Standard error of the mean over the images, along the last axis."""
    return right.std(-1) / np.sqrt(right.shape[-1])


def _difference(one: Bools, other: Bools) -> tuple[float, float]:
    """In points: the mean difference over the same images, and its standard error."""
    apart = 100.0 * (one.astype(float) - other)
    return float(apart.mean()), float(apart.std() / np.sqrt(len(apart)))


def orderings(found: Found, right: Callable[[Measured], Bools]) -> list[Claim]:
    """What §5.3 says of accuracies at ε*, with those of ``right``."""
    standard, adversarial, by_weights, local = (right(network) for network in found.methods)

    def more_robust(name: str, accuracy: Bools) -> Claim:
        apart, error = _difference(accuracy, standard)
        return Claim(f"{name} is more robust than standard", apart > 2 * error, f"{apart:+.1f} ± {error:.1f} points")

    apart, error = _difference(local, adversarial)
    gain, gained = (_difference(accuracy, standard)[0] for accuracy in (by_weights, adversarial))
    mixes = [(network.name, *_difference(right(network), adversarial)) for network in found.between[1:]]
    return [
        more_robust("adversarial training", adversarial),
        more_robust("d.d. SNR", local),
        Claim(
            "d.d. SNR is as robust as adversarial training, within two standard errors",
            abs(apart) <= 2 * error,
            f"{apart:+.1f} ± {error:.1f} points",
        ),
        Claim(
            "global SNR gains less than half of what adversarial training gains over standard",
            gain < gained / 2,
            f"{gain:+.1f} of {gained:+.1f} points",
        ),
        Claim(
            "every mix of adversarial training and d.d. SNR is as robust as adversarial training, within two standard errors",
            all(abs(mean) <= 2 * error for _, mean, error in mixes),
            "; ".join(f"{name}: {mean:+.1f} ± {error:.1f} points" for name, mean, error in mixes),
        ),
    ]


def markdown(setting: str, figure: str, found: Found) -> str:
    """The whole document; ``figure`` is the name of the picture's file."""
    return f"""# Adversarial training and spectral norm regularisation: seed 004, figure 3 and the interpolation of §5.3

The paper gives no numbers for either: figure 3 is curves alone, and its appendix with table 2 (clean accuracies) and figure 7
(interpolation) is not at hand. So it is the paper's statements that stand beside our numbers.

{setting}
## Figure 3, 7-layer CNN

![Accuracy over the size of the perturbation]({figure})

{_methods(found)}
σ(J) is the mean over test images of the largest singular value of the logits' Jacobian. Figure 3's right panel, the
same on WRN-28-10, is left out for its cost.

Constants tried (adversarial training has a clean accuracy of {_percent(found.methods[1].right[0])}):

{_tried(found)}
## Interpolation

(1 − mix) · adversarial training + mix · d.d. SNR.

{_between(found)}
## What the paper states

With the paper's attack, at ε*:

{claims(orderings(found, found.at_star))}
With both attacks:

{claims(orderings(found, lambda network: network.strictly))}{_why(found)}"""


def _why(found: Found) -> str:
    """What the singular values tell, where global SNR makes a network more robust than the paper says."""
    standard, adversarial, by_weights, _ = found.methods
    if orderings(found, found.at_star)[GLOBAL].holds or by_weights.sigma > standard.sigma / 2:
        return ""
    return f"""
A likely reason: in the paper's figure 2 global SNR leaves the singular values of the Jacobian nearly as they are, which it does
not here, at the λ that costs as much clean accuracy as adversarial training. There σ(J) is {by_weights.sigma:.2f}, beside
{standard.sigma:.2f} of the standard network and {adversarial.sigma:.2f} of adversarial training.
"""


def _percent(right: Bools) -> str:
    return f"{100 * right.mean():.1f} ± {100 * _error(right):.1f}"


def _row(found: Found, network: Measured) -> list[str]:
    accuracies = (network.right[0], found.at_star(network), network.strictly)
    return [*map(_percent, accuracies), f"{network.sigma:.2f}"]


def _methods(found: Found) -> str:
    head = ["method", "the paper, at ε*", "λ", "clean", "at ε*", "at ε*, both attacks", "σ(J)"]
    rows = [
        [m.name, SAYS[m.name], "–" if m.weight is None else f"{m.weight:.3g}", *_row(found, m)] for m in found.methods
    ]
    return table(head, rows)


def _between(found: Found) -> str:
    head = ["network", "the paper", "clean", "at ε*", "at ε*, both attacks", "σ(J)"]
    return table(head, [[network.name, "all alike", *_row(found, network)] for network in found.between])


def _tried(found: Found) -> str:
    rows = [
        [name, f"{trial.weight:.3g}", "diverged" if trial.clean is None else f"{100 * trial.clean:.1f}"]
        for name, trials in found.trials.items()
        for trial in sorted(trials, key=lambda trial: trial.weight)
    ]
    return table(["method", "λ", "clean"], rows)


def draw(path: Path, found: Found) -> None:
    """Accuracy over ε, by method and by mix."""
    with styled():
        figure, axes = panels(["by method", "from adversarial training to d.d. SNR"], height=2.9)
        for axis, networks in zip(axes, (found.methods, found.between), strict=True):
            for colour, network in zip(COLOURS, networks, strict=False):
                _curve(axis, found.eps, network, colour)
            axis.axvline(found.star, color="#555555", linewidth=0.9, linestyle="--", label="ε* of training")
            axis.set_xlim(0, found.eps[-1])
            axis.set_ylim(0, None)
            axis.set_xlabel("ε (l2 norm, of inputs in [0, 1])")
            axis.set_ylabel("accuracy under attack (%)")
            axis.legend(loc="upper right")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(figure, DPI))


def _curve(axis: Axes, eps: Sequence[float], network: Measured, colour: str) -> None:
    mean, error = 100 * network.right.mean(1), 100 * _error(network.right)
    axis.plot(eps, mean, color=colour, marker="o", markersize=3, linewidth=1.2, label=network.name)
    axis.fill_between(eps, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
