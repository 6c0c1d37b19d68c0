"""Seed 004, figure 3 and the interpolation of §5.3: adversarial training beside spectral norms, at equal clean accuracy.

``python -m bench.reproduce.spectral_regularisation`` trains a network by each method (hours on a GPU), attacks
them, and writes Markdown, JSON and a figure to bench/results/reproduce. Trained networks are kept in bench/.cache.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.reproduce import spectral_report
from bench.reproduce._common import Run, broken, command, trained, wrong
from bench.reproduce.spectral_report import Found, Measured, Trial
from bench.reproduce.spectral_sizes import SIZES, Size
from pyrobust.data import load
from pyrobust.training import (
    AdversarialTraining,
    Batch,
    CrossEntropy,
    DivergedError,
    Objective,
    OperatorNorm,
    SpectralNorm,
    interpolation,
)

FOOLED = 0.95  # the share of test images that the standard network gets wrong at ε*: "almost all"
GRID = 0.05  # ε* is a multiple of it
MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of ε*, where curves are measured
TOLERANCE = 0.02  # clean accuracies as near as this are equal
PGA = {"attack": "pgd", "norm": "l2", "steps": 10}  # the paper's attack
CHECK = {"attack": "pgd", "norm": "l2", "steps": 30, "loss": "margin"}  # a longer one, of another loss
SIGMA_IMAGES, SIGMA_STEPS = 200, 30


class Experiment:
    """The networks of one size, trained by any objective, and what is measured of them on the test images."""

    def __init__(self, run: Run, size: Size) -> None:
        self.run, self.size = run, size
        data = load(size.data)
        assert data.train is not None
        inputs, labels = (part[: size.images].to(run.device) for part in data.train)
        self.train = inputs, labels
        self.inputs, self.labels = (part[: size.tests].to(run.device) for part in data.test)
        self.held = len(data.train[1]), len(data.test[1])

    def network(self, label: str, objective: Callable[[nn.Module], Objective]) -> nn.Module:
        model = self.size.build().to(self.run.device)
        return trained(self.run, f"{label} {self.size.data}", model, objective(model), self.train, self.size.recipe)

    def clean(self, model: nn.Module) -> float:
        return 1 - float(wrong(model, self.inputs, self.labels).mean())

    def broken(self, model: nn.Module, eps: float, how: dict[str, Any]) -> np.ndarray:
        return broken(model, self.inputs, self.labels, eps=eps, **how)

    def smallest_fooling(self, model: nn.Module) -> float:
        """The smallest multiple of `GRID` at which `FOOLED` of the images are wrong under attack.

        Raises:
            RuntimeError: there is none: the attack cannot move the network, which is therefore no use for comparisons.
        """
        largest = math.sqrt(self.inputs[0].numel())  # the l2 diameter of [0, 1]ᴰ

        def fooled(count: int) -> bool:
            return bool(self.broken(model, count * GRID, PGA).mean() >= FOOLED)

        low, high = 0, 1
        while not fooled(high):
            low, high = high, 2 * high
            if low * GRID > largest:
                raise RuntimeError(f"no ε fools the standard network on {100 * FOOLED:.0f} % of the test images")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if fooled(middle) else (middle, high)
        return high * GRID

    def measure(self, name: str, weight: float | None, model: nn.Module, star: float) -> Measured:
        rows = [wrong(model, self.inputs, self.labels)]
        rows += [self.broken(model, multiple * star, PGA) for multiple in MULTIPLES]
        # What is broken at one budget is broken at every larger one.
        right = ~np.logical_or.accumulate(np.stack(rows))
        at_star = right[1 + MULTIPLES.index(1.0)]
        return Measured(name, weight, right, at_star & ~self.broken(model, star, CHECK), self.sigma(model))

    def sigma(self, model: nn.Module) -> float:
        """The mean over test images of the largest singular value of the logits' Jacobian."""
        inputs: Tensor = self.inputs[:SIGMA_IMAGES].clone().requires_grad_()
        batch = Batch(inputs, self.labels[:SIGMA_IMAGES], torch.arange(len(inputs), device=inputs.device))
        return float(OperatorNorm(steps=SIGMA_STEPS, power=1)(model, batch).detach())

    def match(
        self, label: str, first: float, target: float, objective: Callable[[float], Callable[[nn.Module], Objective]]
    ) -> tuple[list[Trial], Trial, nn.Module]:
        """All constants tried, and the one (with its network) whose clean accuracy is nearest to the target.

        The accuracy falls as the constant grows: threefold steps until the target lies between two, then geometric means.
        """
        low, high, weight = 0.0, math.inf, first
        trials: list[Trial] = []
        nearest: tuple[float, Trial, nn.Module] | None = None
        while len(trials) < self.size.trials:
            try:
                model = self.network(f"{label} {weight:.3g}", objective(weight))
            except DivergedError:
                trials.append(Trial(weight, None))
                high = weight
            else:
                clean = self.clean(model)
                trials.append(Trial(weight, clean))
                if nearest is None or abs(clean - target) < nearest[0]:
                    nearest = abs(clean - target), trials[-1], model
                if abs(clean - target) <= TOLERANCE:
                    break
                low, high = (weight, high) if clean > target else (low, weight)
            weight = 3 * low if high == math.inf else high / 3 if low == 0 else math.sqrt(low * high)
        if nearest is None:
            raise RuntimeError(f"{label}: every training diverged, the last with a constant of {trials[-1].weight:g}")
        return trials, nearest[1], nearest[2]


class Networks:
    """Those of figure 3, trained or taken from where they are kept, and the mixes between the second and the last.

    Attributes:
        star: ε*.
        trials, weights: of the regularised ones by name: the constants tried, and the one taken.
        methods, mixes: by name.
    """

    def __init__(self, experiment: Experiment) -> None:
        size = experiment.size
        standard = experiment.network("standard", lambda model: Objective(ce=CrossEntropy()))
        self.star = experiment.smallest_fooling(standard)
        adversarial = AdversarialTraining(self.star, "l2", size.steps)
        # By differences of length ε*: the sum-of-squares form, which the paper found slightly more stable.
        spectral = OperatorNorm("l2", "l2", size.steps, eps=self.star)

        def mixed(mix: float, weight: float) -> Callable[[nn.Module], Objective]:
            return lambda model: interpolation(mix, (1.0, adversarial), (weight, spectral))

        def by_weights(weight: float) -> Callable[[nn.Module], Objective]:
            return lambda model: Objective(ce=CrossEntropy(), spectral_norm=(weight, SpectralNorm(model)))

        robust = experiment.network("adversarial", mixed(0.0, 0.0))
        target = experiment.clean(robust)
        self.trials: dict[str, list[Trial]] = {}
        self.weights: dict[str, float] = {}
        self.methods = {"standard": standard, "adversarial": robust}
        objectives = {"global SNR": by_weights, "d.d. SNR": lambda weight: mixed(1.0, weight)}
        for (name, objective), first in zip(objectives.items(), size.first, strict=True):
            self.trials[name], best, self.methods[name] = experiment.match(name, first, target, objective)
            self.weights[name] = best.weight
        weight = self.weights["d.d. SNR"]
        between = {f"mix {mix:g}": experiment.network(f"mix {mix:g}", mixed(mix, weight)) for mix in size.mixes}
        self.mixes = {"mix 0": robust, **between, "mix 1": self.methods["d.d. SNR"]}


def reproduce(run: Run) -> tuple[str, dict[str, Any]]:
    """Train, match and measure; the Markdown, and the numbers for the JSON."""
    experiment = Experiment(run, SIZES[run.size])
    networks = Networks(experiment)
    star, weights = networks.star, {"standard": None, "adversarial": 1.0, **networks.weights}
    methods = [experiment.measure(name, weights[name], model, star) for name, model in networks.methods.items()]
    between = [experiment.measure(name, None, model, star) for name, model in list(networks.mixes.items())[1:-1]]
    ends = replace(methods[1], name="mix 0"), replace(methods[3], name="mix 1")
    found = Found(star, MULTIPLES, methods, [ends[0], *between, ends[1]], networks.trials)
    figure = run.path("figure-3.png")
    spectral_report.draw(figure, found)
    return spectral_report.markdown(_setting(experiment, star), figure.name, found), found.plain()


def _setting(experiment: Experiment, star: float) -> str:
    """What was trained and attacked, in words."""
    size, recipe = experiment.size, experiment.size.recipe
    moved = ", images mirrored and moved by up to 4 pixels at random" if recipe.augment else ""
    file, used = experiment.held, (len(experiment.train[1]), len(experiment.labels))
    return f"""\
- Network: {size.network}. The paper says no more of its own than "7-layer CNN" with batch norm.
- Data: {size.data}. Of the {file[0]} training and {file[1]} test images in the file the first {used[0]} are trained on and the
  first {used[1]} attacked; the paper has CIFAR-10's 50000, and attacks 2000 of its 10000.
- Training: {recipe.epochs} epochs, batches of {recipe.batch_size}, SGD with momentum {recipe.momentum:g}, rate
  {recipe.lr:g} falling to 0 along half a cosine, weight decay {recipe.weight_decay:g}{moved}. The paper's numbers are not at
  hand.
- ε* = {star:.2f} is the l2 budget of training, for inputs in [0, 1]: the smallest multiple of {GRID:g} at which the
  standard network is wrong on {FOOLED:.0%} of the test images ("almost all" in the paper).
- Adversarial training: the cross-entropy of the images plus that of points found by {size.steps} steps of projected gradient
  ascent (eq. 14 with λ = 1). Global spectral norm regularisation (SNR): λ/2 Σ σ(Wˡ)², one power iteration a training step
  (eq. 5). Data-dependent (d.d.) SNR: λ/2 σ(J(x))², J the Jacobian of the logits, in the form ‖f(x + ε*v) − f(x)‖₂ / ε* for
  σ(J(x)), with {size.steps} power iterations (eq. 7). Both λ are those, of the ones tried, whose clean test accuracy is nearest
  to that of adversarial training.
- Attack: {PGA["steps"]} steps of projected gradient ascent of the cross-entropy, as in the paper; "both attacks" adds
  {CHECK["steps"]} steps on the margin. Every point is predicted again, and its norm and its range are checked. Accuracies are
  in %, ± one standard error over the test images.
"""


def main(arguments: list[str] | None = None) -> int:
    assert __doc__
    return command("spectral-regularisation", __doc__.partition("\n")[0], reproduce, arguments)


if __name__ == "__main__":
    sys.exit(main())
