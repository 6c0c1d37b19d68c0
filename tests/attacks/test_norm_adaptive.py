"""DDN and FMN against the nearest adversarial point in closed form, and against adv-lib step for step.

The factors: on a linear model the direction settles, and the radius then moves by a factor 1 + γ a step, so the nearest
point seen is within 1 + γ of the nearest point: γ = 0.05 throughout in DDN, falling to 0.001 in FMN (whose last fifth,
with γ < 0.006, is given the bound). l0 counts, so it is exact.
"""

from __future__ import annotations

import copy
import importlib
import math

import pytest
import torch
from oracles import row_norm
from torch import nn

from bench.peers import adv_lib
from pyrobust import data
from pyrobust.attacks import ddn, fmn
from pyrobust.models import fit, small_cnn

from . import models
from .models import ROUNDING

CASES = [(ddn, "l2"), *((fmn, norm) for norm in models.NORMS)]
FACTOR = {ddn: 1.05, fmn: 1.006}


@pytest.fixture(scope="module")
def trained():
    """A small trained network, and digits that it gets right."""
    digits = data.digits()
    model = fit(small_cnn(0), *(part[:400] for part in digits.train), epochs=6)
    x, labels = (part[:60] for part in digits.test)
    right = model(x).argmax(1) == labels
    return model, x[right], labels[right]


def ids(case):
    return f"{case[0].__name__}-{case[1]}"


every_case = pytest.mark.parametrize("case", CASES, ids=ids)


def call(case, *arguments, by_pixel=False, **options):
    attack, norm = case
    if attack is fmn:
        options |= {"norm": norm, "grouping": ("pixel" if by_pixel else "value") if norm == "l0" else None}
    return attack(*arguments, **options)


def assert_near(adv, x, norm, optimum, factor, channels=1):
    assert adv.min() >= 0
    assert adv.max() <= 1
    found = row_norm(adv - x, norm, channels)
    assert (found >= optimum * (1 - ROUNDING) - ROUNDING).all(), "nearer than the nearest point: the oracle is wrong"
    assert (found <= (1 if norm == "l0" else factor) * optimum + ROUNDING).all()


@pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])
@every_case
def test_two_class_linear_model(case, binding):
    attack, norm = case
    model, x, labels = models.two_sided(binding)
    adv = call(case, model, x, labels, steps=300)
    assert (model(adv).argmax(1) != labels).all()
    assert_near(adv, x, norm, model.nearest(x, labels, norm, (0.0, 1.0))[0], FACTOR[attack])


@every_case
def test_targets_are_reached_at_the_nearest_point(case):
    attack, norm = case
    model, x, labels = models.two_sided(False)
    adv = call(case, model, x, 1 - labels, steps=300, targeted=True, by_pixel=True)
    assert (model(adv).argmax(1) == 1 - labels).all()
    optimum = model.nearest_target(x, 1 - labels, norm, (0.0, 1.0), 3)[0]
    assert_near(adv, x, norm, optimum, FACTOR[attack], 3 if norm == "l0" else 1)


@every_case
def test_many_class_linear_model(case):
    attack, norm = case
    model, x = models.linear(7), models.inputs()
    labels = model(x).argmax(1)
    adv = call(case, model, x, labels, steps=300)
    optimum = model.nearest(x, labels, norm, (0.0, 1.0))[0]
    assert (model(adv).argmax(1) != labels).all()
    # DDN's cross-entropy pushes towards all classes at once: at the worst the two nearest boundaries, at right angles
    # and equally far, for √2. FMN follows the runner-up, which is the nearest boundary for all but a few samples.
    found = row_norm(adv - x, norm)
    assert (found >= optimum * (1 - ROUNDING) - ROUNDING).all()
    assert found.mean() <= {ddn: math.sqrt(2), fmn: 1.05}[attack] * optimum.mean()


@pytest.mark.parametrize("case", [case for case in CASES if case[1] != "l0"], ids=ids)
@pytest.mark.parametrize("make", [models.union, models.intersection])
def test_piecewise_linear_model(case, make):
    attack, norm = case
    model, x = make()
    labels = torch.zeros(len(x), dtype=torch.int64)
    adv = call(case, model, x, labels, steps=300)
    optimum = model.nearest(x, norm, (0.0, 1.0))[0]
    assert (model(adv).argmax(1) == 1).all()
    assert (row_norm(adv - x, norm) >= optimum * (1 - ROUNDING) - ROUNDING).all()
    # Gradients see one piece at a time: other pieces of a union stay unseen, steps of an intersection alternate.
    assert row_norm(adv - x, norm).mean() <= 1.1 * optimum.mean()


class Curved(nn.Module):
    """A two-class linear model whose clean class also loses 2 ‖x − ½‖²: FMN's linear estimate of the distance overshoots,
    where on a linear model it ends on the boundary itself and rounding decides how many steps later that is crossed."""

    def __init__(self):
        super().__init__()
        self.linear = models.linear(2, dtype=torch.float64)

    def forward(self, x):
        logits = self.linear(x)
        bend = (x - 0.5).flatten(1).square().sum(1, keepdim=True)
        return logits - 2 * bend * nn.functional.one_hot(self.linear(X64).argmax(1), 2)


X64 = models.inputs(dtype=torch.float64)


@every_case
def test_float64_and_other_bounds(case):
    model, x = Curved(), X64
    labels = model.linear(x).argmax(1)
    plain = call(case, model, x, labels, steps=40)
    shifted = call(case, lambda z: model((z + 1) / 8), 8 * x - 1, labels, steps=40, bounds=(-1.0, 7.0))
    assert plain.dtype == torch.float64
    # Steps and radii are in units of the box, so both runs are the same but for rounding.
    torch.testing.assert_close((shifted + 1) / 8, plain, rtol=0, atol=1e-9)


@every_case
@pytest.mark.parametrize("scale", [1e-2, 1e3])
def test_the_scale_of_the_logits_does_not_matter(case, scale):
    """Not even where softmax rounds to 0 and 1, and the gradient of the cross-entropy to zero. With two classes, since
    the scale decides how cross-entropy weighs several."""
    model, x = Curved(), X64
    labels = model.linear(x).argmax(1)
    plain = call(case, model, x, labels, steps=40)
    torch.testing.assert_close(call(case, lambda z: scale * model(z), x, labels, steps=40), plain, rtol=0, atol=1e-9)


def peer(name):
    pytest.importorskip("adv_lib")
    module, why = adv_lib()
    if module is None:
        pytest.skip(why)
    return getattr(importlib.import_module("adv_lib.attacks"), name)


@pytest.mark.parametrize("targeted", [False, True])
def test_ddn_is_adv_libs(trained, targeted):
    theirs = peer("ddn")
    model, x, labels = copy.deepcopy(trained[0]).double(), trained[1].double(), trained[2]
    labels = (labels + 1) % 10 if targeted else labels
    expected = theirs(model, x, labels, targeted=targeted, steps=60, levels=None)
    # adv-lib keeps ε in float32: 60 roundings of 2⁻²⁴ of a radius below 2 are 7e-6. (Our start moves by 1e-12.)
    torch.testing.assert_close(ddn(model, x, labels, targeted=targeted, steps=60), expected, rtol=0, atol=7e-6)


def test_fmn_is_adv_libs_in_linf():
    theirs = peer("fmn")
    model, x = Curved(), X64
    labels = model.linear(x).argmax(1)
    adv = fmn(model, x, labels, norm="linf", steps=60)
    assert (model(adv).argmax(1) != labels).all()
    torch.testing.assert_close(adv, theirs(model, x, labels, norm=math.inf, steps=60), rtol=0, atol=1e-9)


def test_fmn_is_adv_libs_in_l0(trained):
    theirs = peer("fmn")
    model, x, labels = copy.deepcopy(trained[0]).double(), trained[1].double(), trained[2]
    adv = fmn(model, x, labels, norm="l0", grouping="value", steps=60)
    assert (model(adv).argmax(1) != labels).all()
    torch.testing.assert_close(adv, theirs(model, x, labels, norm=0, steps=60), rtol=0, atol=1e-9)


def test_fmn_comes_near_ddn_in_l2(trained):
    model, x, labels = trained
    one, other = (row_norm(attack(model, x, labels) - x, "l2") for attack in (fmn, ddn))
    # Both follow the gradient to the nearest boundary that they meet, DDN within γ = 0.05 of it. A projection that
    # ignores or inflates ε, as peers have it, gives twice the norm.
    assert one.mean() <= 1.05 * other.mean()


def test_a_start_without_gradient_is_left_in_a_direction_keyed_by_sample():
    flat = models.linear(2, dtype=torch.float64)
    flat.weight.zero_()
    flat.bias.copy_(torch.tensor([0.0, 1.0]))
    x = models.inputs(dtype=torch.float64)

    def model(z):  # class 0 within 0.2 of the inputs, where nothing has a gradient
        away = (z - x[: len(z)]).flatten(1).square().sum(1, keepdim=True).sub(0.04).clamp(min=0)
        return flat(z) * torch.tensor([0.0, 1.0]) - 0.5 * torch.tensor([0.0, 2.0]) + away * torch.tensor([-1.0, 1.0])

    labels = torch.zeros(len(x), dtype=torch.int64)
    adv = ddn(model, x, labels, steps=5)
    assert (row_norm(adv - x, "l2") > 0.2).all()
    assert not torch.equal(adv, ddn(model, x, labels, steps=5, seed=1))
    assert torch.equal(adv[:4], ddn(model, x[:4], labels[:4], steps=5))


@every_case
def test_restarts_never_hurt_and_are_keyed_by_sample(trained, case):
    attack, norm = case
    model, x = models.union()
    labels = torch.zeros(len(x), dtype=torch.int64)
    if norm == "l0":  # is at the optimum of the union from the first start on
        model, x, labels = trained
    together = model
    model = lambda z: torch.cat([together(row) for row in z.split(1)])  # noqa: E731  # no bit depends on other rows
    once = call(case, model, x, labels, steps=20)
    more = call(case, model, x, labels, steps=20, restarts=3, seed=1)
    found = model(once).argmax(1) != labels
    # The search compares float32 norms, each within a unit in the last place.
    assert (row_norm(more - x, norm) <= row_norm(once - x, norm) * (1 + 2.0**-22))[found].all()
    assert not torch.equal(more, once)
    assert not torch.equal(more, call(case, model, x, labels, steps=20, restarts=3, seed=2))
    order = torch.arange(len(x) - 1, -1, -1)
    turned = call(case, model, x[order], labels[order], steps=20, restarts=3, seed=1, sample_ids=order)
    assert torch.equal(turned[order], more)


@pytest.mark.parametrize("option", ["steps", "step_size", "gamma", "radius"])
@every_case
def test_every_option_changes_the_result(trained, case, option):
    if option == "radius" and case[0] is fmn:
        pytest.skip("FMN estimates its first radius")
    other = {"steps": 9, "step_size": 0.1, "gamma": 0.5, "radius": 0.1}[option]
    plain = call(case, *trained, steps=20)
    assert not torch.equal(plain, call(case, *trained, **{"steps": 20, option: other}))


def test_pixels_and_values_are_different_goals():
    model, x, labels = models.two_sided(False)
    model.bias[0] += 6.0  # far from the boundary: several pixels have to change
    labels = torch.zeros_like(labels)
    by_pixel = fmn(model, x, labels, norm="l0", steps=200)
    by_value = fmn(model, x, labels, norm="l0", steps=200, grouping="value")
    assert row_norm(by_pixel - x, "l0", 3).mean() < row_norm(by_value - x, "l0", 3).mean()
    assert row_norm(by_value - x, "l0").mean() < row_norm(by_pixel - x, "l0").mean()


@every_case
def test_callback_sees_each_step_and_stops(case):
    model, x, labels = models.two_sided(False)
    seen = []

    def callback(step, state):
        seen.append((step, state.best_distance.clone()))
        assert state.adv.shape == state.best.shape == x.shape
        return step == 1

    adv = call(case, model, x, labels, steps=40, callback=callback)
    assert [step for step, _ in seen] == [0, 1]
    reached = seen[-1][1].isfinite()
    torch.testing.assert_close(row_norm(adv - x, case[1])[reached].float(), seen[-1][1][reached])
    assert not torch.equal(adv, call(case, model, x, labels, steps=40))


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (ddn, {"step_size": 0}),
        (ddn, {"radius": -1.0}),
        (ddn, {"gamma": 1.0}),
        (ddn, {"restarts": 0}),
        (fmn, {"norm": 3}),
        (fmn, {"step_size": math.nan}),
        (fmn, {"gamma": 0.0}),
        (fmn, {"grouping": "pixel"}),
        (fmn, {"grouping": "rows", "norm": 0}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_bad_options_are_named(attack, options):
    model, x, labels = models.two_sided(False)
    with pytest.raises(ValueError, match=next(iter(options))):
        attack(model, x, labels, **options)
