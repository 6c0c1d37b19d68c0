"""minimum_norm, and the forward-only polish at its end, against nearest points in closed form."""

from __future__ import annotations

import pytest
import torch
from oracles import row_norm

from pyrobust.attacks import minimum_norm
from pyrobust.attacks._common import FORWARDS
from pyrobust.attacks._polish import bisect_to_boundary, drop_groups
from pyrobust.attacks._pruning import rounds_within
from pyrobust.attacks._runner import Runner
from pyrobust.attacks._search import Nearest
from pyrobust.attacks._stages import Stage, plan

from . import models
from .models import ROUNDING

# The last step of the primal-dual stage is a thousandth of the box (see test_minimum_norm.py); l0 is a count.
EXCESS = {"linf": 1.01, "l2": 1.01, "l1": 1.02, "l0": 1.0}
each_norm = pytest.mark.parametrize("norm", models.NORMS)


@each_norm
@pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])
def test_two_class_linear_model(norm, binding):
    model, x, labels = models.two_sided(binding)
    options = {"grouping": "value"} if norm == "l0" else {}
    found = minimum_norm(model, x, labels, norm=norm, budget=500, return_info=True, **options)
    optimum = model.nearest(x, labels, norm, (0.0, 1.0))[0]
    assert (model(found.adv).argmax(1) != labels).all()
    assert found.adv.min() >= 0
    assert found.adv.max() <= 1
    assert (found.norms >= optimum * (1 - ROUNDING) - ROUNDING).all()
    assert found.norms.mean() <= EXCESS[norm] * optimum.mean()


@each_norm
def test_many_class_linear_model(norm):
    model, x = models.linear(7), models.inputs()
    labels = model(x).argmax(1)
    channels = 3 if norm == "l0" else 1
    adv = minimum_norm(model, x, labels, norm=norm, budget=500)
    optimum = model.nearest(x, labels, norm, (0.0, 1.0), channels)[0]
    assert (model(adv).argmax(1) != labels).all()
    assert row_norm(adv - x, norm, channels).mean() <= EXCESS[norm] * optimum.mean()


@each_norm
def test_what_it_tells_is_what_it_did(norm):
    model, x = models.linear(4), models.inputs()
    labels = model(x).argmax(1)
    labels[0] = (labels[0] + 1) % 4
    calls = {"forwards": 0, "gradients": 0}

    def counted(z):
        calls["forwards"] += 1
        logits = model(z)
        if logits.requires_grad:
            logits.register_hook(lambda _: calls.update(gradients=calls["gradients"] + 1))
        return logits

    found = minimum_norm(counted, x, labels, norm=norm, budget=300, return_info=True)
    assert torch.equal(found.adv, minimum_norm(model, x, labels, norm=norm, budget=300))
    assert calls == {"forwards": found.forwards, "gradients": found.gradients}
    # The runs of the primal-dual attack but its first begin with a forward pass that has no backward pass, and in l0 what
    # prunes spends most of its share on forward passes.
    if norm == "l0":
        pruned = [stage.refine for stage in plan("l0", 300, 3, several=True) if stage.name == "prune"]
        assert found.gradients == 300 - sum(pruned) + sum(rounds_within(share) for share in pruned)
        assert found.forwards >= 32 * sum(rounds_within(share) for share in pruned) + found.gradients
    else:
        assert 260 <= found.gradients <= 300
    norms = row_norm(found.adv - x, norm, 3 if norm == "l0" else 1)
    torch.testing.assert_close(found.norms, norms, rtol=1e-6, atol=0)
    assert found.norms[0] == 0
    assert torch.equal(found.adv[0], x[0])
    assert found.stage[0] == -1
    assert (found.stage[1:] >= 0).all()
    assert (found.stage < len(found.stages)).all()
    assert found.stages[-1] == "polish"
    assert (found.agreeing >= 0).all()
    assert (found.agreeing < len(found.stages)).all()
    assert torch.equal(found.converged[1:], found.agreeing[1:] >= 6)
    assert found.converged[0]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_every_start_is_gone_on_from(norm):
    model, x = models.linear(4), models.inputs()
    labels = model(x).argmax(1)
    found = minimum_norm(model, x, labels, norm=norm, budget=1000, return_info=True)
    exchanged = sum(stage.refine for stage in plan(norm, 1000, 3) if stage.name == "exchange")
    assert (exchanged > 0) == (norm == "l1")
    # What is left: a gradient at most for each of up to two runs in each attack after its first.
    assert 1000 - exchanged - 2 * len(found.stages) <= found.gradients <= 1000 - exchanged
    assert found.forwards >= found.gradients + FORWARDS * exchanged


def test_starts_agree_on_a_linear_model():
    model, x, labels = models.two_sided(False)
    for norm in ("linf", "l2", "l1"):  # one boundary, so every start leads to the same norm
        found = minimum_norm(model, x, labels, norm=norm, budget=1000, return_info=True)
        assert found.converged.all()
        few = minimum_norm(model, x, labels, norm=norm, budget=100, return_info=True)
        assert not few.converged.any()


def test_between_is_halfway_with_a_share_of_noise_keyed_by_sample():
    x, low, high = torch.zeros(4, 3, 16, 16), -1.0, 3.0
    one, other, ids = torch.full_like(x, 0.5), torch.ones_like(x), torch.tensor([5, 6, 5, 7])
    runner = Runner(
        models.linear(4), x, torch.zeros(4, dtype=torch.int64), "l2", "value", False, (low, high), 0, ids, ids
    )
    start, again = (runner._between(Stage("between", 0, 5, draw=draw, mix=0.1), one, other) for draw in (1, 2))
    noise = start != 0.75
    share = noise.float().flatten(1).mean(1)  # of 768 coins: a deviation of 0.011
    assert ((share - 0.1).abs() < 0.055).all()
    drawn = start[noise]
    assert low <= drawn.min() < low + 0.4
    assert high - 0.4 < drawn.max() <= high
    assert drawn.mean().item() == pytest.approx(1.0, abs=0.4)  # of some 300, uniform: a deviation of 0.07
    assert torch.equal(start[0], start[2])
    assert not torch.equal(start[0], start[1])
    assert not torch.equal(start, again)


def test_nothing_found_is_told():
    x = models.inputs()
    labels = torch.zeros(len(x), dtype=torch.int64)
    never = lambda z: torch.stack([z.flatten(1).sum(1) * 0 + 1, z.flatten(1).sum(1) * 0], 1)  # noqa: E731
    found = minimum_norm(never, x, labels, budget=20, return_info=True)
    assert torch.equal(found.adv, x)
    assert found.norms.isinf().all()
    assert (found.stage == -1).all()
    assert not found.converged.any()
    assert (found.agreeing == 0).all()


@each_norm
def test_targets_are_reached(norm):
    model, x, labels = models.two_sided(False)
    adv = minimum_norm(model, x, 1 - labels, norm=norm, budget=300, targeted=True)
    assert (model(adv).argmax(1) == 1 - labels).all()
    optimum = model.nearest_target(x, 1 - labels, norm, (0.0, 1.0), 3 if norm == "l0" else 1)[0]
    assert row_norm(adv - x, norm, 3 if norm == "l0" else 1).mean() <= 1.02 * optimum.mean()


@each_norm
@pytest.mark.parametrize("classes", [1, 9])
@pytest.mark.parametrize("budget", [1, 7, 60, 100, 250, 500, 749, 750, 999, 1000, 2500, 12_000])
@pytest.mark.parametrize("several", [False, True])
def test_a_plan_spends_its_budget(norm, budget, classes, several):
    stages = plan(norm, budget, classes, several=several)
    assert stages[0].is_start
    assert all(stage.cost > 0 for stage in stages)
    assert budget - max(stage.restarts for stage in stages) < sum(stage.cost for stage in stages) <= budget
    for number, stage in enumerate(stages):
        points = sum(earlier.adds for earlier in stages[:number])
        assert stage.rank < (classes if stage.is_start else points)
        assert stage.mix > 0 or stage.name != "noise"
    draws = [stage.draw for stage in stages if stage.mix]
    for stage in stages:
        if stage.name == "exchange":
            draws += range(stage.draw, stage.draw + FORWARDS * stage.refine)
    assert len(set(draws)) == len(draws), "two stages have the same random numbers"


@each_norm
@pytest.mark.parametrize("budget", [450, 750, 1000, 2000])
def test_what_is_reserved_changes_no_plan(norm, budget):
    whole, less = plan(norm, budget, 9), plan(norm, budget, 9, reserved=1)
    assert [stage.name for stage in less] == [stage.name for stage in whole]
    assert sum(stage.cost for stage in less) < budget


@each_norm
def test_further_thousands_start_elsewhere(norm):
    one, three = plan(norm, 1000, 9), plan(norm, 3000, 9)
    ranks = [] if norm == "l0" else [1, 2, 3]
    assert [stage.rank for stage in one if stage.name == "towards"] == ranks[:1]
    assert [stage.rank for stage in three if stage.name == "towards"] == ranks
    assert sum(stage.mix > 0 for stage in three) > 3 * sum(stage.mix > 0 for stage in one)
    for thousands, stages in ((1, one), (3, three)):
        last = [stage for stage in stages if not stage.is_start]
        assert stages[-len(last) :] == last
        places = {"l0": 2, "l2": 3}.get(norm, 4) * thousands
        between = {"l2": 24, "l1": 9}.get(norm, 0) * thousands
        nearer = (["exchange"] * places if norm == "l1" else []) + ["again"] * places
        then = ["prune"] * places if norm == "l0" else ["between"] * between + nearer + ["refine"]
        assert [stage.name for stage in last] == then
        for name in ("exchange", "again", "prune"):
            assert [stage.rank for stage in last if stage.name == name] == list(range(then.count(name)))
        assert {stage.rank for stage in last if stage.name == "between"} == ({1, 2, 3} if between else set())
    if norm == "l0":
        assert [stage.cost for stage in last] == pytest.approx([one[-1].cost] * places, abs=1)
    else:
        assert three[-1].cost == pytest.approx(3 * one[-1].cost, abs=9)
    assert {stage.norm for stage in three if stage.is_start} == {"l1" if norm == "l0" else None}
    if norm == "l0":
        colour = plan(norm, 3000, 9, several=True)
        assert [(stage.name, stage.restarts) for stage in colour[:2]] == [("pdpgd", 3), ("sigma_zero", 3)]
        assert {stage.name for stage in colour[2:]} == {"prune"}


def test_small_budgets_go_to_a_few_attacks():
    for budget in range(1, 160):
        for classes in (1, 9):
            costs = {stage.name: stage.cost for stage in plan("l2", budget, classes, reserved=int(budget > 1))}
            assert ("superdeepfool" in costs) == (classes > 1 and 15 <= budget < 150)
            assert costs.get("superdeepfool", 0) % 2 == 0, "two classes a step"
            assert next(iter(costs)) == ("fmn" if budget < 40 else "ddn" if budget < 150 else "pdgd")
    for norm, last in (("linf", 149), ("l1", 29)):
        names = ["fmn", "refine"] if norm == "linf" else ["fmn"]
        assert [stage.name for stage in plan(norm, last, 9)] == names
        assert [stage.name for stage in plan(norm, last + 1, 9)] == ["pdpgd"]
    for budget, names in ((99, ["pdpgd"]), (100, ["pdpgd", "prune"]), (449, ["pdpgd", "prune"])):
        assert [stage.name for stage in plan("l0", budget, 9, several=True)] == names


@pytest.mark.parametrize("budget", [*range(1, 17), 50, 100, 149])
def test_small_budgets_are_kept_and_bounds_are_a_unit(budget):
    model, x = models.linear(7, reach=1.0).double(), models.inputs(dtype=torch.float64)
    labels = model(x).argmax(1)
    found = minimum_norm(model, x, labels, budget=budget, return_info=True)
    assert found.gradients <= budget
    assert ("superdeepfool" in found.stages) == (budget >= 15)
    assert (model(found.adv).argmax(1) != labels)[found.norms.isfinite()].all()
    if budget >= 50:
        assert found.norms.mean() <= 1.01 * model.nearest(x, labels, "l2", (0.0, 1.0))[0].mean()
    # On a linear model the first step of fmn ends on the boundary itself, on the side that rounding decides: few steps are the
    # same in another box only where that rounds alike.
    for shift in (0.0, 1.0) if budget >= 10 else (0.0,):
        wide = {"budget": budget, "bounds": (-shift, 4 - shift), "return_info": True}
        wider = minimum_norm(lambda z, shift=shift: model((z + shift) / 4), 4 * x - shift, labels, **wide)
        torch.testing.assert_close(wider.norms, 4 * found.norms, rtol=1e-3, atol=0)


def test_more_budget_and_another_seed_change_the_result():
    model, x = models.union()
    labels = torch.zeros(len(x), dtype=torch.int64)
    little, much = (row_norm(minimum_norm(model, x, labels, budget=b) - x, "l2").mean() for b in (20, 400))
    assert much < little
    options = {"budget": 2000, "norm": "l1"}  # from two thousand on there are random starts
    one = minimum_norm(model, x, labels, seed=1, **options)
    assert not torch.equal(one, minimum_norm(model, x, labels, seed=2, **options))
    ids = torch.arange(100, 100 + len(x))
    assert not torch.equal(one, minimum_norm(model, x, labels, seed=1, sample_ids=ids, **options))


def test_a_callback_sees_every_stage_and_can_stop():
    model, x, labels = models.two_sided(False)
    seen = []

    def watch(stage, state):
        seen.append((stage, state.best_distance.mean().item()))
        return stage == 1

    adv = minimum_norm(model, x, labels, budget=500, callback=watch)
    assert [stage for stage, _ in seen] == [0, 1]
    assert row_norm(adv - x, "l2").mean().item() == pytest.approx(seen[1][1], rel=1e-6)


def test_pixels_and_values_are_different_goals():
    model, x, _ = models.two_sided(False)
    model.bias[0] += 6.0
    labels = torch.zeros(len(x), dtype=torch.int64)
    by_pixel = minimum_norm(model, x, labels, norm="l0", budget=200)
    by_value = minimum_norm(model, x, labels, norm="l0", budget=200, grouping="value")
    assert row_norm(by_pixel - x, "l0", 3).mean() < row_norm(by_value - x, "l0", 3).mean()
    assert row_norm(by_value - x, "l0").mean() < row_norm(by_pixel - x, "l0").mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget"),
        ({"budget": 10.0}, "budget"),
        ({"norm": "l3"}, "norm"),
        ({"norm": "l2", "grouping": "pixel"}, "grouping"),
        ({"norm": "l0", "grouping": "colour"}, "grouping"),
    ],
)
def test_bad_options_are_named(options, message):
    model, x, labels = models.two_sided(False)
    with pytest.raises(ValueError, match=message):
        minimum_norm(model, x, labels, **options)


def test_bisection_ends_at_the_boundary():
    model, x, labels = models.two_sided(False)
    toward = (model.weight[1 - labels] - model.weight[labels]).sign().reshape(x.shape)
    far = (x + 0.4 * toward).clamp(0, 1)
    nearest = found_at(far, x, "l2")
    bisect_to_boundary(model, x, labels, nearest, "l2", 10)
    near = nearest.adv
    assert (model(near).argmax(1) != labels).all()
    moved = far - x
    share = (near - x).flatten(1).norm(dim=1) / moved.flatten(1).norm(dim=1)
    inside = x + rows(share - 2 * 2.0**-10, x) * moved  # two thousandths nearer is not adversarial any more
    assert (model(inside).argmax(1) == labels).all()


def found_at(adv, x, norm):
    nearest = Nearest(x, torch.zeros(len(x), dtype=torch.bool))
    everywhere = torch.ones(len(x), dtype=torch.bool)
    nearest.offer(adv, row_norm(adv - x, norm, 3 if norm == "l0" else 1), everywhere)
    return nearest


def rows(values, x):
    return values.reshape(-1, *[1] * (x.ndim - 1))


def test_dropping_pixels_undoes_what_is_not_needed():
    model, x, labels = models.two_sided(False)
    optimum, shift = model.nearest(x, labels, "l0", (0.0, 1.0), 3)
    toward = (model.weight[1 - labels] - model.weight[labels]).sign().reshape(x.shape)
    far = (x + 0.4 * toward).clamp(0, 1)  # every pixel
    assert (row_norm(far - x, "l0", 3) == 16).all()
    nearest = found_at(far, x, "l0")
    drop_groups(model, x, labels, nearest, "pixel", (0.0, 1.0))
    near = nearest.adv
    assert (model(near).argmax(1) != labels).all()
    found = row_norm(near - x, "l0", 3)
    assert (found >= optimum).all()
    # One pixel more than is needed could still go, unless another has been undone for it: none is left to undo.
    drop_groups(model, x, labels, nearest, "pixel", (0.0, 1.0))
    assert torch.equal(row_norm(nearest.adv - x, "l0", 3), found)
    assert (found < 16).all()
    assert shift.isfinite().all()
