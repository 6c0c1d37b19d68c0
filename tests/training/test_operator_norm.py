"""Operator norms and the distance of logits, beside what linear algebra says they are; theorem 1 of seed 004."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust.training import (
    Batch,
    CrossEntropy,
    LogitDistance,
    OperatorNorm,
    Term,
    interpolation,
)
from pyrobust.training.operator_norm import PowerIteration, jacobian_product
from tests.training.pieces import COMPUTABLE, P, batch_of, gradients, jacobians, operator_norm, relu_net, value


@pytest.mark.parametrize(("p", "q"), [*COMPUTABLE, ("linf", "l2"), ("linf", "l1"), ("l2", "l1")])
def test_operator_norms(p: str, q: str) -> None:
    """The largest over many starts is the norm, and none is above: the iteration may stop at a local maximum."""
    model, one = relu_net(), batch_of(1)
    matrix = jacobians(model, one.inputs)[0]
    copies = 40
    batch = Batch(one.inputs.repeat(copies, 1), one.labels.repeat(copies), torch.arange(copies))
    term = OperatorNorm(p, q, steps=100, power=1)
    u, v = term.directions(model, batch)
    values = ((u @ matrix) * v).sum(1)
    # l2 converges as (σ₂/σ₁)²⁰⁰, the others in a few steps, exactly.
    assert float(values.max()) == pytest.approx(operator_norm(matrix, p, q), rel=1e-9)
    assert float(values.min()) > 0
    torch.testing.assert_close(ops.lp_norm(v, p), torch.ones(copies, dtype=torch.float64))
    mean = pytest.approx(float(values.mean()), rel=1e-9)
    assert float(value(term, model, batch)) == mean
    # eps 1e-4 stays in the cells of these points, and costs 4 of the 16 digits.
    assert float(value(OperatorNorm(p, q, 100, eps=1e-4, power=1), model, batch)) == mean
    assert float(value(OperatorNorm(p, q, 100), model, batch)) == pytest.approx(float(values.square().mean() / 2))


@pytest.mark.parametrize("p", ["l1", "l2", "linf"])
@pytest.mark.parametrize("q", ["l1", "l2", "linf"])
def test_theorem_1(p: str, q: str) -> None:
    """Inside one ReLU cell, projected gradient ascent with an l_q loss on the logits and α → ∞ is the power method."""
    model, batch = relu_net().train(), batch_of(8)
    eps = 1e-4
    iteration = PowerIteration(model, batch.inputs, P[p], P[q])
    v = iteration.start(torch.randn(8, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    points = {"limit": batch.inputs + eps * v, "large": batch.inputs + eps * v}
    for _ in range(6):
        u, v = iteration.step(v)
        # On the l1 and linf sphere the limit is reached at α = 2 eps; on the l2 sphere it is eps / α away.
        for name, alpha in (("limit", math.inf), ("large", 1e9 if p == "l2" else 1.0)):
            term = LogitDistance(eps, p, q, steps=1, step_size=alpha)
            points[name] = term.ascend(model, batch, points[name].clone())
            moved = (points[name] - batch.inputs) / eps
            # x̂ − x is known to the rounding of x over eps, 2e-16 / 1e-4; the logits' difference as well.
            torch.testing.assert_close(moved, v, rtol=0, atol=1e-10)
        assert torch.equal(pattern(model, points["limit"]), pattern(model, batch.inputs)), "eps leaves the cell"
        # ‖f(x̂) − f(x)‖_q = eps ‖J v‖_q, the objective of both.
        distance = ops.lp_norm(model(points["limit"]) - model(batch.inputs), q)
        torch.testing.assert_close(distance / eps, ops.lp_norm(jacobian_product(model, batch.inputs, v), q), rtol=1e-10, atol=1e-10)  # fmt: skip


def pattern(model: nn.Sequential, inputs: Tensor) -> Tensor:
    """Which units are active, (N, m)."""
    found, x = [], inputs
    for layer in model:
        if isinstance(layer, nn.ReLU):
            found.append(x > 0)
        x = layer(x)
    return torch.cat(found, 1)


@pytest.mark.parametrize(("p", "q"), [("l2", "l2"), ("linf", "l1"), ("l1", "linf"), ("l2", "linf")])
@pytest.mark.parametrize("alpha", [0.3, math.inf])
def test_iterates_by_the_formula(p: str, q: str, alpha: float) -> None:
    """Eq. 11 and 12 with the Jacobian as a matrix."""
    model, batch = relu_net(), batch_of(3)
    iteration = PowerIteration(model, batch.inputs, P[p], P[q], alpha)
    start = torch.tensor([[1.0, -2.0, 0.5, 0.1]] * 3, dtype=torch.float64)
    v = iteration.start(start)
    expected = [dual(j.T @ s, p) for j, s in zip(jacobians(model, batch.inputs), start, strict=True)]
    torch.testing.assert_close(v, torch.stack(expected), rtol=1e-12, atol=1e-14)
    for _ in range(4):
        u, v = iteration.step(v)
        us = []
        for i, j in enumerate(jacobians(model, batch.inputs)):
            us.append(dual(j @ expected[i], {"l1": "linf", "l2": "l2", "linf": "l1"}[q]))
            z = j.T @ us[i]
            moved = expected[i] + alpha * z
            if alpha == math.inf:
                expected[i] = dual(z, p)
            elif p == "l2":
                expected[i] = moved / moved.norm()
            else:
                expected[i] = ops.project_lp_sphere(moved.unsqueeze(0), P[p])[0]
        torch.testing.assert_close(u, torch.stack(us), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(v, torch.stack(expected), rtol=1e-10, atol=1e-12)


def dual(z: Tensor, p: str) -> Tensor:
    """argmax ⟨v, z⟩ over ‖v‖_p ≤ 1, without ties."""
    if p == "linf":
        return z.sign()
    if p == "l2":
        return z / z.norm()
    v = torch.zeros_like(z)
    v[z.abs().argmax()] = z[z.abs().argmax()].sign()
    return v


@pytest.mark.parametrize("eps", [None, 1e-4], ids=["value", "differences"])
@pytest.mark.parametrize("power", [1, 2])
def test_gradient_of_the_spectral_norm(eps: float | None, power: int) -> None:
    """At the maximum, the derivative of σ is that of the singular value, though u and v are held constant."""
    model, batch = relu_net(), batch_of(3)
    found = gradients(model, value(OperatorNorm(steps=400, eps=eps, power=power), model, batch))
    sizes = [float(torch.linalg.svdvals(j)[0]) for j in jacobians(model, batch.inputs)]

    def reference() -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for sample, size in zip(batch.inputs.detach(), sizes, strict=True):
            j = torch.autograd.functional.jacobian(lambda x: model(x.unsqueeze(0))[0], sample, create_graph=True)
            sigma = torch.linalg.matrix_norm(j, 2)
            assert float(sigma.detach()) == pytest.approx(size)
            total = total + (sigma if power == 1 else sigma**2 / 2)
        return total / 3

    expected = gradients(model, reference())
    # Differences divide the rounding of the logits, and of their gradient, by eps.
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8 if eps is None else 1e-7)


def test_warm_starts_converge_over_training_steps() -> None:
    model, batch = relu_net(), batch_of(4)
    exact = sum(float(torch.linalg.svdvals(j)[0]) for j in jacobians(model, batch.inputs)) / 4
    warm, cold = (OperatorNorm(steps=1, power=1, warm_start=w) for w in ((20, 4), None))
    first = float(value(warm, model, batch_of(4)))
    assert first == float(value(cold, model, batch_of(4)))  # new samples start as they do without
    for _ in range(200):
        last = value(warm, model, batch_of(4))
    assert float(last) == pytest.approx(exact, rel=1e-6)  # us are in float32
    assert first < 0.999 * exact
    assert "us" in warm.state_dict()
    assert "us" not in cold.state_dict()
    assert warm.us is not None
    assert warm.us.any(1).nonzero().flatten().tolist() == [3, 4, 5, 6]  # the sample ids of the batch
    again = OperatorNorm(steps=1, power=1, warm_start=(20, 4))
    again.load_state_dict(warm.state_dict())
    assert float(value(again, model, batch_of(4))) == float(value(warm, model, batch_of(4)))


def test_randomness_is_keyed_and_rows_are_independent() -> None:
    model, batch = relu_net(), batch_of(6)
    term = OperatorNorm(steps=2)
    first = term.directions(model, batch)
    for key in ({"step": 1}, {"seed": 1}, {"sample_ids": batch.sample_ids + 1}):
        assert not torch.equal(term.directions(model, dataclasses.replace(batch, **key))[1], first[1])
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    mixed = Batch(batch.inputs[order], batch.labels[order], batch.sample_ids[order])
    # Matrix products of another order of rows may round otherwise; float64.
    torch.testing.assert_close(term.directions(model, mixed)[1], first[1][order], rtol=1e-12, atol=1e-12)
    assert torch.equal(term.directions(model, batch)[1], first[1])


@pytest.mark.parametrize("make", [lambda: OperatorNorm(steps=2, eps=0.1), lambda: LogitDistance(0.1, steps=2)])
def test_the_iteration_leaves_the_model_as_found(make: Callable[[], Term]) -> None:
    model, batch = relu_net(batch_norm=True).train(), batch_of(8)
    model[1].weight.grad = marked = torch.ones_like(model[1].weight)
    passes: list[bool] = []
    handle = model[2].register_forward_hook(lambda module, *_: passes.append(module.training))
    before, state = {k: t.clone() for k, t in model.state_dict().items()}, torch.get_rng_state()
    term = make()
    if isinstance(term, OperatorNorm):
        term.directions(model, batch)
    else:
        term.ascend(model, batch, batch.inputs + 0.01)
    handle.remove()
    assert passes
    assert not any(passes)
    assert model.training
    assert model[2].training
    assert all(torch.equal(before[k], t) for k, t in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert model[1].weight.grad is marked
    assert torch.equal(marked, torch.ones_like(marked))


@pytest.mark.parametrize("kind", [OperatorNorm, LogitDistance])
def test_eval_mode_changes_what_is_ascended(kind: type[Term]) -> None:
    options = {"steps": 3, "eps": 0.05}
    model = relu_net(batch_norm=True).train()
    buffers = {k: b.clone() for k, b in model.named_buffers()}
    values = []
    for eval_mode in (True, False):
        model.load_state_dict(buffers, strict=False)
        values.append(float(value(kind(**options, eval_mode=eval_mode), model, batch_of(8))))
    assert values[0] != values[1]
    assert model[2].num_batches_tracked == 2  # the loss's own two passes, clean and moved


# --- the ascent of theorem 1 as a penalty


def test_logit_distance_is_eps_times_the_operator_norm() -> None:
    model, eps = relu_net(), 1e-4
    exact = [float(torch.linalg.svdvals(j)[0]) for j in jacobians(model, batch_of(5).inputs)]
    for power, expected in ((1, sum(eps * s for s in exact) / 5), (2, sum((eps * s) ** 2 / 2 for s in exact) / 5)):
        term = LogitDistance(eps, steps=300, step_size=math.inf, power=power)
        assert float(value(term, model, batch_of(5))) == pytest.approx(expected, rel=1e-8)
    default, small = (float(value(LogitDistance(eps, steps=4, step_size=s), model, batch_of(5))) for s in (None, 0.0))
    assert small < default <= sum(eps * s for s in exact) / 5 * (1 + 1e-9)
    linf = float(value(LogitDistance(eps, "linf", "linf", steps=20), model, batch_of(5)))
    # The row that the start leads to need not be the largest; none is larger.
    assert linf <= sum(eps * operator_norm(j, "linf", "linf") for j in jacobians(model, batch_of(5).inputs)) / 5 * (1 + 1e-9)  # fmt: skip
    assert linf > default


def test_logit_distance_stays_in_ball_and_bounds() -> None:
    model = relu_net()
    for norm in P:
        batch = batch_of(6)
        batch.inputs = batch.inputs.round()  # on the bounds
        adv = LogitDistance(0.3, norm, steps=5).ascend(model, batch, batch.inputs * 0.9 + 0.05)
        assert 0 <= adv.min() <= adv.max() <= 1
        assert float(ops.lp_norm(adv - batch.inputs, norm).max()) <= 0.3 * (1 + 1e-12)


def test_interpolation_is_the_convex_combination() -> None:
    model = relu_net()
    distance, norm = LogitDistance(1e-4, steps=100, step_size=math.inf), OperatorNorm(steps=100, power=1)
    at = {mix: interpolation(mix, (2.0, distance), (2e-4, norm)) for mix in (0.0, 0.25, 1.0)}
    assert list(at[0.0].terms) == ["ce", "adversarial"]
    assert list(at[1.0].terms) == ["ce", "penalty"]
    losses = {mix: float(objective(model, batch_of(5))[0]) for mix, objective in at.items()}
    assert losses[0.25] == pytest.approx(0.75 * losses[0.0] + 0.25 * losses[1.0], rel=1e-12)
    # Inside the cells both ends are the same function where λ̃ = λ eps.
    assert losses[0.0] == pytest.approx(losses[1.0], rel=1e-9)
    assert losses[0.0] > float(CrossEntropy()(model, batch_of(5)))
    # By values and by gradients.
    slopes = [gradients(model, at[mix](model, batch_of(5))[0]) for mix in (0.0, 1.0)]
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-9)


def test_a_compiled_model_has_the_same_norm() -> None:
    model = relu_net()
    wrapped = torch.compile(model, backend="eager")
    term = OperatorNorm(steps=3, eps=1e-3)
    assert float(value(term, wrapped, batch_of(4))) == pytest.approx(float(value(term, model, batch_of(4))), rel=1e-12)


@pytest.mark.parametrize("eps", [None, 0.1])
def test_autocast_with_batch_norm(eps: float | None) -> None:
    """The iteration runs in full precision, the penalty itself under autocast."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 3)
    ).eval()
    batch = Batch(torch.rand(6, 1, 4, 4), torch.arange(6) % 3, torch.arange(6))
    term = OperatorNorm(steps=2, eps=eps)
    u, v = term.directions(model, batch)
    expected = value(term, model, dataclasses.replace(batch))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = term.directions(model, batch)
        found = value(term, model, dataclasses.replace(batch))
    assert torch.equal(half[0], u)
    assert torch.equal(half[1], v)
    assert float(found) == pytest.approx(float(expected), rel=0.1)
    found.backward()
    assert all(module.weight.grad.abs().max() > 0 for module in model if hasattr(module, "weight"))
