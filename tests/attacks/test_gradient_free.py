"""SimBA, HopSkipJump and transfer: what they may ask of a model, and what they find where the answer is known."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from oracles import row_norm

from pyrobust.attacks import hop_skip_jump, one_pixel, pgd, pixel_swap, simba, transfer
from pyrobust.attacks.simba import _Basis

from . import models
from .models import ROUNDING

BOX = (0.0, 1.0)
ATTACKS = {
    "simba": functools.partial(simba, frequencies=1.0, steps=60),
    "hop_skip_jump": functools.partial(hop_skip_jump, steps=2, queries=10),
    "one_pixel": functools.partial(one_pixel, population=20, steps=5),
    "pixel_swap": functools.partial(pixel_swap, share=1.0, restarts=5),
}
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))


def fooled(model, adv, labels):
    return model(adv).argmax(1) != labels


@every_attack
def test_no_gradient_is_asked_for(attack):
    model, x, labels = models.two_sided(False)
    plain = attack(model, x, labels)

    def blind(z):
        assert not z.requires_grad
        assert not torch.is_grad_enabled()
        return model(z)

    assert torch.equal(attack(blind, x, labels), plain)


@every_attack
def test_results_are_keyed_by_seed_and_sample(attack):
    model, x, labels = models.two_sided(False)
    adv = attack(model, x, labels)
    assert fooled(model, adv, labels).any()
    order = torch.arange(len(x) - 1, -1, -1)
    assert torch.equal(attack(model, x[order], labels[order], sample_ids=order)[order], adv)
    assert not torch.equal(attack(model, x, labels, seed=1), adv)
    assert not torch.equal(attack(model, x, labels, sample_ids=order), adv)


@every_attack
def test_callbacks_see_the_best_and_stop(attack):
    model, x, labels = models.two_sided(False)
    seen = []

    def callback(step, state):
        seen.append(step)
        assert state.adv.shape[1:] == x.shape[1:]
        assert (state.best_distance[state.adversarial] < math.inf).all()
        return True

    attack(model, x, labels, callback=callback)
    assert seen == [0]


# ---- HopSkipJump ----


@pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_hop_skip_jump_comes_near_the_boundary_point(norm, binding):
    model, x, labels = models.two_sided(binding)
    optimum = model.nearest(x, labels, norm, BOX)[0]
    adv = hop_skip_jump(model, x, labels, norm=norm)
    assert fooled(model, adv, labels).all()
    assert adv.min() >= 0
    assert adv.max() <= 1
    found = row_norm(adv - x, norm)
    assert (found >= optimum * (1 - ROUNDING) - ROUNDING).all()
    # 32 estimates of 100 to 565 queries in 48 dimensions end 0.5 % (l2) to 1.5 % (linf, at the bounds) above, measured.
    assert found.mean() <= 1.03 * optimum.mean()


def test_hop_skip_jump_uses_decisions_alone():
    model, x = models.linear(5), models.inputs()
    labels = model(x).argmax(1)

    def decide(z):
        return torch.nn.functional.one_hot(model(z).argmax(1), 5).float()

    options = {"steps": 4, "queries": 20}
    assert torch.equal(hop_skip_jump(decide, x, labels, **options), hop_skip_jump(model, x, labels, **options))


def test_hop_skip_jump_from_given_starts_to_targets():
    model, x = models.linear(6, reach=3.0), models.inputs()
    labels = model(x).argmax(1)
    targets = (labels + 1) % 6
    options = {"targeted": True, "steps": 4, "queries": 30}
    starts = pgd(model, x, targets, norm="l2", eps=5.0, steps=60, targeted=True)
    reached = model(starts).argmax(1) == targets
    adv = hop_skip_jump(model, x, targets, starts=starts, **options)
    assert reached.any()
    assert (model(adv).argmax(1) == targets)[reached].all()
    assert (row_norm(adv - x, "l2") <= row_norm(starts - x, "l2"))[reached].all()
    blind = hop_skip_jump(model, x, targets, **options)
    missed = model(blind).argmax(1) != targets
    assert torch.equal(blind[missed], x[missed])


def test_hop_skip_jump_improves_with_steps_and_queries():
    model, x, labels = models.two_sided(False)

    def mean(**options):
        return row_norm(hop_skip_jump(model, x, labels, **options) - x, "l2").mean()

    base = mean(steps=4, queries=20)
    assert mean(steps=12, queries=20) < base
    assert mean(steps=4, queries=200) < base


def test_hop_skip_jump_of_other_bounds():
    model = models.linear(3, dtype=torch.float64)
    x = models.inputs(dtype=torch.float64)
    labels = model(x).argmax(1)
    options = {"steps": 3, "queries": 20}
    plain = hop_skip_jump(model, x, labels, **options)
    moved = hop_skip_jump(lambda z: model((z + 1) / 8), 8 * x - 1, labels, bounds=(-1.0, 7.0), **options)
    # Decisions near the boundary may turn with rounding; the distances agree.
    torch.testing.assert_close(row_norm(moved - 8 * x + 1, "l2") / 8, row_norm(plain - x, "l2"), rtol=1e-3, atol=0)


# ---- SimBA ----


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("frequencies", [None, 1.0, 0.5])
@pytest.mark.parametrize("shape", [(3, 4, 4), (6, 5), (7,)])
def test_the_basis_is_orthogonal(shape, frequencies, norm):
    x = torch.zeros(1, *shape, dtype=torch.float64)
    basis = _Basis(x, frequencies)
    vectors = basis(torch.arange(len(basis)), norm).flatten(1)
    if frequencies != 0.5:
        assert len(basis) == x.numel()
    length = torch.linalg.vector_norm(vectors, 2 if norm == "l2" else math.inf, dim=1)
    torch.testing.assert_close(length, torch.ones(len(basis), dtype=torch.float64))
    products = vectors @ vectors.T
    assert (products - products.diag().diag()).abs().max() < 1e-12


@pytest.mark.parametrize("basis", ["dct", "pixel"])
def test_simba_descends_a_linear_model_along_every_vector(basis):
    """Far from the bounds each step is accepted, with the sign that the weight has along the vector."""
    model, x, _ = models.two_sided(False)
    model, x = model.double(), x.double()
    model.bias[0] += 20.0  # never reached: the callback sees the path
    labels = torch.zeros(len(x), dtype=torch.int64)
    options = {"frequencies": 1.0} if basis == "dct" else {}
    points = []
    simba(model, x, labels, basis=basis, steps=models.SIZE, step_size=0.01,
          callback=lambda step, state: points.append(state.adv) and False, **options)  # fmt: skip
    space = _Basis(x, options.get("frequencies"))
    vectors = space(torch.arange(models.SIZE), "l2").flatten(1)
    coefficients = (points[-1] - x).flatten(1) @ vectors.T
    downhill = ((model.weight[1] - model.weight[0]) @ vectors.T).sign()
    torch.testing.assert_close(coefficients, (0.01 * downhill).expand_as(coefficients), rtol=0, atol=1e-12)


def test_simba_keeps_its_norms():
    model, x, labels = models.two_sided(False)
    steps, size = 30, 0.1
    l2 = simba(model, x, labels, frequencies=1.0, steps=steps, step_size=size)
    assert (row_norm(l2 - x, "l2") <= size * math.sqrt(steps) * (1 + ROUNDING)).all()
    linf = simba(model, x, labels, norm="linf", frequencies=1.0, steps=steps, step_size=size)
    assert (row_norm(linf - x, "linf") <= size * (1 + ROUNDING)).all()
    for norm, adv in (("l2", l2), ("linf", linf)):
        success = fooled(model, adv, labels)
        assert success.all()
        assert (row_norm(adv - x, norm) >= model.nearest(x, labels, norm, BOX)[0] * (1 - ROUNDING) - ROUNDING).all()
    assert not torch.equal(l2, linf)


def test_simba_options_matter_and_targets_are_reached():
    model, x, labels = models.two_sided(False)
    plain = simba(model, x, labels, steps=100)
    assert torch.equal(simba(model, x, 1 - labels, targeted=True, steps=100), plain)
    for option in ({"basis": "pixel"}, {"frequencies": 0.5}, {"step_size": 0.3}, {"steps": 1}):
        assert not torch.equal(simba(model, x, labels, **{"steps": 100, **option}), plain)
    wide = simba(lambda z: model((z + 1) / 8), 8 * x - 1, labels, steps=100, bounds=(-1.0, 7.0))
    torch.testing.assert_close((wide + 1) / 8, plain, rtol=0, atol=1e-5)


# ---- transfer ----


def test_transfer_to_the_same_model_is_the_attack():
    model, x, labels = models.two_sided(False)
    attack = functools.partial(pgd, norm="l2", eps=0.06)
    direct = attack(model, x, labels)
    success = fooled(model, direct, labels)
    assert success.any()
    assert not success.all()
    adv = transfer(model, x, labels, substitute=model, attack=attack)
    assert torch.equal(adv[success], direct[success])
    assert torch.equal(adv[~success], x[~success])
    back = transfer(model, x, 1 - labels, substitute=model, attack=attack, targeted=True)
    assert torch.equal(back, transfer(model, x, labels, substitute=model, attack=attack))


def test_transfer_asks_the_model_twice_and_trusts_nothing():
    model, x, labels = models.two_sided(False)
    calls = []

    def counted(z):
        calls.append(len(z))
        assert not torch.is_grad_enabled()
        return model(z)

    other = models.linear(2, seed=11)
    adv = transfer(counted, x, labels, substitute=other, attack=functools.partial(pgd, eps=0.3))
    assert calls == [len(x)] * 2
    changed = (adv != x).flatten(1).any(1)
    assert torch.equal(changed, fooled(model, adv, labels))

    def outside(substitute, inputs, labels, **options):
        return inputs + 5 * torch.sign(model.weight[1] - model.weight[0]).reshape(models.SHAPE)

    assert torch.equal(transfer(model, x, labels, substitute=other, attack=outside), x)


def test_transfer_passes_its_arguments_on():
    model, x, labels = models.two_sided(False)
    seen = {}

    def attack(substitute, inputs, labels, **options):
        seen.update(options, substitute=substitute)
        return inputs

    ids = torch.arange(5, 5 + len(x))
    transfer(model, 2 * x, labels, substitute=model.forward, attack=attack, bounds=(0.0, 2.0), seed=4, sample_ids=ids,
             callback=print, eval_mode=False)  # fmt: skip
    assert torch.equal(seen.pop("sample_ids"), ids)
    assert seen == {
        "substitute": model.forward, "bounds": (0.0, 2.0), "seed": 4, "callback": print, "eval_mode": False,
    }  # fmt: skip


def test_transfer_prolongs_and_shortens():
    model, x, labels = models.two_sided(False)
    short = functools.partial(pgd, norm="l2", eps=0.01, random_start=False)
    call = functools.partial(transfer, model, x, labels, substitute=model, attack=short)
    exact = model.nearest(x, labels, "l2", (0.0, 1.0))[0]
    assert not fooled(model, call(), labels)[exact > 0.011].any()
    adv = call(stretch=15.0, search_steps=20)
    assert fooled(model, adv, labels).all()
    assert (row_norm(adv - x, "l2") <= exact * (1 + 1e-3)).all()  # a bisection leaves 2⁻²⁰ of 0.15
    assert (row_norm(adv - x, "l2") >= exact * (1 - models.ROUNDING)).all()


def test_transfer_offers_an_attack_what_it_takes_alone():
    model, x, labels = models.two_sided(False)

    def attack(substitute, inputs, labels, *, bounds, seed):
        assert (bounds, seed) == ((0.0, 1.0), 4)
        return pgd(substitute, inputs, labels, eps=0.3)

    call = functools.partial(transfer, model, x, labels, substitute=model, attack=attack, seed=4)
    assert torch.equal(call(), transfer(model, x, labels, substitute=model, attack=functools.partial(pgd, eps=0.3)))
    for option in ({"callback": print}, {"targeted": True}):
        with pytest.raises(ValueError, match=f"{next(iter(option))}: attack takes none"):
            call(**option)


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (simba, {"step_size": "a"}, "step_size"),
        (simba, {"frequencies": "a"}, "frequencies"),
        (
            transfer,
            {"substitute": len, "attack": lambda *a, **k: None},
            "attack: expected a result like inputs, got None",
        ),
        (simba, {"norm": "l1"}, "norm"),
        (simba, {"basis": "fourier"}, "basis"),
        (simba, {"basis": "pixel", "frequencies": 0.5}, "frequencies"),
        (simba, {"frequencies": 0.0}, "frequencies"),
        (simba, {"step_size": 0.0}, "step_size"),
        (hop_skip_jump, {"norm": "l1"}, "norm"),
        (hop_skip_jump, {"queries": 0}, "queries"),
        (hop_skip_jump, {"starts": torch.zeros(1)}, "starts: expected a tensor like inputs"),
        (hop_skip_jump, {"starts": torch.full((24, *models.SHAPE), 2.0)}, "starts: expected values inside bounds"),
        (transfer, {"substitute": len, "attack": pgd, "stretch": 0.0}, "stretch"),
        (transfer, {"substitute": len, "attack": pgd, "search_steps": -1}, "search_steps"),
        (transfer, {"substitute": None, "attack": pgd}, "substitute"),
        (transfer, {"substitute": len, "attack": "pgd"}, "attack"),
        (transfer, {"substitute": len, "attack": lambda *a, **k: a[1].double()}, "attack"),
    ],
)
def test_bad_options_are_named(attack, options, message):
    model, x, labels = models.two_sided(False)
    with pytest.raises(ValueError, match=message):
        attack(model, x, labels, **options)
