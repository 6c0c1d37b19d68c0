"""The networks of an experiment of seed 002, trained, and what is measured of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.reproduce._common import Curve, Run, broken, trained, wrong
from bench.reproduce._samples import Mask
from bench.reproduce.robust_optimisation_collection import Collection
from bench.reproduce.robust_optimisation_experiments import CHECKED, CONTROL, Experiment, Size
from pyrobust.attacks import fgm
from pyrobust.data import Data
from pyrobust.evaluation.checks import perturbation_norms
from pyrobust.models import MODELS, MeanStd
from pyrobust.training import CrossEntropy, Objective, RobustOptimisation


def networks(
    run: Run, experiment: Experiment, size: Size, data: Data
) -> tuple[dict[str, nn.Module], dict[str, list[float]]]:
    """The baseline, a robustified network a norm, and the baseline from other initial weights and in another order; and
    their accuracy on the test images after every epoch."""
    assert data.train is not None
    objectives = {"baseline": Objective(ce=CrossEntropy()), CONTROL: Objective(ce=CrossEntropy())}
    for norm, radius in experiment.radii.items():
        objectives[norm] = Objective(ro=RobustOptimisation(radius, norm))  # type: ignore[arg-type]
    found, epochs = {}, {}
    for name in ("baseline", *experiment.radii, CONTROL):
        seed = int(name == CONTROL)
        model = nn.Sequential(MeanStd.fit(data.train[0]), MODELS[size.network](seed=seed))
        curve = Curve(lambda model: 1 - float(wrong(model, *data.test).mean()))
        recipe = replace(size.recipe, seed=seed)
        found[name] = trained(run, f"{experiment.data} {name}", model, objectives[name], data.train, recipe, curve)
        epochs[name] = curve.values
    return found, epochs


class Measured:
    """What is measured of the networks of an experiment.

    Attributes:
        epochs: accuracy on the test images after every epoch, by network.
        attacked: the first test images.
        clean: which test images each network gets right, a mask (N,).
        on_collection: which adversarial examples of the baseline each gets right.
        fast: by network, a mask over those attacked an eps of the sweep: right, and so under the fast method against itself.
        pgd: the same for the first `CHECKED` at ``experiment.checked`` under PGD with 20 steps from a random start.
        fitted: share of the training images that each gets right.
        kept: what the bounds leave of a step against the baseline, by norm: its mean length over the radius.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Data,
        attacked: tuple[Tensor, Tensor],
        networks: dict[str, nn.Module],
        epochs: dict[str, list[float]],
        collection: Collection,
    ) -> None:
        assert data.train is not None
        self.experiment, self.data, self.networks, self.epochs = experiment, data, networks, epochs
        self.collection = collection
        self.attacked = attacked
        self.clean: dict[str, Mask] = {}
        self.on_collection: dict[str, Mask] = {}
        self.fast: dict[str, list[Mask]] = {}
        self.pgd: dict[str, Mask] = {}
        self.fitted: dict[str, float] = {}
        self.kept: dict[str, float] = {}
        x, y = (part[:CHECKED] for part in attacked)
        moves = torch.from_numpy(~wrong(networks["baseline"], x, y))  # the attack leaves the others where they are
        for norm, radius in experiment.radii.items():
            adv = fgm(networks["baseline"], x, y, eps=radius, norm=norm)  # type: ignore[arg-type]
            self.kept[norm] = float(perturbation_norms(x, adv)[norm][moves].mean()) / radius
        for name, model in networks.items():
            self.clean[name] = ~wrong(model, *data.test)
            self.on_collection[name] = ~wrong(model, collection.adversarial, collection.labels)
            self.fitted[name] = 1 - float(wrong(model, *data.train).mean())
            if name != CONTROL:
                self.fast[name] = [
                    ~broken(model, *self.attacked, "fgm", norm="linf", eps=eps) for eps in experiment.sweep
                ]
                eps, first = experiment.checked, [part[:CHECKED] for part in self.attacked]
                self.pgd[name] = ~broken(model, *first, "pgd", norm="linf", eps=eps, steps=20)
                print(f"  {experiment.data} {name}: measured", flush=True)

    def to_json(self) -> dict[str, Any]:
        def shares(masks: Mapping[str, Mask]) -> dict[str, float]:
            return {name: float(mask.mean()) for name, mask in masks.items()}

        return {
            "radii": dict(self.experiment.radii),
            "collection": self.collection.to_json(),
            "paper_percent": {name: list(cells) for name, cells in self.experiment.paper.items()},
            "clean": shares(self.clean),
            "clean_attacked": shares({name: mask[: len(self.attacked[1])] for name, mask in self.clean.items()}),
            "on_collection": shares(self.on_collection),
            "sweep": self.experiment.sweep,
            "fast": {name: [float(mask.mean()) for mask in masks] for name, masks in self.fast.items()},
            "pgd": {"eps": self.experiment.checked, **shares(self.pgd)},
            "fitted": self.fitted,
            "kept": self.kept,
            "epochs": self.epochs,
        }
