"""PDPGD and PDGD against the nearest adversarial point in closed form.

The factors: a first-order attack of a few hundred steps ends at its last step size (a thousandth of the box) beyond the
boundary, which the allowed excess covers; it can never be below the optimum, which is checked to rounding.
"""

from __future__ import annotations

import pytest
import torch
from oracles import row_norm

from pyrobust.attacks import pdgd, pdpgd
from pyrobust.attacks._runs import CLOSING_L2, Schedule, plan, refinement

from . import models
from .models import ROUNDING

ATTACKS = [(pdpgd, norm) for norm in models.NORMS] + [(pdgd, "l2")]
EXCESS = {"linf": 1.01, "l2": 1.02, "l1": 1.02, "l0": 1.0}


def ids(case):
    return f"{case[0].__name__}-{case[1]}"


def assert_nearest(adv, inputs, labels, model, norm, optimum, channels=1):
    with torch.no_grad():
        fooled = model(adv).argmax(1) != labels
    assert fooled.all()
    assert adv.min() >= 0
    assert adv.max() <= 1
    found = row_norm(adv - inputs, norm, channels)
    assert (found >= optimum * (1 - ROUNDING) - ROUNDING).all(), "nearer than the nearest point: the oracle is wrong"
    assert found.mean() <= EXCESS[norm] * optimum.mean() + 1e-12


@pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])
@pytest.mark.parametrize("case", ATTACKS, ids=ids)
def test_two_class_linear_model(case, binding):
    attack, norm = case
    model, x, labels = models.two_sided(binding)
    options = {"grouping": "value"} if norm == "l0" else {}
    adv = attack(model, x, labels, norm=norm, steps=300, **options)
    assert_nearest(adv, x, labels, model, norm, model.nearest(x, labels, norm, (0.0, 1.0))[0])


@pytest.mark.parametrize("case", ATTACKS, ids=ids)
def test_many_class_linear_model(case):
    attack, norm = case
    model, x = models.linear(7), models.inputs()
    labels = model(x).argmax(1)
    channels = 3 if norm == "l0" else 1
    adv = attack(model, x, labels, norm=norm, steps=500)
    assert_nearest(adv, x, labels, model, norm, model.nearest(x, labels, norm, (0.0, 1.0), channels)[0], channels)


@pytest.mark.parametrize("case", [(pdpgd, "linf"), (pdpgd, "l2"), (pdpgd, "l1"), (pdgd, "l2")], ids=ids)
@pytest.mark.parametrize("make", [models.union, models.intersection])
def test_piecewise_linear_model(case, make):
    attack, norm = case
    model, x = make()
    labels = torch.zeros(len(x), dtype=torch.int64)
    adv = attack(model, x, labels, norm=norm, steps=500)
    found, optimum = row_norm(adv - x, norm), model.nearest(x, norm, (0.0, 1.0))[0]
    assert (model(adv).argmax(1) == 1).all()
    # Gradients see one piece at a time: other pieces of a union may stay unseen, and the steps of an intersection
    # alternate.
    assert (found >= optimum * (1 - ROUNDING) - ROUNDING).all()
    assert found.median() <= 1.1 * optimum.median()


@pytest.mark.parametrize("case", ATTACKS, ids=ids)
def test_targets_are_reached_at_the_nearest_point(case):
    attack, norm = case
    model, x, labels = models.two_sided(False)
    targets = 1 - labels
    channels = 3 if norm == "l0" else 1
    adv = attack(model, x, targets, norm=norm, steps=300, targeted=True)
    assert (model(adv).argmax(1) == targets).all()
    optimum = model.nearest_target(x, targets, norm, (0.0, 1.0), channels)[0]
    assert row_norm(adv - x, norm, channels).mean() <= EXCESS[norm] * optimum.mean() + 1e-12


@pytest.mark.parametrize("case", ATTACKS, ids=ids)
def test_float64_and_other_bounds(case):
    attack, norm = case
    model = models.linear(4, dtype=torch.float64)
    x = models.inputs(dtype=torch.float64)
    labels = model(x).argmax(1)
    plain = attack(model, x, labels, norm=norm, steps=100)
    shifted = attack(lambda z: model((z + 1) / 8), 8 * x - 1, labels, norm=norm, steps=100, bounds=(-1.0, 7.0))
    assert plain.dtype == torch.float64
    # The attack works in units of the box, so both runs are the same but for rounding.
    torch.testing.assert_close((shifted + 1) / 8, plain, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-2, 1e2])
@pytest.mark.parametrize("case", ATTACKS, ids=ids)
def test_the_scale_of_the_logits_does_not_matter(case, scale):
    attack, norm = case
    model = models.linear(4, dtype=torch.float64)
    x = models.inputs(dtype=torch.float64)
    labels = model(x).argmax(1)
    plain = attack(model, x, labels, norm=norm, steps=100)
    scaled = attack(lambda z: scale * model(z), x, labels, norm=norm, steps=100)
    torch.testing.assert_close(scaled, plain, rtol=0, atol=1e-9)


def test_pixels_and_values_are_different_goals():
    model, x, labels = models.two_sided(False)
    model.bias[0] += 6.0  # far from the boundary: several pixels have to change
    labels = torch.zeros_like(labels)
    by_pixel = pdpgd(model, x, labels, norm="l0", steps=200)
    by_value = pdpgd(model, x, labels, norm="l0", steps=200, grouping="value")
    assert row_norm(by_pixel - x, "l0", 3).mean() < row_norm(by_value - x, "l0", 3).mean()
    assert row_norm(by_value - x, "l0").mean() < row_norm(by_pixel - x, "l0").mean()


def test_restarts_never_hurt_and_are_keyed_by_sample():
    model, x = models.union()
    labels = torch.zeros(len(x), dtype=torch.int64)  # a later start may meet a nearer half-space of the union
    # PDGD: runs of PDPGD that close in end at the same point from every start.
    once = row_norm(pdgd(model, x, labels, steps=60) - x, "l2")
    more = pdgd(model, x, labels, steps=60, restarts=3, seed=1)
    assert (row_norm(more - x, "l2") <= once).all()
    assert (row_norm(more - x, "l2") < once).any()
    other = pdgd(model, x, labels, steps=60, restarts=3, seed=2)
    assert not torch.equal(more, other)
    again = pdgd(model, x, labels, steps=60, restarts=3, seed=1)
    assert torch.equal(more, again)
    moved = pdgd(model, x, labels, steps=60, restarts=3, seed=1, sample_ids=torch.arange(100, 100 + len(x)))
    assert not torch.equal(more, moved)


def misleading(x):
    """Logits whose gradient at 0.5 points along one value to a boundary at 0.4, past one at 0.1 along another."""
    far, near = (x.flatten(1)[:, :2] - 0.5).unbind(1)
    return torch.stack([torch.zeros(len(x)), torch.maximum(2.5 * far - 1, 20 * near - 2)], 1)


@pytest.mark.parametrize(
    ("attack", "norm"),
    [case for case in ATTACKS if case[1] != "l0"],
    ids=["pdpgd-linf", "pdpgd-l2", "pdpgd-l1", "pdgd-l2"],
)
def test_noise_finds_what_the_gradient_at_the_input_hides(attack, norm):
    x, labels = torch.full((9, 1, 2, 2), 0.5), torch.zeros(9, dtype=torch.int64)
    one_run = row_norm(attack(misleading, x, labels, norm=norm, steps=60) - x, norm)
    torch.testing.assert_close(one_run, torch.full_like(one_run, 0.4), rtol=0.02, atol=0)
    several = row_norm(attack(misleading, x, labels, norm=norm, steps=300, restarts=4) - x, norm)
    assert (several >= 0.1 - ROUNDING).all()
    assert several.median() < 0.12


EACH_STEPS = pytest.mark.parametrize("steps", [1, 2, 39, 40, 119, 200, 240, 399, 400, 500, 749, 750, 1000, 4321])
EACH_CLASSES = pytest.mark.parametrize("classes", [1, 2, 9, 999])


@EACH_STEPS
@EACH_CLASSES
@pytest.mark.parametrize("refine_share", [0.0, 0.5])
def test_a_plan_that_explores_spends_its_steps(steps, classes, refine_share):
    schedule = Schedule(step_size=(0.1, 0.001), ratio=0.01, refine_share=refine_share)
    runs = plan(steps, schedule, classes)
    assert sum(run.steps for run in runs) == steps
    assert all(run.steps > 0 and not run.closing for run in runs)
    ranks = [run.rank for run in runs if run.rank is not None]
    assert ranks == sorted(set(ranks))
    assert all(rank < classes for rank in ranks)
    explores = steps >= 200
    assert [run.start for run in runs].count("noise") == explores
    assert (len(runs) == 1) == (not explores)
    if steps >= 1000:
        assert (runs[-1].start == "best") == (refine_share > 0)


@EACH_STEPS
@EACH_CLASSES
@pytest.mark.parametrize("refine_share", [0.0, 0.5])
@pytest.mark.parametrize("shortest", [25, 40])
def test_a_plan_that_closes_in_spends_its_steps(steps, classes, refine_share, shortest):
    options = {"closing": CLOSING_L2, "refine_share": refine_share, "shortest": shortest}
    schedule = Schedule(step_size=(0.1, 0.001), ratio=0.01, **options)
    runs = plan(steps, schedule, classes)
    assert sum(run.steps for run in runs) == steps
    assert all(run.steps > 0 for run in runs)
    starts = [run.start for run in runs]
    assert [run.rank for run in runs if run.start == "input"] == list(range(min(classes, 1 + (steps >= 750))))
    places = [run.place for run in runs if run.start == "place"]
    assert places == list(range(3 if steps >= 750 else 2 if steps >= 400 else 0))
    noise = [run.mix for run in runs if run.start == "mixed"]
    assert all(0 < mix < 1 for mix in noise)
    assert len(noise) + starts.count("input") >= len(places)
    assert min((run.steps for run in runs if run.start == "mixed"), default=shortest) >= shortest
    assert (starts == ["input", "own"][:steps]) == (not noise)
    for before, run in zip([None, *runs], runs, strict=False):
        # A run from the input is no closing one, nor is what follows a run that has closed in on the nearest place.
        assert (run.closing is not None) == (run.start != "input" and (run.start != "own" or before.start == "input"))
    if noise:
        last = len(runs) - 1 - starts[::-1].index("best")
        assert runs[last:] == refinement(sum(run.steps for run in runs[last:]), schedule)


def test_a_refinement_closes_in_then_descends():
    plain = Schedule(step_size=(0.1, 0.001), ratio=0.01)
    assert [(run.steps, run.closing) for run in refinement(100, plain)] == [(100, None)]
    closing = Schedule(step_size=(0.1, 0.001), ratio=0.01, closing=CLOSING_L2)
    assert [(run.steps, run.closing) for run in refinement(100, closing)] == [(50, CLOSING_L2), (50, None)]
    assert [(run.steps, run.closing) for run in refinement(60, closing)] == [(60, CLOSING_L2)]


def test_any_penalty_with_a_prox():
    from pyrobust import ops

    model, x, labels = models.two_sided(False)
    pair = (lambda r: ops.lp_norm(r, 1), ops.prox_l1)
    optimum = model.nearest(x, labels, "l1", (0.0, 1.0))[0]
    adv = pdpgd(model, x, labels, penalty=pair, steps=500)
    assert (model(adv).argmax(1) != labels).all()
    assert row_norm(adv - x, "l1").mean() <= 1.1 * optimum.mean()
    both = [(1.0, lambda r: ops.lp_norm(r, 2), ops.prox_l2), (0.1, *pair)]
    mixed = pdpgd(model, x, labels, penalty=both, steps=500)
    assert (model(mixed).argmax(1) != labels).all()

    def value(adv):
        return (row_norm(adv - x, "l2") + 0.1 * row_norm(adv - x, "l1")).mean()

    assert value(mixed) <= value(adv)
    assert value(mixed) <= value(pdgd(model, x, labels, steps=500)) * 1.02


@pytest.mark.parametrize("case", ATTACKS, ids=ids)
def test_the_thesis_preset(case):
    attack, norm = case
    model, x, labels = models.two_sided(False)
    channels = 3 if norm == "l0" else 1
    with pytest.raises(ValueError, match="tuning"):
        attack(model, x, labels, norm=norm, preset="thesis")
    adv = attack(model, x, labels, norm=norm, steps=200, preset="thesis", tuning=(x[:4], labels[:4]))
    assert (model(adv).argmax(1) != labels).all()
    optimum = model.nearest(x, labels, norm, (0.0, 1.0), channels)[0]
    assert row_norm(adv - x, norm, channels).mean() <= 2 * optimum.mean()
    assert not torch.equal(adv, attack(model, x, labels, norm=norm, steps=200))


def test_a_callback_sees_every_step_and_can_stop():
    model, x, labels = models.two_sided(False)
    seen = []

    def watch(step, state):
        seen.append(state.best_distance.isfinite().double().mean().item())
        return len(seen) == 30

    adv = pdpgd(model, x, labels, norm="l2", steps=40, callback=watch)
    assert len(seen) == 30
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert (model(adv).argmax(1) != labels).all()


def test_step_size_changes_the_result():
    model, x, labels = models.two_sided(False)
    for attack in (pdpgd, pdgd):
        plain = attack(model, x, labels, norm="l2", steps=20)
        assert not torch.equal(plain, attack(model, x, labels, norm="l2", steps=20, step_size=0.01))


@pytest.mark.parametrize("case", ATTACKS, ids=ids)
def test_starts_are_refined(case):
    attack, norm = case
    model, x, labels = models.two_sided(False)
    far = (x + 0.4 * (model.weight[1 - labels] - model.weight[labels]).sign().reshape(x.shape)).clamp(0, 1)
    assert (model(far).argmax(1) != labels).all()
    adv = attack(model, x, labels, norm=norm, steps=100, starts=far)
    channels = 3 if norm == "l0" else 1
    optimum = model.nearest(x, labels, norm, (0.0, 1.0), channels)[0]
    # A tenth for a hundred steps; for l0 the start has every value changed, of which a pixel in three stays.
    assert (model(adv).argmax(1) != labels).all()
    assert row_norm(adv - x, norm, channels).mean() <= (1.1 if norm != "l0" else 6) * optimum.mean()
    assert not torch.equal(adv, attack(model, x, labels, norm=norm, steps=100))
    one = attack(
        model, x, labels, norm=norm, steps=1, starts=far
    )  # which is judged too, and never replaces a nearer point
    assert (model(one).argmax(1) != labels).all()
    before, after = row_norm(far - x, norm, channels), row_norm(one - x, norm, channels)
    assert (after <= before).all()
    assert (after < before).any() == (norm != "l0")
    with pytest.raises(ValueError, match="starts: expected"):
        attack(model, x, labels, norm=norm, starts=far[:2])
    with pytest.raises(ValueError, match="starts: expected values inside bounds"):
        attack(model, x, labels, norm=norm, starts=far + 1)
    assert torch.equal(one, attack(model, x, labels, norm=norm, steps=1, starts=far.clone().requires_grad_()))
    edge = torch.full_like(far, 0.6)  # 0.6 is no float32: that beside it is as good as at the bound
    attack(model, x, labels, norm=norm, steps=1, bounds=(0.0, 0.6), starts=edge)


@pytest.mark.parametrize("attack", [pdgd, pdpgd])
@pytest.mark.parametrize("step_size", [0, -1.0, float("inf"), "a"])
def test_a_bad_step_size_is_named(attack, step_size):
    model, x, labels = models.two_sided(False)
    with pytest.raises(ValueError, match="step_size: expected a finite number > 0"):
        attack(model, x, labels, norm="l2", step_size=step_size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l3"}, "norm"),
        ({"norm": "l2", "grouping": "pixel"}, "grouping"),
        ({"norm": "l0", "grouping": "colour"}, "grouping"),
        ({"steps": 0}, "steps"),
        ({"restarts": 0}, "restarts"),
        ({"step_size": -1.0}, "step_size"),
        ({"preset": "best"}, "preset"),
        ({"tuning": (None, None)}, "tuning"),
        ({"penalty": (1, 2), "norm": "l2"}, "penalty"),
        ({"penalty": [(0.0, abs, abs)]}, "penalty"),
        ({"penalty": [abs]}, "penalty"),
        (
            {"penalty": (lambda r: r.norm(), lambda r, w: r)},
            r"penalty: expected one value a sample, shape \(24,\), got \(\)",
        ),
        ({"preset": "thesis", "tuning": models.inputs()}, "tuning: .* needs"),
    ],
)
def test_bad_options_are_named(options, message):
    model, x, labels = models.two_sided(False)
    with pytest.raises(ValueError, match=message):
        pdpgd(model, x, labels, **options)
