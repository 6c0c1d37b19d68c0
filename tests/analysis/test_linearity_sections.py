"""The pages on local linearity and on activation patterns: their sections, on a tiny network."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

pytest.importorskip("matplotlib")

from pyrobust.analysis import nearest_adversarial
from pyrobust.analysis.commands.activations import activations_sections
from pyrobust.analysis.commands.linearity import linearity_sections, reference_distance, smallest_norms
from pyrobust.analysis.page import Section, plain
from pyrobust.analysis.session import Session
from pyrobust.analysis.work import Work
from pyrobust.data import Data


def _session(work: Work | None = None, activation: nn.Module | None = None) -> Session:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), activation or nn.ReLU(), nn.Linear(12, 3)).eval()
    x = torch.rand(20, 1, 4, 4, generator=generator)
    labels = model(x).argmax(1)
    labels[0] = (labels[0] + 1) % 3  # one is wrong already
    return Session(model, "tiny", Data("noise", (x, labels)), x, labels, torch.device("cpu"), 0, 8, work or Work())


def _texts(sections: list[Section]) -> list[object]:
    return [
        (one.title, one.text, one.table and (one.table.columns, one.table.rows), plain(one.data)) for one in sections
    ]


def test_linearity() -> None:
    sections = linearity_sections(_session(), points=5, attack_steps=30)
    titles = ["Local linearity", "Local linear classifiers", "Calibration", "Weights by layer"]
    assert [section.title for section in sections] == titles
    assert all(section.figure is not None for section in sections[:3])
    for section in sections:
        assert section.table is not None
        assert all(len(row) == len(section.table.columns) for row in section.table.rows)
    data = plain(sections[0].data["found"])
    assert len(data["distances"]) == 5
    assert data["distances"][-1] == pytest.approx(2 * data["distances"][2])
    other = linearity_sections(_session(), layer="1", reach=0.5, points=3, attack_steps=30, bins=4)
    found = plain(other[0].data["found"])
    assert found["distances"] == [0, 0.25, 0.5]
    assert max(found["deviation"]["random"][-1]) < 1e-5, "the first layer is linear"
    assert "outputs of 1" in other[0].text
    assert len(other[2].data["found"].plain.counts) == 4


def test_activations() -> None:
    shared, cells = activations_sections(_session(), points=3, attack_steps=30)
    assert (shared.title, cells.title) == ("Activations in common", "Linear cells")
    assert shared.table is not None
    assert [row[0] for row in shared.table.rows] == ["data, random", "data, adversarial", "noise, random"]
    assert "network's 12 units" in shared.text
    assert set(cells.data["sizes"]) == {row[0] for row in shared.table.rows}
    with pytest.raises(ValueError, match="got gelu in module '2'"):
        activations_sections(_session(activation=nn.GELU()), reach=1.0)


def test_resumed_and_repeated(tmp_path) -> None:
    """A second run reads all parts, and the page is the same."""
    for make in (linearity_sections, activations_sections):
        folder = tmp_path / make.__name__
        first = _texts(make(_session(Work(folder)), points=3, attack_steps=20))
        done = []
        again = _texts(make(_session(Work(folder, done.append)), points=3, attack_steps=20))
        assert again == first
        last = {progress.title: progress for progress in done}
        assert all(progress.resumed == progress.total == 20 for progress in last.values())


def test_reference_distance() -> None:
    assert reference_distance(torch.empty(0), 3.0) == 1.5
    norms = torch.cat((torch.arange(1, 102).double(), torch.tensor([0.0, math.inf], dtype=torch.float64)))
    assert reference_distance(norms, None) == 96
    with pytest.raises(ValueError, match="reach: the attack found no"):
        reference_distance(torch.tensor([0.0, math.inf], dtype=torch.float64), None)
    with pytest.raises(ValueError, match="reach: expected"):
        reference_distance(norms, 0.0)


def test_smallest_norms_of_a_linear_network() -> None:
    """Never below the exact distance, and near it after enough steps."""
    session = _session()
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).requires_grad_(False)
    labels = model(session.inputs).argmax(1)
    session = replace(session, model=model, labels=labels)
    exact = nearest_adversarial(session.inputs, labels, model[1].weight, model[1].bias, bounds=(0.0, 1.0)).distance
    found = smallest_norms(session, 100)
    # Points on the boundary are told apart in float32: logits of order 1 over slopes of order 1.
    assert bool((found >= exact - 1e-5).all())
    assert float((found / exact).median()) < 1.02
    few = smallest_norms(replace(session, work=Work()), 1)
    assert bool((few >= exact - 1e-5).all())
    assert float(few.sum()) > float(found.sum())
