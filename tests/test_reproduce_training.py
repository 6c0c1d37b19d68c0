"""Seed 002's tables and seed 000's figures at a tiny size: every table, figure, claim and number is there."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.reproduce import robust_optimisation_tables, weight_decay_attacks, weight_decay_figures
from bench.reproduce._samples import gap
from bench.reproduce.robust_optimisation_collection import collect
from bench.reproduce.robust_optimisation_experiments import EXPERIMENTS
from pyrobust.data import digits
from pyrobust.models import fit, small_cnn

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


def read(folder: Path, name: str) -> tuple[str, dict[str, Any]]:
    start = folder / f"{name}-smoke-tables"
    return start.with_suffix(".md").read_text(), json.loads(start.with_suffix(".json").read_text())


def check(folder: Path, name: str, markdown: str, figures: range, stated: list[dict[str, Any]]) -> None:
    for number in figures:
        picture = f"{name}-smoke-figure-{number}.png"
        assert picture in markdown
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    for claim in stated:
        assert f"**{'holds' if claim['holds'] else 'does not hold'}**: {claim['text']}" in markdown
        assert not claim["why"] or claim["holds"] or f"({claim['numbers']}). Why: {claim['why']}.\n" in markdown


def test_robust_optimisation_tables(tmp_path: Path) -> None:
    assert robust_optimisation_tables.main(["--smoke", "--device", "cpu", "--out", str(tmp_path)]) == 0
    name = "robust-optimisation-tables"
    markdown, content = read(tmp_path, name)
    check(tmp_path, name, markdown, range(1, 7), content["claims"])
    assert content["machine"]
    for experiment in EXPERIMENTS:
        found = content[experiment.data]
        assert found["clean"]["baseline"] > 0.5
        assert found["on_collection"]["baseline"] == 0
        assert found["collection"]["sizes"].keys() == set(experiment.radii)
        for net, (clean, there) in experiment.paper.items():
            cells = (
                f"{clean:.2f} % · {100 * found['clean'][net]:.2f} %",
                f"{there:.2f} % · {100 * found['on_collection'][net]:.2f} %",
            )
            assert all(cell in markdown for cell in cells)
            assert len(found["fast"][net]) == len(experiment.sweep)
            assert len(found["epochs"][net]) == experiment.sizes["smoke"].recipe.epochs
            assert all(0 <= share <= 1 for share in found["fast"][net])  # of the first images, not of all
            assert found["fast"][net][-1] < found["fast"][net][0] or experiment.data == "cifar10"


def test_weight_decay_figures(tmp_path: Path) -> None:
    assert weight_decay_figures.main(["--smoke", "--device", "cpu", "--out", str(tmp_path)]) == 0
    name = "weight-decay-figures"
    markdown, content = read(tmp_path, name)
    check(tmp_path, name, markdown, range(10, 13), content["claims"])
    for net in ("CNN-L2", "CNN", "CNN-Nat-L2", "CNN-Nat"):
        found = content[net]
        assert found["clean"] > 0.5
        assert len(found["pgd"]) == len(found["fgsm"]) == len(content["eps"])
        assert found["pgd"][-1] < found["pgd"][0]
        assert found["swapped"][-1] < found["clean"]
        for row in found["saliency"]:
            assert 0 <= row["changed_in_successes"] <= row["changed"] <= row["gamma"]
    assert content["CNN-L2"]["paper_table_2"]["N 10, gamma 5 %"] == [88.0, 2.1, 1.52]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    model = small_cnn()
    train = digits().train
    assert train is not None
    fit(model, *train, epochs=3, batch_size=32, seed=0)
    return model.eval().requires_grad_(False)


def test_collection_holds_what_it_says(network: torch.nn.Module) -> None:
    found = collect(network, digits().test, ("l1", "l2", "linf"), 60)
    delta = (found.adversarial - found.inputs).flatten(1)
    assert (network(found.inputs).argmax(1) == found.labels).all()
    assert (network(found.adversarial).argmax(1) != found.labels).all()
    assert found.adversarial.min() >= 0
    assert found.adversarial.max() <= 1
    for norm, p in (("l1", 1), ("l2", 2), ("linf", torch.inf)):
        lengths = torch.linalg.vector_norm(delta[found.of(norm)], p, dim=1)
        assert len(lengths) > 0
        assert lengths.max() <= found.radii[norm] * (1 + 1e-5)
    assert 58 <= len(found.labels) <= 70  # radii are found to a part in 1024


def test_saliency_counts_failures_as_all_that_is_allowed(network: torch.nn.Module) -> None:
    rows = weight_decay_attacks.saliencies(network, digits().test, 4, 0.05)
    assert [row.gamma for row in rows] == list(weight_decay_attacks.GAMMAS)
    for row in rows:
        allowed = 2 * (int(row.gamma * 64) // 2) / 64
        assert row.changed == pytest.approx(row.changed_in_successes + (1 - row.success) * allowed)
    assert all(a.success <= b.success for a, b in pairwise(rows))


def test_swapped_images_keep_their_values(network: torch.nn.Module) -> None:
    inputs, labels = (part[:3] for part in digits().test)
    swapped = weight_decay_attacks.swapped_images(network, inputs, labels, (0.1, 0.5, 1.0))
    assert torch.equal(swapped.flatten(1).sort(1).values, inputs.flatten(1).sort(1).values)
    changed = (swapped != inputs).flatten(1).sum(1)
    assert changed[0] < changed[1] < changed[2]


def test_gap() -> None:
    mean, error = gap(np.array([True, True, False, True]), np.array([True, False, False, True]))
    assert mean == 25
    assert error == pytest.approx(25)
