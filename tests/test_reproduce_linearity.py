"""The experiment of local linearity and theorem 1: it runs, its iterations agree where they must, its orderings are judged right."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.reproduce.linearity_claims import Found, Mixed, Network, orderings
from bench.reproduce.linearity_theorem import PAIRS, agreement
from bench.reproduce.local_linearity import DISTANCES, RADII, main
from pyrobust.analysis import CellSizes, LocalLinearity, SharedActivations
from pyrobust.analysis.alignment import Alignment

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """The networks here are tiny."""


def _network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 5)).eval()


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_theorem(p: float, q: float) -> None:
    x = torch.rand(9, 12, generator=torch.Generator().manual_seed(0))
    found = agreement(_network(), x, p, q, ratio=1e6, steps=8)
    assert bool(found.inside.all())
    # Π(y + α v) of ‖y‖ ≤ ε turns v by at most ε/α; the start of each step is turned likewise, and Jᵀ of it once more.
    assert float(found.gap.max()) <= 4e-6
    # A turn by 4e-6 changes ‖J v‖ by at most 4e-6 ‖J‖, and ‖J v‖ is more than a tenth of that here.
    torch.testing.assert_close(found.gain, torch.ones(9, dtype=torch.float64), rtol=4e-5, atol=0)
    torch.testing.assert_close(found.cosine, torch.ones(9, dtype=torch.float64), rtol=1e-10, atol=0)


def test_outside_the_cell_and_for_small_steps_they_differ() -> None:
    x = torch.rand(9, 12, generator=torch.Generator().manual_seed(0))
    far = agreement(_network(), x, 2.0, 2.0, ratio=1e6, steps=8, eps=5.0)
    assert not bool(far.inside.any())
    assert float(far.cosine.min()) < 0.99
    assert far.eps.tolist() == [5.0] * 9
    assert far.plain()["gap"] is None
    assert float(agreement(_network(), x, 2.0, 2.0, ratio=1.0, steps=8).gap.max()) > 0.01


def _found(order: float) -> Found:
    """All that the paper says, for order 1; for order −1 standard and the regularised networks have changed places."""
    noise = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def network(size: float, aligned: float) -> Network:
        values = size * (1 + 0.1 * noise)
        rows = torch.full((len(DISTANCES), 1), size, dtype=torch.float64) * (1 + 0.1 * noise)
        both = {"random": rows, "adversarial": rows}
        near = dict.fromkeys(both, 1 - 0.01 * rows)
        off = {"random": torch.full_like(rows, 0.9)}
        cosines = torch.full((40, 30), 0.01, dtype=torch.float64)
        cosines[:, :10] = aligned
        distances = torch.tensor(DISTANCES, dtype=torch.float64)
        return Network(
            Alignment(cosines, values.unsqueeze(1).expand(-1, 30), 3072),
            LocalLinearity(distances, both, both, both),
            SharedActivations(distances, 100, near),
            SharedActivations(distances, 100, off if order > 0 else near),
            CellSizes({"random": noise, "adversarial": noise}),
            CellSizes({"random": noise}),
        )

    aligned = 0.3 if order > 0 else 0.02
    sizes = {"standard": 3 + 2 * order, "adversarial": 3 - 2 * order, "global SNR": 4.6, "d.d. SNR": 3 - 2 * order}
    methods = {name: network(size, aligned) for name, size in sizes.items()}
    right = np.arange(7 * 40).reshape(7, 40) % 3 == 0
    other = right if order > 0 else np.zeros_like(right)
    mixes = {name: Mixed(row, noise, noise) for name, row in (("mix 0", right), ("mix 1", other))}
    x = torch.rand(4, 12, generator=torch.Generator().manual_seed(0))
    agreed = {
        (2.0, math.inf, ratio): agreement(_network(), x, 2.0, math.inf, ratio=ratio, steps=3) for ratio in (1e2, 1e6)
    }
    if order < 0:
        agreed = {key: replace(one, inside=~one.inside) for key, one in agreed.items()}
    return Found(0.9, DISTANCES, RADII, methods, network(1.0, 0.01).aligned, mixes, agreed, {})


@pytest.mark.parametrize("order", [1.0, -1.0])
def test_orderings(order: float) -> None:
    stated = orderings(_found(order))
    wrong = [claim.text for claim in stated if claim.holds != (order > 0)]
    assert not wrong
    assert len(stated) == 20
    if order < 0:
        assert sum("times as large as standard's at the data" in claim.why for claim in stated) == 2
        assert any("460 % of standard's with global SNR" in claim.why for claim in stated)


def test_smoke(tmp_path: Path) -> None:
    assert main(["--smoke", "--device", "cpu", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    content = json.loads(path.read_text())
    assert list(content["methods"]) == ["standard", "adversarial", "global SNR", "d.d. SNR"]
    for network in content["methods"].values():
        assert all(values[0] < 1e-5 for values in network["deviation"].values()), "nothing deviates at x itself"
        assert all(values[0] == 1 for values in network["shared_at_data"].values())
        assert network["shared_at_noise"][0] == 1
    assert list(content["mixes"]) == ["mix 0", "mix 0.5", "mix 1"]
    assert len(content["theorem"]) == 2 * len(PAIRS)
    assert len(content["beyond_the_cell"]["standard"]) == len(RADII)
    (markdown,) = tmp_path.glob("*.md")
    text = markdown.read_text()
    assert text.count("**holds**") + text.count("**does not hold**") == 20
    figures = list(tmp_path.glob("*.png"))
    assert len(figures) == 6
    assert all(figure.read_bytes()[:4] == b"\x89PNG" and f"({figure.name})" in text for figure in figures)
