"""Sweeps of λ: against scikit-learn and their own duality gap, limits, and resuming."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pyrobust._progress import Progress
from pyrobust.analysis._duality import NotSolvedError, balanced, signed_rows
from pyrobust.analysis._hinge import HingePath
from pyrobust.analysis._softplus import SoftplusPath
from pyrobust.analysis.geometry import LOSSES, adversarial_distance, empirical_risk, error_distance
from pyrobust.analysis.sweep import LAMBDAS, Sweep, regularisation_sweep
from pyrobust.analysis.tilting import nearest_centroid, tilting_angle
from pyrobust.analysis.work import Work
from pyrobust.data import digits

pytest.importorskip("sklearn")

DATA = digits()
assert DATA.train is not None
ALL = (*DATA.train, *DATA.test)
PAIR = (1, 8)
GRID = (0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e6)
TIGHT = 1e-9


@pytest.fixture(scope="module", params=["hinge", "softplus"])
def tight(request) -> Sweep:
    return regularisation_sweep(*ALL, pairs=[PAIR], loss=request.param, lambdas=GRID, tolerance=TIGHT)


def _samples(images: int = 3000) -> tuple[torch.Tensor, torch.Tensor]:
    """The pair's training samples, balanced, picked another way."""
    inputs, labels = ALL[:2]
    count = min(images, *(int((labels == label).sum()) for label in PAIR))
    chosen = torch.cat([inputs[labels == label][:count] for label in PAIR])
    return chosen, torch.arange(2).repeat_interleave(count)


def _objective(loss: str, lam: float, weight: torch.Tensor, bias: torch.Tensor) -> float:
    inputs, labels = _samples()
    return 0.5 * lam * float(weight.dot(weight)) + len(labels) * empirical_risk(inputs, labels, weight, bias, loss=loss)


def test_default_range() -> None:
    assert len(LAMBDAS) == 81
    assert LAMBDAS[0] == pytest.approx(0.1, rel=1e-15)
    assert LAMBDAS[-1] == pytest.approx(1e7, rel=1e-15)


@pytest.mark.parametrize("k", [0, 2, 3, 4])
def test_against_scikit_learn(tight: Sweep, k: int) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    inputs, labels = _samples()
    x, lam = inputs.double().flatten(1).numpy(), GRID[k]
    if tight.loss == "hinge":
        peer = SVC(kernel="linear", C=1 / lam, tol=1e-8)
    else:
        peer = LogisticRegression(C=1 / lam, tol=1e-10, max_iter=10_000)
    peer.fit(x, labels.numpy())
    w, b = torch.tensor(peer.coef_[0]), torch.tensor(peer.intercept_)
    ours, theirs = _objective(tight.loss, lam, tight.weight[0, k], tight.bias[0, k]), _objective(tight.loss, lam, w, b)
    energy = 0.5 * lam * float(tight.norm[0, k]) ** 2
    assert ours <= theirs + TIGHT * energy, "the gap bounds how much better any classifier can be"
    # λ/2 ‖w − w*‖² is at most the distance of the objective from its minimum, ours and theirs.
    allowed = math.sqrt(2 * TIGHT * energy / lam) + math.sqrt(2 * (theirs - ours + TIGHT * energy) / lam)
    assert float((w - tight.weight[0, k]).norm()) <= allowed
    assert allowed <= 1e-3 * float(w.norm()), "the peer is near enough for the comparison to say something"


@pytest.mark.parametrize("tolerance", [1e-2, 1e-6])
@pytest.mark.parametrize("loss", ["hinge", "softplus"])
def test_the_tolerance_bounds_the_distance_from_the_optimum(loss: str, tolerance: float) -> None:
    found = regularisation_sweep(*ALL, pairs=[PAIR], loss=loss, lambdas=GRID, tolerance=tolerance)
    best = regularisation_sweep(*ALL, pairs=[PAIR], loss=loss, lambdas=GRID, tolerance=TIGHT)
    assert (found.gap <= tolerance).all()
    apart = (found.weight - best.weight).norm(dim=2)
    assert (apart <= (tolerance**0.5 + TIGHT**0.5) * found.norm).all()
    assert (apart > 0).any(), "a smaller tolerance changes the result"


def test_the_gap_is_that_of_the_result() -> None:
    """P from the returned (w, b), and D from the prices −f′ of their margins: of softplus alone they follow from (w, b)."""
    found = regularisation_sweep(*ALL, pairs=[PAIR], loss="softplus", lambdas=GRID)
    inputs, labels = _samples()
    rows = signed_rows(inputs, labels)
    for k, lam in enumerate(GRID):
        margins = rows @ torch.cat([found.weight[0, k], found.bias[0, k].reshape(1)])
        alpha = balanced(torch.sigmoid(-margins), rows)
        pull = (rows.T @ alpha)[:-1]
        dual = float(F.binary_cross_entropy(alpha, alpha, reduction="sum") - pull.dot(pull) / (2 * lam))
        primal = _objective("softplus", lam, found.weight[0, k], found.bias[0, k])
        # Both are sums of some 240 terms.
        assert (primal - dual) / primal == pytest.approx(float(found.gap[0, k]), abs=1e-12)


def test_measures(tight: Sweep) -> None:
    inputs, labels = _samples()
    chosen = (ALL[3] == PAIR[0]) | (ALL[3] == PAIR[1])
    tested = ALL[2][chosen], (ALL[3][chosen] == PAIR[1]).long()
    assert tight.images.tolist() == [len(labels) // 2]
    half = 0.5 * float(nearest_centroid(inputs, labels).weight.norm())
    for k in range(len(GRID)):
        w, b = tight.weight[0, k], tight.bias[0, k]
        near = {"abs": 1e-12}  # sums of 240 terms of size about 1
        assert float(tight.norm[0, k]) == pytest.approx(float(w.norm()), **near)
        assert float(tight.adversarial_distance[0, k]) == pytest.approx(
            adversarial_distance(inputs, labels, w, b), **near
        )
        assert float(tight.error_distance[0, k]) == pytest.approx(error_distance(inputs, labels, w, b), **near)
        assert float(tight.angle[0, k]) == pytest.approx(tilting_angle(inputs, labels, w), **near)
        assert float(tight.adversarial_distance[0, k]) == pytest.approx(half * math.cos(tight.angle[0, k]), **near)
        assert float(tight.train_error[0, k]) == pytest.approx(empirical_risk(inputs, labels, w, b, loss="0-1"), **near)
        assert float(tight.test_error[0, k]) == pytest.approx(empirical_risk(*tested, w, b, loss="0-1"), **near)


def test_limits_and_monotony(tight: Sweep) -> None:
    """‖w‖ falls and the risk rises with λ, for any convex loss; θ → 0 as λ → ∞, where w → (n/2λ) β (j − i)."""
    assert (tight.norm[0].diff() < 1e-9).all()
    risks = [
        empirical_risk(*_samples(), w, b, loss=tight.loss) for w, b in zip(tight.weight[0], tight.bias[0], strict=True)
    ]
    assert all(b >= a - 1e-9 for a, b in pairwise(risks))
    inputs, labels = _samples()
    beta = {"hinge": 1.0, "softplus": 0.5}[tight.loss]
    limit = beta * len(labels) / (2 * GRID[-1]) * nearest_centroid(inputs, labels).weight
    # Softplus: |f′ + ½| ≤ |z|/4, with |w·x + b| far below 1e-3 at λ = 1e6 (b is of the order of w·x).
    torch.testing.assert_close(tight.weight[0, -1], limit, rtol=0, atol=1e-3 * float(limit.norm()))
    assert float(tight.angle[0, -1]) <= (1e-9 if tight.loss == "hinge" else 1e-3)


def test_bias_of_the_limit_is_the_middle_of_its_interval() -> None:
    """With all samples inside the margin, P is flat in b from max over I of −1 − w·x to min over J of 1 − w·x."""
    inputs, labels = _samples()
    found = regularisation_sweep(*ALL, pairs=[PAIR], lambdas=[1e6])
    score = inputs.double().flatten(1) @ found.weight[0, 0]
    low, high = (-1 - score[labels == 0]).max(), (1 - score[labels == 1]).min()
    assert low < high
    assert float(found.bias[0, 0]) == pytest.approx(float(low + high) / 2, abs=1e-12)


@pytest.mark.parametrize("path", [HingePath, SoftplusPath])
def test_unbalanced_classes(path: type) -> None:
    """The solvers take classes of any sizes; the objective is convex, so no nearby point is better by more than the gap."""
    inputs, labels = _samples()
    rows = signed_rows(inputs[60:], labels[60:])
    loss = LOSSES["hinge" if path is HingePath else "softplus"]
    solver = path(rows, TIGHT)
    generator = torch.Generator().manual_seed(0)
    for lam in (1e5, 1e2, 1.0):
        found = solver.solve(lam)
        point = torch.cat([found.weight, found.bias.reshape(1)])

        def objective(p: torch.Tensor, lam: float = lam) -> float:
            return float(0.5 * lam * p[:-1].dot(p[:-1]) + loss(rows @ p).sum())

        least = objective(point)
        for size in (1e-1, 1e-3):
            step = size * torch.randn(20, len(point), dtype=torch.float64, generator=generator) * point.norm() / 8
            assert min(objective(point + s) for s in step) >= least * (1 - found.gap) - 1e-12 * least
        assert 0 <= found.gap <= TIGHT


def test_no_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pyrobust.analysis._hinge.OUTER_STEPS", "pyrobust.analysis._softplus.NEWTON_STEPS"):
        monkeypatch.setattr(module, 1)
    for loss in ("hinge", "softplus"):
        with pytest.raises(NotSolvedError, match=f"classes 1 and 8: {loss} loss"):
            regularisation_sweep(*ALL, pairs=[PAIR], loss=loss, lambdas=[1.0], tolerance=TIGHT)


def test_too_small_a_lambda_is_an_error() -> None:
    """λ I is lost beside 10⁵ times the squares of pixels up to 255, of too few samples to make up the rank."""
    with pytest.raises(NotSolvedError, match=r"classes 1 and 8: hinge loss, λ = 1e-\d\d: too small"):
        regularisation_sweep(
            255 * ALL[0], ALL[1], 255 * ALL[2], ALL[3], pairs=[PAIR], lambdas=[10.0**k for k in range(-14, 10)]
        )


@pytest.mark.parametrize("loss", ["hinge", "softplus"])
def test_far_above_the_limit_the_weights_have_their_direction(loss: str) -> None:
    """There the gap of w = 0 is lost in rounding; of n samples w is n/2λ or n/4λ times the difference of the means."""
    found = regularisation_sweep(*ALL, pairs=[PAIR], loss=loss, lambdas=[1e14], images=1)
    inputs, labels = _samples(images=1)
    apart = nearest_centroid(inputs, labels).weight
    expected = apart / 1e14 * (1.0 if loss == "hinge" else 0.5)
    # Newton's step from 0 is exact but for the curvature of softplus, a rounding here.
    torch.testing.assert_close(found.weight[0, 0], expected, rtol=0, atol=1e-9 * float(expected.norm()))
    assert float(found.angle) < 1e-7
    assert float(found.adversarial_distance) == pytest.approx(0.5 * float(apart.norm()), rel=1e-9)


def test_pairs_images_and_order() -> None:
    both = regularisation_sweep(*ALL, pairs=[(3, 9), PAIR], lambdas=[1.0], images=50)
    one = regularisation_sweep(*ALL, pairs=[PAIR], lambdas=[1.0], images=50)
    assert both.images.tolist() == [50, 50]
    assert torch.equal(both.weight[1], one.weight[0]), "a pair does not depend on the others"
    turned = regularisation_sweep(*ALL, pairs=[PAIR[::-1]], lambdas=[1.0], images=50, tolerance=TIGHT)
    straight = regularisation_sweep(*ALL, pairs=[PAIR], lambdas=[1.0], images=50, tolerance=TIGHT)
    bound = 2 * TIGHT**0.5 * float(straight.norm)
    assert float((turned.weight + straight.weight).norm()) <= bound, "the classes exchanged: the opposite weights"
    few = ALL[1] < 3
    three = regularisation_sweep(ALL[0][few], ALL[1][few], *ALL[2:], lambdas=[100.0])
    assert three.pairs.tolist() == [[0, 1], [0, 2], [1, 2]], "all pairs of the classes that both parts have"


def test_resume(tmp_path: Path) -> None:
    told: list[Progress] = []
    kept = {"pairs": [(0, 1), PAIR], "lambdas": [1.0, 10.0]}
    first = regularisation_sweep(*ALL, **kept, work=Work(tmp_path))
    victim = sorted(tmp_path.rglob("*.pt"))[1]
    victim.unlink()
    again = regularisation_sweep(*ALL, **kept, work=Work(tmp_path, told.append))
    assert told[-1] == Progress("hinge sweep", done=2, resumed=1, total=2)
    for name in ("pairs", "images", "weight", "bias", "angle", "gap", "test_error"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name


def test_table(tight: Sweep) -> None:
    table = tight.table()
    assert len(table.rows) == len(GRID)
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert table.rows[3][:2] == ("1 / 8", "10")
    angle = float(tight.angle[0, 3].rad2deg())
    assert float(table.rows[3][table.columns.index("θ (°)")]) == pytest.approx(angle, abs=0.005)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"loss": "log"}, "loss"),
        ({"lambdas": []}, "lambdas"),
        ({"lambdas": [1.0, 1.0]}, "lambdas"),
        ({"lambdas": [0.0, 1.0]}, "lambdas"),
        ({"images": 0}, "images"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"pairs": [(1, 1)]}, "pairs"),
        ({"pairs": [(1, 10)]}, "pairs"),
        ({"pairs": []}, "pairs"),
    ],
)
def test_errors_name_the_argument(given: dict, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: "):
        regularisation_sweep(*ALL, **given)
    with pytest.raises(ValueError, match=r"^test_inputs: "):
        regularisation_sweep(*ALL[:2], ALL[2].flatten(1), ALL[3])
