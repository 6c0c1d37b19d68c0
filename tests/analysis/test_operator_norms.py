"""Operator norms by brute force on small matrices, and of Jacobians at data."""

from __future__ import annotations

import itertools
import math
import sys

import pytest
import torch
from torch import Tensor

from pyrobust.analysis import is_exact, jacobian, operator_norm, operator_norms
from pyrobust.analysis.operator_norms import PAIRS
from tests.training.pieces import batch_of, relu_net
from tests.training.pieces import operator_norm as by_definition

MODULE = sys.modules["pyrobust.analysis.operator_norms"]
P = {"l1": 1.0, "l2": 2.0, "linf": math.inf}


def matrices(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (1, 5), (5, 1)])
@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_by_brute_force(p: str, q: str, shape: tuple[int, int]) -> None:
    many = matrices(5, *shape)
    expected = torch.tensor([by_definition(one, p, q) for one in many], dtype=torch.float64)
    torch.testing.assert_close(operator_norm(many, p, q), expected, rtol=1e-14, atol=0)
    assert is_exact(p, q, *shape)


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_no_direction_does_better(p: str, q: str) -> None:
    """‖A v‖_q ≤ ‖A‖_{p,q} ‖v‖_p for any v, and ‖A‖_{p,q} = ‖Aᵀ‖_{q*,p*}."""
    many, directions = matrices(3, 5, 7), matrices(3, 7, 1000, seed=1)
    ratios = torch.linalg.vector_norm(many @ directions, P[q], dim=1) / torch.linalg.vector_norm(
        directions, P[p], dim=1
    )
    norms = operator_norm(many, p, q)
    assert bool((ratios.amax(1) <= norms * (1 + 1e-14)).all())
    dual = {"l1": "linf", "l2": "l2", "linf": "l1"}
    torch.testing.assert_close(operator_norm(many.mT, dual[q], dual[p]), norms, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("p", "q"), [("linf", "l2"), ("linf", "l1"), ("l2", "l1"), ("l2", "l2")])
def test_the_power_method_is_a_lower_bound_and_reaches_small_norms(
    p: str, q: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = matrices(20, 6, 8)
    exact = operator_norm(many, p, q)
    ids = torch.arange(20)
    found = [MODULE._power_method(many, P[p], P[q], 200, starts, 0, ids) for starts in (1, 4, 16)]
    assert all(bool((one <= exact * (1 + 1e-13)).all()) for one in found)
    # Signs end in a corner, exactly; l2 to l2 converges by (σ₂/σ₁)⁴⁰⁰ but for ties, until no value grows by 1e-12.
    assert float((found[2] >= exact * (1 - 1e-9)).double().mean()) >= 0.95
    assert float(found[0].sum()) < float(found[2].sum()) or (p, q) == ("l2", "l2")
    if (p, q) == ("l2", "l2"):
        return
    monkeypatch.setattr(MODULE, "ENUMERATED", 0)
    assert not is_exact(p, q, 6, 8)
    assert torch.equal(operator_norm(many, p, q, steps=200), found[2])
    assert not torch.equal(operator_norm(many, p, q, starts=1), operator_norm(many, p, q, starts=1, seed=1))
    assert float(operator_norm(many, p, q, steps=1).sum()) < float(found[2].sum())


@pytest.mark.parametrize(("p", "q"), [("linf", "l2"), ("linf", "l1"), ("l2", "l1")])
def test_the_power_method_ends_where_no_start_grows(p: str, q: str) -> None:
    """A matrix has the bound that it has beside others, though its best start may stand still while another catches up."""
    many = matrices(40, 40, 30)
    together = operator_norm(many, p, q)
    alone = torch.cat(
        [MODULE._power_method(many[i : i + 1], P[p], P[q], 50, 16, 0, torch.arange(i, i + 1)) for i in range(40)]
    )
    torch.testing.assert_close(
        alone, together, rtol=1e-11, atol=0
    )  # less than the growth by 1e-12 that counts, a few times


def test_known_matrices() -> None:
    """All ones: v = 1 is best for every p, so that ‖A‖_{p,q} = D^{1 − 1/p} m^{1/q}; the identity: max(1, n^{1/q − 1/p})."""
    ones, identity = torch.ones(3, 5), torch.eye(4)
    for p, q in itertools.product(P, P):
        assert float(operator_norm(ones, p, q)) == pytest.approx(5 ** (1 - 1 / P[p]) * 3 ** (1 / P[q]), rel=1e-14)
        assert float(operator_norm(identity, p, q)) == pytest.approx(max(1, 4 ** (1 / P[q] - 1 / P[p])), rel=1e-14)
    assert operator_norm(ones, 1, math.inf).shape == ()
    assert operator_norm(torch.zeros(2, 3, 4, 5), "linf", "l2").tolist() == [[0.0] * 3] * 2


def test_what_is_exact() -> None:
    inexact = {pair for pair in PAIRS if not is_exact(*pair, rows=10, columns=784)}
    assert inexact == {("linf", "l2")}
    inexact = {pair for pair in PAIRS if not is_exact(*pair, rows=100, columns=784)}
    assert inexact == {("linf", "l2"), ("linf", "l1"), ("l2", "l1")}  # those that table 1 calls NP-hard


def test_jacobians_at_data() -> None:
    model, x = relu_net(), batch_of(7).inputs
    full = jacobian(model, x)
    found = operator_norms(model, x, batch_size=3)
    for (p, q), values in found.values.items():
        expected = torch.tensor([by_definition(one, p, q) for one in full], dtype=torch.float64)
        torch.testing.assert_close(values, expected, rtol=1e-13, atol=0)
        assert found.exact[p, q]
    layer = operator_norms(model, x, "2")  # a ReLU of 12 units
    torch.testing.assert_close(
        layer.values["l2", "linf"], jacobian(model, x, "2").norm(dim=2).amax(1), rtol=1e-13, atol=0
    )


def test_randomness_is_keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "ENUMERATED", 0)
    weight = matrices(20, 30)
    model, x = lambda x: x @ weight.T, torch.rand(6, 30, dtype=torch.float64)
    one = operator_norms(model, x, starts=1, steps=2)  # a single start is random
    again = operator_norms(model, x, starts=1, steps=2, batch_size=4)
    other = operator_norms(model, x, starts=1, steps=2, seed=1)
    pair = ("linf", "l2")
    assert not one.exact[pair]
    # The same numbers from another batch; products of matrices at another place in it may round otherwise.
    torch.testing.assert_close(one.values[pair], again.values[pair], rtol=1e-13, atol=0)
    assert torch.equal(one.values[pair], operator_norms(model, x, starts=1, steps=2).values[pair])
    assert not torch.equal(one.values[pair], other.values[pair])
    assert torch.unique(one.values[pair]).numel() > 1  # the same matrix, from other starts


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((torch.ones(2, 2), "l0", "l2"), {}, ValueError, "norm: expected one of l1, l2, linf"),
        ((torch.ones(2, 2), 2, 3), {}, ValueError, "norm: expected one of l1, l2, linf"),
        ((torch.ones(2), 2, 2), {}, ValueError, "matrices: expected a non-empty tensor"),
        ((torch.ones(0, 2), 2, 2), {}, ValueError, "matrices: expected a non-empty tensor"),
        ((torch.ones(2, 2, dtype=torch.int64), 2, 2), {}, TypeError, "matrices: expected a float32 or float64"),
        ((torch.ones(2, 2), 2, 2), {"steps": 0}, ValueError, "steps: expected an integer >= 1"),
        ((torch.ones(2, 2), 2, 2), {"starts": 0}, ValueError, "starts: expected an integer >= 1"),
    ],
)
def test_errors(arguments: tuple, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        operator_norm(*arguments, **options)


def test_plot() -> None:
    pytest.importorskip("matplotlib")
    (axis,) = operator_norms(relu_net(), batch_of(5).inputs).plot().axes
    assert len(axis.get_yticklabels()) == len(PAIRS)
    assert axis.get_xscale() == "log"
