"""Carlini and Wagner, EAD and L-BFGS against the nearest adversarial point in closed form, and against peers step for
step.

The factors, of the mean norm. Bisection of the constant brings a point within 2⁻ᵏ of the boundary after k halvings;
what is left is the method's own. Adam ends within a few of its steps in tanh's variable: 1.1. Where inputs lie at the
bounds tanh is flat, and steps five times as long are needed to leave them. The linf penalty knows nothing below its
threshold of 0.9 of the distance: 1 / 0.9, and as much again for Adam's steps. EAD's ‖r‖₂² weighs against ‖r‖₁: 1.02
inside, and more once single values meet the box: 1.15. L-BFGS has none of it: 1.001.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math

import pytest
import torch
from oracles import row_norm

from bench.peers import adv_lib
from pyrobust import data
from pyrobust.attacks import carlini_wagner, ead, lbfgs
from pyrobust.attacks._quasi_newton import InverseHessians
from pyrobust.models import fit, small_cnn

from . import models
from .models import ROUNDING

CASES = {
    "cw-l2": (functools.partial(carlini_wagner, steps=100), "l2", 1.1, 1.1),
    "cw-linf": (functools.partial(carlini_wagner, norm="linf", steps=150), "linf", 1.22, 1.22),
    "ead": (functools.partial(ead, steps=100), "l1", 1.02, 1.15),
    "lbfgs": (lbfgs, "l2", 1.001, 1.001),
}
AT_BOUNDS = {carlini_wagner: {"step_size": 0.05}}  # options for inputs with many values at the bounds
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def at_bounds(attack):
    return AT_BOUNDS.get(getattr(attack, "func", attack), {})


@pytest.fixture(scope="module")
def trained():
    """A small trained network, and digits that it gets right."""
    digits = data.digits()
    model = fit(small_cnn(0), *(part[:400] for part in digits.train), epochs=6)
    x, labels = (part[:12] for part in digits.test)
    right = model(x).argmax(1) == labels
    return model, x[right], labels[right]


@pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])
@every_case
def test_two_class_linear_model(case, binding):
    attack, norm, inside, binds = case
    model, x, labels = models.two_sided(binding)
    adv = attack(model, x, labels, **(at_bounds(attack) if binding else {}))
    assert (model(adv).argmax(1) != labels).all()
    assert adv.min() >= 0
    assert adv.max() <= 1
    found, optimum = row_norm(adv - x, norm), model.nearest(x, labels, norm, (0.0, 1.0))[0]
    assert (found >= optimum * (1 - ROUNDING) - ROUNDING).all(), "nearer than the nearest point: the oracle is wrong"
    assert found.mean() <= (binds if binding else inside) * optimum.mean()


@every_case
def test_many_class_linear_model(case):
    attack, norm, *_ = case
    model, x = models.linear(7), models.inputs()
    labels = model(x).argmax(1)
    adv = attack(model, x, labels)
    found, optimum = row_norm(adv - x, norm), model.nearest(x, labels, norm, (0.0, 1.0))[0]
    assert (model(adv).argmax(1) != labels).all()
    assert (found >= optimum * (1 - ROUNDING) - ROUNDING).all()
    # The runner-up changes on the way, and with it the direction: at the worst between two boundaries at right angles.
    assert found.mean() <= math.sqrt(2) * optimum.mean()


@every_case
def test_targets_are_reached(case):
    attack, norm, inside, _ = case
    model, x, labels = models.two_sided(False)
    adv = attack(model, x, 1 - labels, targeted=True)
    assert (model(adv).argmax(1) == 1 - labels).all()
    # With two classes a target is the same problem as leaving the label.
    torch.testing.assert_close(adv, attack(model, x, labels), rtol=0, atol=1e-3)


@every_case
def test_float64_and_other_bounds(case):
    attack = case[0]
    model = models.linear(4, dtype=torch.float64)
    x = models.inputs(6, dtype=torch.float64)
    labels = model(x).argmax(1)
    short = {"steps": 30, "search_steps": 3, "const": 1.0}
    plain = attack(model, x, labels, **short)
    shifted = attack(lambda z: model((z + 1) / 8), 8 * x - 1, labels, bounds=(-1.0, 7.0), **short)
    assert plain.dtype == torch.float64
    assert not torch.equal(plain, x)
    # All is computed in units of the box, so both runs are the same but for rounding, which Adam's division enlarges.
    torch.testing.assert_close((shifted + 1) / 8, plain, rtol=0, atol=1e-7)


def peer():
    pytest.importorskip("adv_lib")
    module, why = adv_lib()
    if module is None:
        pytest.skip(why)
    return importlib.import_module("adv_lib.attacks.carlini_wagner")


@pytest.mark.parametrize("confidence", [0.0, 0.5])
@pytest.mark.parametrize("targeted", [False, True])
def test_carlini_wagner_l2_is_adv_libs(targeted, confidence):
    theirs = peer().carlini_wagner_l2
    model = models.linear(5, dtype=torch.float64)
    x = models.inputs(12, dtype=torch.float64)
    labels = model(x).argmax(1)
    labels = (labels + 1) % 5 if targeted else labels
    expected = theirs(
        model, x, labels, targeted, confidence, initial_const=0.5, binary_search_steps=3, max_iterations=60,
        abort_early=False,
    )  # fmt: skip
    adv = carlini_wagner(
        model, x, labels, targeted=targeted, confidence=confidence, const=0.5, search_steps=3, steps=60,
        abort_early=False,
    )  # fmt: skip
    assert not torch.equal(adv, x)
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rule", ["l1", "en"])
def test_ead_is_foolboxs(rule):
    foolbox = pytest.importorskip("foolbox")
    model = models.linear(5, dtype=torch.float64)
    x = models.inputs(12, dtype=torch.float64)
    labels = model(x).argmax(1)
    options = {"steps": 60, "initial_stepsize": 0.01, "initial_const": 0.5, "regularization": 0.01}
    theirs = foolbox.attacks.EADAttack(binary_search_steps=3, abort_early=False, decision_rule=rule.upper(), **options)
    expected = theirs.run(foolbox.PyTorchModel(model.eval(), (0, 1)), x, foolbox.criteria.Misclassification(labels))
    adv = ead(model, x, labels, rule=rule, beta=0.01, search_steps=3, steps=60, const=0.5, abort_early=False)
    found = model(adv).argmax(1) != labels
    assert found.any()
    torch.testing.assert_close(adv[found], expected[found], rtol=0, atol=1e-9)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_inverse_hessian_is_that_of_the_bfgs_updates(count):
    """Against the dense update of a textbook, with a ring of 4 pairs; row 1 leaves one pair out."""
    generator, memory, size = models.generator(3), 4, 9
    hessians = InverseHessians(torch.zeros(2, size, dtype=torch.float64), memory, 0.5)
    pairs = [[], []]
    for k in range(count):
        s = torch.randn(2, size, generator=generator, dtype=torch.float64)
        y = s * torch.linspace(1, 3, size, dtype=torch.float64) + 0.1 * s.roll(1, 1)
        usable = torch.tensor([True, k != 2])
        v = torch.randn(2, size, generator=generator, dtype=torch.float64)
        for slot, value in ((hessians.s, s), (hessians.y, y), (hessians.v, v)):
            slot.copy_(value)
        times_v = hessians.update(usable, None)
        for row in range(2):
            pairs[row].append((s[row], y[row]) if usable[row] else None)
    for row in range(2):
        kept = [pair for pair in pairs[row][-memory:] if pair is not None]
        s, y = [pair for pair in pairs[row] if pair is not None][-1]
        h = (s @ y) / (y @ y) * torch.eye(size, dtype=torch.float64)
        for s, y in kept:
            left = torch.eye(size, dtype=torch.float64) - torch.outer(s, y) / (s @ y)
            h = left @ h @ left.T + torch.outer(s, s) / (s @ y)
        torch.testing.assert_close(times_v[row], h @ v[row], rtol=1e-10, atol=1e-12)
    hessians.s.copy_(s)
    hessians.y.copy_(y)
    times_v = hessians.update(torch.tensor([True, True]), torch.tensor([True, False]))
    torch.testing.assert_close(times_v[0], 0.5 * v[0])
    assert not torch.allclose(times_v[1], 0.5 * v[1])


def test_each_penalty_brings_a_small_norm_on_a_network(trained):
    model, x, labels = trained
    norms = {}
    for name, (attack, norm, *_) in CASES.items():
        adv = attack(model, x, labels, **at_bounds(attack))
        assert (model(adv).argmax(1) != labels).all()
        norms[name] = row_norm(adv - x, norm).mean()
        assert norms[name] < row_norm(1 - 2 * x.round(), norm).mean() / 4  # the way to the far corner
    # Two local minimisers of the same ‖r‖₂ from the same start.
    assert 0.8 < norms["cw-l2"] / norms["lbfgs"] < 1.25


def test_confidence_is_reached_or_nothing_is():
    model, x, labels = models.two_sided(False)
    for attack in (CASES["cw-l2"][0], CASES["cw-linf"][0], CASES["ead"][0]):
        adv = attack(model, x, labels, confidence=1.0)
        logits = model(adv)
        margin = logits.gather(1, labels[:, None]) - logits.gather(1, 1 - labels[:, None])
        assert (margin < -1.0 + ROUNDING).all()
        none = attack(model, x, labels, confidence=1e6, steps=20, search_steps=2)
        assert torch.equal(none, x)


SHORT = {"steps": 20, "search_steps": 4, "const": 0.5}
OTHER = {
    "steps": 15, "search_steps": 2, "const": 5.0, "step_size": 0.02, "confidence": 0.3, "rule": "en", "beta": 0.05,
    "memory": 1, "abort_early": False, "restarts": 2,
}  # fmt: skip


@pytest.mark.parametrize("option", OTHER)
@every_case
def test_every_option_changes_the_result(trained, case, option):
    attack = case[0]
    names = inspect.signature(attack).parameters
    if option not in names:
        pytest.skip("not an option of this attack")
    before = {**SHORT, **at_bounds(attack)}
    if option == "rule":  # the rules rank points differently only where ‖r‖₂² weighs
        before |= {"beta": 1e-3, "const": 20.0, "steps": 60}
    plain = attack(*trained, **before)
    assert not torch.equal(plain, trained[1])
    assert not torch.equal(plain, attack(*trained, **{**before, option: OTHER[option]}))


@every_case
def test_restarts_never_hurt_and_are_keyed_by_sample(case):
    attack, norm, *_ = case
    model, x = models.union()
    labels = torch.zeros(len(x), dtype=torch.int64)
    once = attack(model, x, labels, **SHORT)
    more = attack(model, x, labels, restarts=2, seed=1, **SHORT)
    assert (row_norm(more - x, norm) <= row_norm(once - x, norm))[(once != x).flatten(1).any(1)].all()
    assert not torch.equal(more, attack(model, x, labels, restarts=2, seed=2, **SHORT))
    order = torch.arange(len(x) - 1, -1, -1)
    turned = attack(model, x[order], labels, restarts=2, seed=1, sample_ids=order, **SHORT)
    assert torch.equal(turned[order], more)


@every_case
def test_callback_sees_each_step_and_stops(case):
    model, x, labels = models.two_sided(False)
    seen = []
    adv = case[0](model, x, labels, callback=lambda step, state: seen.append(step) or step == 30, **SHORT)
    assert seen == list(range(31))
    assert adv.shape == x.shape


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (carlini_wagner, {"norm": 1}),
        (carlini_wagner, {"confidence": -1.0}),
        (carlini_wagner, {"step_size": 0.0}),
        (carlini_wagner, {"const": math.inf}),
        (carlini_wagner, {"search_steps": 0}),
        (ead, {"rule": "l2"}),
        (ead, {"beta": 0.0}),
        (ead, {"confidence": math.nan}),
        (lbfgs, {"memory": 0}),
        (lbfgs, {"const": True}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_bad_options_are_named(attack, options):
    model, x, labels = models.two_sided(False)
    with pytest.raises(ValueError, match=next(iter(options))):
        attack(model, x, labels, **options)
