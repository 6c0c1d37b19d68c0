"""Seed 004, figures 2, 4, 5 and 7 and theorem 1: spectra, alignment, local linearity and activation patterns by training.

``python -m bench.reproduce.local_linearity`` takes the networks of `spectral_regularisation` (trained here where they are not in
bench/.cache), measures them, and writes Markdown, JSON and figures to bench/results/reproduce.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.reproduce import linearity_report
from bench.reproduce._common import Run, command
from bench.reproduce.linearity_claims import Found, Mixed, Network
from bench.reproduce.linearity_theorem import PAIRS, agreement
from bench.reproduce.spectral_regularisation import Experiment, Networks
from bench.reproduce.spectral_sizes import SIZES
from pyrobust.analysis import adversarial_directions, cell_sizes, local_linearity, random_directions, shared_activations
from pyrobust.analysis._noise import noise_images
from pyrobust.analysis.alignment import Alignment, alignment, reinitialised

DISTANCES = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # of ε*
RADII = (0.01, 0.1, 0.5, 1.0)  # of ε*, of balls that reach beyond a cell
RATIOS = (1e2, 1e6)  # α / ε


@dataclass(frozen=True)
class Counts:
    """Images for the spectra, for the linearity, for the activation patterns and for theorem 1."""

    spectra: int
    linearity: int
    activations: int
    theorem: int


COUNTS = {
    "quick": Counts(spectra=20, linearity=30, activations=200, theorem=10),
    "full": Counts(spectra=200, linearity=200, activations=1000, theorem=200),
    "smoke": Counts(spectra=4, linearity=4, activations=8, theorem=3),
}


class Measures:
    """What is measured of each network, on the first test images."""

    def __init__(self, experiment: Experiment, counts: Counts, star: float) -> None:
        self.experiment, self.counts, self.star = experiment, counts, star
        self.x, self.y = experiment.inputs, experiment.labels
        # φ of f = W φ, the features that the last layer takes: the output of the module before it.
        self.layer = str(len(experiment.size.build()) - 2)  # type: ignore[arg-type]
        self.distances = [share * star for share in DISTANCES]

    def ascent(self, model: nn.Module, count: int) -> Tensor:
        return adversarial_directions(model, self.x[:count], self.y[:count], eps=self.star)

    def network(self, model: nn.Module) -> Network:
        few, some, many = self.counts.spectra, self.counts.linearity, self.counts.activations
        x = self.x[:few]
        ascent = self.ascent(model, max(few, some, many))
        aligned = alignment(model, x, x + self.star * ascent[:few], self.layer)
        x = self.x[:some]
        directions = {"random": random_directions(x), "adversarial": ascent[:some]}
        linearity = local_linearity(model, x, directions, self.layer, distances=self.distances)
        x = self.x[:many]
        noise = noise_images(torch.arange(len(x), device=x.device), x.shape[1:], (0.0, 1.0), x.dtype, 0)
        at_data = {"random": random_directions(x), "adversarial": ascent[:many]}
        at_noise = {"random": random_directions(noise)}
        return Network(
            aligned,
            linearity,
            shared_activations(model, x, at_data, distances=self.distances),
            shared_activations(model, noise, at_noise, distances=self.distances),
            cell_sizes(model, x, at_data),
            cell_sizes(model, noise, at_noise),
        )

    def untrained(self, standard: nn.Module) -> Alignment:
        """Perturbations of the standard network, and the singular vectors of one with random weights."""
        count = self.counts.spectra
        x = self.x[:count]
        return alignment(reinitialised(standard), x, x + self.star * self.ascent(standard, count), self.layer)

    def mix(self, name: str, model: nn.Module) -> Mixed:
        found = self.experiment.measure(name, None, model, self.star)
        x = self.x[: self.counts.linearity]
        linearity = local_linearity(
            model, x, {"adversarial": self.ascent(model, len(x))}, self.layer, distances=[0.0, self.star]
        )
        return Mixed(found.right, linearity.deviation["adversarial"][1], linearity.largest_singular["adversarial"][0])


def reproduce(run: Run) -> tuple[str, dict[str, Any]]:
    """Take the networks and measure them; the Markdown, and the numbers for the JSON."""
    size, counts = SIZES[run.size], COUNTS[run.size]
    experiment = Experiment(run, size)
    networks = Networks(experiment)
    star = networks.star
    measures = Measures(experiment, counts, star)
    methods = {}
    for name, model in networks.methods.items():
        methods[name] = measures.network(model)
        print(f"  {name}: measured", flush=True)
    x = experiment.inputs[: counts.theorem]
    standard = networks.methods["standard"]
    theorem = {(p, q, ratio): agreement(standard, x, p, q, ratio=ratio, steps=10) for p, q in PAIRS for ratio in RATIOS}
    beyond = {
        name: [agreement(model, x, 2.0, 2.0, ratio=RATIOS[-1], steps=10, eps=share * star) for share in RADII]
        for name, model in networks.methods.items()
    }
    mixes = {name: measures.mix(name, model) for name, model in networks.mixes.items()}
    found = Found(star, DISTANCES, RADII, methods, measures.untrained(standard), mixes, theorem, beyond)
    figures = linearity_report.draw(run, found)
    features = methods["standard"].aligned.cosines.shape[1]
    setting = f"""\
- Networks, data and training: those of [figure 3](spectral-regularisation-{run.size}-tables.md), with ε* = {star:.2f} in l2,
  inputs in [0, 1]. With `--quick` they are trained for far less long than the paper's: sizes differ, orderings are compared.
- φ is what the last layer takes, {features} features, J its Jacobian; in theorem 1 f is the logits. Adversarial directions are
  those of 10 steps of projected gradient ascent of the cross-entropy within ε*.
- Test images: {counts.spectra} for spectra and alignment (the paper: 200), {counts.linearity} for linearity,
  {counts.activations} for activation patterns, {counts.theorem} for theorem 1.
"""
    return linearity_report.markdown(setting, figures, found), found.plain()


def main(arguments: list[str] | None = None) -> int:
    assert __doc__
    return command("local-linearity", __doc__.partition("\n")[0], reproduce, arguments)


if __name__ == "__main__":
    sys.exit(main())
