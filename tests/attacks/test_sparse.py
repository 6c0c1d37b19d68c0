"""σ-zero, JSMA, extreme weights, one pixel and pixel swap against counts that are known in closed form.

On a linear model with two classes each greedy attack has an exact answer: it takes values in falling order of their
weight until the margin is used up. The least count of any attack takes them in falling order of weight times room.
"""

from __future__ import annotations

import functools
import importlib

import pytest
import torch
from oracles import Linear, row_norm
from torch import nn

from pyrobust.attacks import _saliency, extreme_weights, jsma, one_pixel, pixel_swap, sigma_zero
from pyrobust.data import digits
from pyrobust.models import fit, small_cnn

from . import models, test_contract

BOX = (0.0, 1.0)
by_value = functools.partial(sigma_zero, grouping="value", steps=300)


def antisymmetric(dtype=torch.float64):
    """Two classes with opposite weights, far enough from the boundary that several values have to change."""
    half = torch.randn(models.SIZE, generator=models.generator(3), dtype=torch.float64)
    model = Linear(torch.stack([half, -half]), torch.zeros(2, dtype=torch.float64)).requires_grad_(False)
    x = models.inputs(dtype=torch.float64)
    model.bias[0] = 3.0 - 2 * (x.flatten(1) @ half).amin()
    return model.to(dtype), x.to(dtype), torch.zeros(len(x), dtype=torch.int64)


def greedy_count(model, x, labels, together=1):
    """How many values are raised to 1, in falling order of weight, until the other class wins."""
    w = (model.weight[1] - model.weight[0]).double()
    order = w.argsort(descending=True)
    gains = (w * (1 - x.flatten(1).double()))[:, order].cumsum(1)
    margin = -(model(x)[:, 1] - model(x)[:, 0]).double().unsqueeze(1)
    return ((gains[:, together - 1 :: together] <= margin).sum(1) + 1) * together


def count(adv, x, channels=1):
    return row_norm(adv - x, "l0", channels)


@pytest.fixture(scope="module")
def trained():
    data = digits()
    x, y = data.train
    model = fit(small_cnn(), x[:320], y[:320], epochs=4, lr=5e-3).requires_grad_(False)
    x, y = (part[:96] for part in data.test)
    right = model(x).argmax(1) == y
    return model, x[right][:48], y[right][:48]


# ---- σ-zero ----


@pytest.mark.parametrize("channels", [1, 3], ids=["value", "pixel"])
@pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])
def test_sigma_zero_finds_nearly_the_fewest_changes(binding, channels):
    model, x, labels = models.two_sided(binding)
    model.bias[0] += 6.0
    labels = torch.zeros_like(labels)
    optimum = model.nearest(x, labels, "l0", BOX, channels)[0]
    adv = sigma_zero(model, x, labels, steps=300, grouping="pixel" if channels == 3 else "value")
    already = model(x).argmax(1) == 1
    assert optimum[~already].mean() >= 2
    assert (model(adv).argmax(1) == 1).all()
    assert torch.equal(adv[already], x[already])
    found = count(adv, x, channels)
    assert (found >= optimum).all()
    # The smooth norm has local minima: a group that is pushed half way is not always given up for a better one.
    assert found.mean() <= 1.05 * optimum.mean()


@pytest.mark.parametrize("classes", [2, 7])
def test_sigma_zero_with_near_boundaries(classes):
    model, x = models.linear(classes), models.inputs()
    labels = model(x).argmax(1)
    optimum = model.nearest(x, labels, "l0", BOX)[0]
    assert torch.equal(count(by_value(model, x, labels), x), optimum)


def test_sigma_zero_equals_the_authors(trained):
    from bench.peers import adv_lib

    module, why = adv_lib()
    if module is None:
        pytest.skip(why)
    peer = importlib.import_module("adv_lib.attacks.sigma_zero").sigma_zero
    model, x, y = trained
    model, x = model.double(), x.double()
    ours = sigma_zero(model, x, y, grouping="value", steps=60, sigma=2e-3, threshold=0.2, step_size=0.9)
    theirs = peer(model, x, y, num_steps=60, σ=2e-3, τ_0=0.2, η_0=0.9)
    model.float()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    assert not torch.equal(ours, x)


def test_sigma_zero_reaches_targets(trained):
    model, x, labels = models.two_sided(False)
    two = sigma_zero(model, x, 1 - labels, targeted=True, steps=60)
    assert torch.equal(two, sigma_zero(model, x, labels, steps=60))
    model, x, y = trained
    targets = (y + 1) % 10
    adv = sigma_zero(model, x, targets, targeted=True, steps=150)
    assert (model(adv).argmax(1) == targets).all()
    assert count(adv, x).median() <= 8


def test_sigma_zero_works_in_units_of_the_box():
    model, x = models.linear(4, dtype=torch.float64), models.inputs(dtype=torch.float64)
    labels = model(x).argmax(1)
    plain = sigma_zero(model, x, labels, steps=60)
    # Logits are not scaled with the box: the map between the boxes is exact in binary.
    moved = sigma_zero(lambda z: model((z + 1) / 8), 8 * x - 1, labels, steps=60, bounds=(-1.0, 7.0))
    torch.testing.assert_close((moved + 1) / 8, plain, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "option", [{"sigma": 0.1}, {"threshold": 0.6}, {"threshold_step": 0.1}, {"step_size": 0.3}, {"grouping": "value"}]
)
def test_sigma_zero_options_matter(option):
    model, x, labels = models.two_sided(False)
    model.bias[0] += 6.0
    labels = torch.zeros_like(labels)
    plain = sigma_zero(model, x, labels, steps=40)
    assert not torch.equal(plain, sigma_zero(model, x, labels, steps=40, **option))


# ---- JSMA and extreme weights ----


@pytest.mark.parametrize("pairs", [False, True])
def test_jsma_takes_the_steepest_values_first(pairs):
    model, x, labels = antisymmetric()
    adv = jsma(model, x, labels, gamma=1.0, pairs=pairs)
    assert (model(adv).argmax(1) == 1).all()
    assert torch.equal(count(adv, x).long(), greedy_count(model, x, labels, together=1 + pairs))
    assert ((adv == x) | (adv == 1)).all()
    assert (count(adv, x) >= model.nearest(x, labels, "l0", BOX)[0]).all()


def test_jsma_with_both_signs_keeps_the_better_result():
    model, x, labels = antisymmetric()
    up, down = (jsma(model, x, labels, gamma=1.0, theta=theta) for theta in (1.0, -1.0))
    both = jsma(model, x, labels, gamma=1.0, theta=(1.0, -1.0))
    assert (down <= x).all()
    assert torch.equal(count(both, x), torch.minimum(count(up, x), count(down, x)))
    assert (count(up, x) != count(down, x)).any()


def test_jsma_stops_at_the_share_and_at_the_bound():
    model, x, labels = antisymmetric()
    needed = greedy_count(model, x, labels, together=2)
    share = needed.median().item() / models.SIZE
    adv = jsma(model, x, labels, gamma=share)
    assert torch.equal((adv != x).flatten(1).any(1), needed <= share * models.SIZE)
    # Half steps return to a value until it is at its bound; no value passes it.
    halves = jsma(model, x, labels, gamma=1.0, theta=0.25)
    assert halves.max() == 1
    assert not torch.equal(halves, jsma(model, x, labels, gamma=1.0))


def test_jsma_scales_theta_with_the_bounds():
    model, x, labels = antisymmetric()
    plain = jsma(model, x, labels, gamma=1.0, theta=0.5)
    moved = jsma(lambda z: model((z + 1) / 8), 8 * x - 1, labels, gamma=1.0, theta=0.5, bounds=(-1.0, 7.0))
    torch.testing.assert_close((moved + 1) / 8, plain, rtol=0, atol=1e-12)


def test_jsma_keeps_the_best_of_all_targets(trained):
    model, x, y = trained
    x, y = x[:16], y[:16]
    best = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for shift in range(1, 10):
        targets = (y + shift) % 10
        adv = jsma(model, x, targets, targeted=True, gamma=1.0)
        reached = model(adv).argmax(1) == targets
        best = torch.where(reached, torch.minimum(best, count(adv, x)), best)
    adv = jsma(model, x, y, gamma=1.0)
    assert (model(adv).argmax(1) != y).all()
    assert (count(adv, x) <= best).all()  # a run also ends with a class that is neither label nor target


def test_jsma_at_three_and_two_classes_and_single_values():
    for classes in (2, 3):
        model, x = models.linear(classes), models.inputs()
        labels = model(x).argmax(1)
        adv = jsma(model, x, labels, gamma=1.0, theta=(1, -1))
        assert (model(adv).argmax(1) != labels).all()
    line = Linear(torch.tensor([[-1.0], [1.0]]), torch.tensor([1.0, 0.0]))
    assert jsma(line, torch.tensor([[0.2]]), torch.tensor([0]), gamma=1.0).item() == 1.0


@pytest.mark.parametrize("at_once", [2**24, 40])
@pytest.mark.parametrize("kind", ["independent", "opposed", "alike", "ties", "none"])
def test_the_pair_search_is_exact(kind, at_once, monkeypatch):
    monkeypatch.setattr(_saliency, "_SCORES_AT_ONCE", at_once)
    a, b = torch.randn(2, 50, 23, generator=models.generator(4), dtype=torch.float64)
    if kind == "opposed":
        b = 0.1 * b - a
    elif kind == "alike":
        b = a + 0.1 * b
    elif kind == "ties":
        a, b = a.round(), b.round()
    elif kind == "none":
        b = -a.abs() - b.abs()
    a[:, ::5] = b[:, ::5] = -torch.inf
    sums = (a[:, :, None] + a[:, None]).clamp(min=0) * (b[:, :, None] + b[:, None]).clamp(min=0)
    sums.diagonal(0, 1, 2).zero_()
    best = sums.flatten(1).amax(1)
    pair, possible = _saliency.best_pair(a, b)
    assert torch.equal(possible, best > 0)
    score = a.gather(1, pair).sum(1).clamp(min=0) * b.gather(1, pair).sum(1).clamp(min=0)
    torch.testing.assert_close(score[possible], best[possible], rtol=1e-12, atol=0)
    assert (pair[possible, 0] != pair[possible, 1]).all()


def test_extreme_weights_sets_the_fewest_of_the_largest_weights():
    model, x, labels = antisymmetric()
    adv = extreme_weights(model, x, labels)
    needed = greedy_count(model, x, labels)
    assert torch.equal(count(adv, x).long(), needed)
    assert ((adv == x) | (adv == 1)).all()
    wrapped = nn.Sequential(nn.Flatten(), nn.Linear(models.SIZE, 2, dtype=torch.float64))
    wrapped[1].load_state_dict(model.state_dict())
    assert torch.equal(extreme_weights(wrapped, x, labels), adv)
    assert torch.equal(extreme_weights(model, x, 1 - labels, targeted=True), adv)
    most = int(needed.median())
    capped = extreme_weights(model, x, labels, pixels=most)
    assert torch.equal((capped != x).flatten(1).any(1), needed <= most)


def test_extreme_weights_chooses_the_class_that_needs_the_fewest():
    model, x = models.linear(5, reach=1.0, dtype=torch.float64), models.inputs(dtype=torch.float64)
    labels = model(x).argmax(1)
    adv = extreme_weights(model, x, labels)
    each = torch.stack([count(extreme_weights(model, x, (labels + k) % 5, targeted=True), x) for k in range(1, 5)])
    each = each.masked_fill(each == 0, torch.inf)
    assert (model(adv).argmax(1) != labels).all()
    assert (count(adv, x) <= each.amin(0)).all()


# ---- one pixel ----


def test_one_pixel_succeeds_where_a_pixel_is_enough():
    model, x, labels = models.two_sided(False)
    model.bias[0] += 3.0
    labels = torch.zeros_like(labels)
    needed = model.nearest(x, labels, "l0", BOX, 3)[0]
    harder = Linear(model.weight, model.bias + torch.tensor([0.2, 0.0]))
    easily = harder.nearest(x, labels, "l0", BOX, 3)[0] <= 1  # with a tenth of the margin to spare
    adv = one_pixel(model, x, labels, population=80, steps=40)
    fooled = model(adv).argmax(1) == 1
    assert easily.any()
    assert (needed > 1).any()
    assert (fooled | ~easily).all()
    assert not (fooled & (needed > 1)).any()
    assert (count(adv, x, 3) <= 1).all()
    more = one_pixel(model, x, labels, pixels=3, population=80, steps=40)
    assert (count(more, x, 3) <= 3).all()
    assert (model(more).argmax(1) == 1).sum() > fooled.sum()
    assert torch.equal(one_pixel(model, x, 1 - labels, population=80, steps=40, targeted=True), adv)


def test_one_pixel_is_keyed_by_sample_and_its_options_matter():
    model, x, labels = models.two_sided(False)
    options = {"population": 20, "steps": 6}
    adv = one_pixel(model, x, labels, **options)
    order = torch.arange(len(x) - 1, -1, -1)
    turned = one_pixel(model, x[order], labels[order], sample_ids=order, **options)
    assert torch.equal(turned[order], adv)
    for other in ({"seed": 1}, {"population": 21}):
        assert not torch.equal(one_pixel(model, x, labels, **{**options, **other}), adv)
    model.bias[0] += 3.0
    labels = torch.zeros_like(labels)
    fooled = [(model(one_pixel(model, x, labels, population=20, steps=n)).argmax(1) == 1).sum() for n in (1, 40)]
    assert fooled[0] < fooled[1]
    options["steps"] = 40
    assert not torch.equal(one_pixel(model, x, labels, **options), one_pixel(model, x, labels, mutation=0.9, **options))


def test_one_pixel_of_a_vector_is_one_value():
    model, x, labels = models.two_sided(False)
    flat = x.flatten(1)
    adv = one_pixel(model, flat, labels, population=40, steps=20)
    assert (model(adv).argmax(1) != labels).any()
    assert (count(adv, flat) <= 1).all()


# ---- pixel swap ----


def swap_case():
    model, x, labels = models.two_sided(False)
    x = torch.rand(x.shape, generator=models.generator(6))  # all values of a channel differ
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize(
    "promise",
    [
        functools.partial(test_contract.test_nothing_is_left_behind, eval_mode=True),
        functools.partial(test_contract.test_nothing_is_left_behind, eval_mode=False),
        test_contract.test_the_mode_of_the_model_is_honoured,
        test_contract.test_the_same_call_gives_the_same_bits,
        test_contract.test_any_input_shape_and_two_classes,
        test_contract.test_a_model_that_returns_nan_is_not_reported_as_fooled,
        test_contract.test_a_model_without_logits_is_named,
        *(functools.partial(test_contract.test_bad_input_is_named, message=m) for m in test_contract.BAD),
    ],
)
def test_pixel_swap_keeps_the_contract(promise):
    """All but the promises that are tested by fooling a network on which no swap has an effect."""
    promise(attack=functools.partial(pixel_swap, share=1.0, steps=2, restarts=3))


def test_swaps_keep_the_values_of_each_channel():
    model, x, labels = swap_case()
    adv = pixel_swap(model, x, labels, share=0.5, restarts=20)
    fooled = model(adv).argmax(1) != labels
    assert fooled.any()
    assert torch.equal(adv.flatten(2).sort(2).values, x.flatten(2).sort(2).values)
    assert (count(adv, x)[fooled] == 3 * 8).all()  # four pairs of the 16 places in each of 3 channels
    assert torch.equal(adv[~fooled], x[~fooled])
    wrong = pixel_swap(model, x, 1 - labels, share=0.5)
    assert torch.equal(wrong, x)
    assert torch.equal(pixel_swap(model, x, 1 - labels, targeted=True, share=0.5, restarts=20), adv)


def test_whole_pixels_are_swapped_by_pixel():
    model, x, labels = swap_case()
    adv = pixel_swap(model, x, labels, share=0.5, restarts=20, grouping="pixel")
    fooled = model(adv).argmax(1) != labels
    assert fooled.any()
    assert (count(adv, x, 3)[fooled] == 8).all()
    weight = torch.tensor([1.0, 10.0, 100.0]).reshape(1, 3, 1)
    assert torch.equal((adv.flatten(2) * weight).sum(1).sort(1).values, (x.flatten(2) * weight).sum(1).sort(1).values)


def test_more_steps_and_restarts_find_fewer_swaps():
    model, x, labels = swap_case()
    last = None
    for options in ({}, {"steps": 8}, {"steps": 8, "restarts": 4}):
        adv = pixel_swap(model, x, labels, share=1.0, **options)
        fooled = model(adv).argmax(1) != labels
        found = count(adv, x).masked_fill(~fooled, torch.inf)
        if last is not None:
            assert (found <= last).all()
            assert (found < last).any()
        last = found


def test_swaps_do_nothing_to_a_model_of_the_mean():
    model, x, _ = swap_case()
    flat = Linear(torch.ones(2, models.SIZE, dtype=torch.float64) * torch.tensor([[1.0], [1.01]]))
    x = x.double()
    labels = flat(x).argmax(1)
    assert torch.equal(pixel_swap(flat, x, labels, share=1.0, steps=4, restarts=4), x)


def test_swaps_are_not_lost_to_rounding():
    """0.29 · 200 / 2 is 28.999… in binary."""
    x = torch.arange(200.0, dtype=torch.float64).div(200).reshape(1, 1, 10, 20)
    seen = []

    def watch(step, state):
        seen.append(int((state.adv != x).sum()))

    never = lambda z: torch.stack([z.flatten(1)[:, 0] * 0 + 1, z.flatten(1)[:, 0] * 0], 1)  # noqa: E731
    pixel_swap(never, x, torch.zeros(1, dtype=torch.int64), share=0.29, callback=watch)
    assert seen == [58]


def test_swaps_are_keyed_by_sample():
    model, x, labels = swap_case()
    adv = pixel_swap(model, x, labels, share=1.0, restarts=2)
    order = torch.arange(len(x) - 1, -1, -1)
    turned = pixel_swap(model, x[order], labels[order], sample_ids=order, share=1.0, restarts=2)
    assert torch.equal(turned[order], adv)
    assert not torch.equal(pixel_swap(model, x, labels, share=1.0, restarts=2, seed=1), adv)


# ---- all ----


@pytest.mark.parametrize("attack", [sigma_zero, jsma, extreme_weights, one_pixel, pixel_swap])
def test_callbacks_see_the_best_and_stop(attack):
    model, x, labels = antisymmetric(torch.float32)
    seen = []

    def callback(step, state):
        seen.append(step)
        assert state.adv.shape[1:] == x.shape[1:]
        assert torch.equal(state.best_distance.isinf(), (state.best == x[: len(state.best)]).flatten(1).all(1))
        return len(seen) == 2

    options = {"steps": 4} if attack is pixel_swap else {}
    attack(model, x, labels, callback=callback, **options)
    assert seen == [0, 1]


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (sigma_zero, {"grouping": "channel"}, "grouping"),
        (sigma_zero, {"sigma": 0.0}, "sigma"),
        (sigma_zero, {"threshold": 2.0}, "threshold"),
        (sigma_zero, {"threshold_step": -1.0}, "threshold_step"),
        (sigma_zero, {"step_size": 0.0}, "step_size"),
        (jsma, {"gamma": "a"}, "gamma: expected"),
        (jsma, {"gamma": 0.03}, "gamma: expected a share that allows one pair of values at least"),
        (jsma, {"gamma": 0.01, "pairs": False}, "gamma: expected a share that allows one value at least"),
        (sigma_zero, {"steps": 0}, "steps"),
        (jsma, {"theta": 0.0}, "theta"),
        (jsma, {"theta": ()}, "theta"),
        (jsma, {"gamma": 0.0}, "gamma"),
        (extreme_weights, {"pixels": 0}, "pixels"),
        (one_pixel, {"pixels": 0}, "pixels"),
        (one_pixel, {"population": 3}, "population"),
        (one_pixel, {"mutation": 0.0}, "mutation"),
        (pixel_swap, {"share": 0.0}, "share"),
        (pixel_swap, {"grouping": "channel"}, "grouping"),
    ],
)
def test_bad_options_are_named(attack, options, message):
    model, x, labels = models.two_sided(False)
    with pytest.raises(ValueError, match=message):
        attack(model, x, labels, **options)
