"""DeepFool, SuperDeepFool, SparseFool and FAB, and the projections and gradients that they stand on.

The excess over the optimum of a linear model follows from each method's constants (``largest_norm``).
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings

import pytest
import torch
from oracles import half_space, row_norm
from torch import nn

from bench.peers import adv_lib
from pyrobust._counting import counted
from pyrobust.attacks import _jacobian, deepfool, fab, sparsefool, superdeepfool
from pyrobust.attacks._hyperplane import to_hyperplane
from pyrobust.attacks._jacobian import nearest_boundary
from pyrobust.attacks._search import class_gradients
from pyrobust.data import digits
from pyrobust.models import fit, small_cnn

from . import models
from .models import ROUNDING

CASES = [(deepfool, "l2"), (deepfool, "linf"), (superdeepfool, "l2"), (fab, "l2"), (fab, "linf"), (fab, "l1")]
NUDGE = 1e-4
SMALL = {
    "deepfool": deepfool,
    "superdeepfool": superdeepfool,
    "sparsefool": sparsefool,
    "fab": functools.partial(fab, steps=20),
}
every_attack = pytest.mark.parametrize("attack", SMALL.values(), ids=list(SMALL))


def ids(case):
    return f"{case[0].__name__}-{case[1]}"


@functools.cache
def trained():
    """A small convolutional network, and 16 images with its own predictions for labels."""
    data = digits()
    model, x = fit(small_cnn(), *data.train, epochs=4, batch_size=32), data.test[0][:16]
    with torch.no_grad():
        return model.requires_grad_(False), x, model(x).argmax(1)


def largest_norm(attack, optimum):
    """The norm of the result on a linear boundary at distance ``optimum``, from the constants of the method, and rounding:
    each value of a point is off by some 2⁻²⁵."""
    deep = 1.02 * (optimum + NUDGE)
    if attack is deepfool:
        norm = deep
    elif attack is superdeepfool:  # ten bisections of a DeepFool point
        norm = optimum + deep * 2.0**-10
    else:  # the first step ends at η, goes back to η β, and the second is the biased mean of both projections
        back = 1.05 * 0.9
        alpha = (1 - back) / (2 - back)
        norm = optimum * ((1 - alpha) * (back + 1.05 * (1 - back)) + alpha * 1.05)
    return norm * (1 + ROUNDING) + models.SIZE * 2.0**-25


def assert_sound(model, adv, x, labels, norm, optimum):
    with torch.no_grad():
        assert (model(adv).argmax(1) != labels).all()
    assert adv.min() >= 0
    assert adv.max() <= 1
    assert (row_norm(adv - x, norm) >= optimum * (1 - ROUNDING) - ROUNDING).all(), "nearer than the nearest point"


# ---- projection onto hyperplane and box ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_projection_onto_hyperplane_and_box(norm, dtype):
    x = torch.rand(40, 151, generator=models.generator(1), dtype=torch.float64)
    x[:, ::3] = x[:, ::3].round()  # many values that can move one way alone
    normal = torch.randn(40, 151, generator=models.generator(2), dtype=torch.float64)
    normal[:, ::7] = 0
    normal[:, 1::7] = normal[:, 1:2]  # ties
    gap = torch.linspace(-60, 60, 40, dtype=torch.float64)  # the farthest rows are out of reach
    x, normal, gap = (t.to(dtype) for t in (x, normal, gap))
    shift = to_hyperplane(x, normal, gap, norm, (0.0, 1.0)).double()
    sign = gap.sign().double()
    offset = gap.abs().double() - sign * (normal.double() * x.double()).sum(1)
    distance, _ = half_space(x, sign.unsqueeze(1) * normal, offset, norm, (0.0, 1.0))
    reached = distance.isfinite()
    assert reached.any()
    assert not reached.all()
    unit = torch.finfo(dtype).eps
    left = gap.double() + (normal.double() * shift).sum(1)
    assert (left[reached].abs() <= 8 * unit * gap.double().abs()[reached] + unit).all()
    torch.testing.assert_close(row_norm(shift, norm)[reached], distance[reached], rtol=32 * unit, atol=0)
    # Out of reach: every value is at the bound that helps.
    corner = torch.where(sign.unsqueeze(1) * normal > 0, 0.0, 1.0)
    moved = (normal != 0) & ~reached.unsqueeze(1)
    assert torch.equal((x + shift.to(dtype))[moved].double(), corner[moved].double())
    assert (x.double() + shift >= 0).all()
    assert (x.double() + shift <= 1 + unit).all()


def test_projection_of_points_on_the_hyperplane_and_of_zero_normals():
    x = torch.rand(3, 5, generator=models.generator(0))
    normal = torch.tensor([[1.0, -2.0, 0.0, 3.0, 1.0]]).repeat(3, 1)
    normal[2] = 0
    for norm in ("l1", "l2", "linf"):
        shift = to_hyperplane(x, normal, torch.tensor([0.0, 0.1, 0.1]), norm, (0.0, 1.0))
        assert not shift[0].any()
        assert shift[1].any()
        assert not shift[2].any()


# ---- gradients ----


@pytest.fixture
def batched(monkeypatch):
    """Take the batched backward pass of a GPU, three rows at a time."""
    monkeypatch.setattr(_jacobian, "_rows_of_chunk", lambda point: 3)


class Opaque(torch.autograd.Function):
    """A square whose backward pass needs values, so vmap cannot batch it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return torch.from_numpy(2 * x.numpy() * grad.numpy())


def test_class_gradients_match_one_class_at_a_time(batched):
    model, x, _ = trained()
    point = x[:5].clone().requires_grad_()
    single = torch.stack([torch.autograd.grad(model(point)[:, k].sum(), point)[0] for k in range(10)], 1)
    logits, rows = class_gradients(model, x[:5])
    assert torch.equal(logits, model(x[:5]))
    torch.testing.assert_close(rows, single)
    chosen = torch.tensor([[3, 1], [2, 9], [0, 0], [5, 4], [7, 8]])
    expected = single[torch.arange(5).unsqueeze(1), chosen]
    torch.testing.assert_close(class_gradients(model, x[:5], chosen)[1], expected)


def test_a_model_that_vmap_cannot_batch_runs_class_by_class(batched):
    model, x = models.linear(5), models.inputs(4)
    with pytest.warns(UserWarning, match="cannot be batched over classes"):
        _, rows = class_gradients(lambda z: model(Opaque.apply(z)), x)
    torch.testing.assert_close(rows.flatten(2), 2 * x.flatten(1).unsqueeze(1) * model.weight)


@pytest.mark.parametrize("chunk", [1, 3])
def test_nearest_boundary_is_the_nearest_of_all(monkeypatch, chunk):
    monkeypatch.setattr(_jacobian, "_rows_of_chunk", lambda point: chunk)
    model, x = models.linear(6, dtype=torch.float64), models.inputs(dtype=torch.float64)
    labels = model(x).argmax(1)
    others = torch.arange(6).expand(len(x), -1)[torch.arange(6) != labels.unsqueeze(1)].view(len(x), 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        at = nearest_boundary(model, x, labels, others, "l2")
    torch.testing.assert_close(at.gap.abs() / at.slope, model.nearest(x, labels, "l2")[0])
    # One sample of many with a class ahead: all take one pass, as on a GPU. All of them: each takes one gradient.
    for behind in (slice(0, 1), slice(None)):
        moved, rivals = labels.clone(), others.clone()
        moved[behind], rivals[behind] = (labels[behind] + 1) % 6, (others[behind] + 1) % 6
        at = nearest_boundary(model, x, moved, rivals, "l2", follow=True)
        gaps = (model(x).gather(1, rivals) - model(x).gather(1, moved.unsqueeze(1)))[behind]
        normals = (model.weight[rivals] - model.weight[moved].unsqueeze(1))[behind]
        assert (gaps.amax(1) > 0).all()
        torch.testing.assert_close(at.gap[behind], gaps.amax(1))
        first = torch.arange(len(gaps))
        torch.testing.assert_close(at.normal[behind].flatten(1), normals[first, gaps.argmax(1)])
    torch.testing.assert_close(
        nearest_boundary(model, x, labels, others, "l2", follow=True).gap,
        nearest_boundary(model, x, labels, others, "l2").gap,
    )


def test_a_sample_whose_logit_is_nan_follows_another_class():
    model, x = models.linear(6), models.inputs(4)
    labels = model(x).argmin(1)
    others = torch.arange(6).expand(4, -1)[torch.arange(6) != labels.unsqueeze(1)].view(4, 5)
    first = others[:, :1]
    at = nearest_boundary(lambda z: model(z).scatter(1, first, math.nan), x, labels, others, "l2", follow=True)
    expected = model(x).gather(1, others[:, 1:]).amax(1) - model(x).gather(1, labels.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(at.gap, expected)


def test_samples_that_depend_on_the_batch_are_not_split():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(12), torch.nn.Linear(12, 5)).train()
    x = torch.rand(8, 3, 2, 2, generator=models.generator(0))
    logits = model(x)
    labels = torch.cat([logits[:7].argmin(1), logits[7:].argmax(1)])  # the last one alone has no class ahead
    others = torch.arange(5).expand(8, -1)[torch.arange(5) != labels.unsqueeze(1)].view(8, 4)
    with counted(model) as (watched, spent):
        at = nearest_boundary(watched, x, labels, others, "l2", follow=True)
    assert (spent.forwards, spent.gradients) == (8, 4 * 8)
    torch.testing.assert_close(at.gap[:7], (logits.amax(1) - logits.amin(1))[:7])


def test_samples_with_a_class_ahead_take_one_gradient():
    model, x, _ = trained()
    with torch.no_grad():
        labels = model(x).argmax(1)
    labels[: len(x) // 2] = (labels[: len(x) // 2] + 1) % 10  # another class is ahead there
    classes = torch.arange(10).expand(len(x), -1)[torch.arange(10) != labels.unsqueeze(1)].view(len(x), 9)
    with counted(model) as (watched, spent):
        at = nearest_boundary(watched, x, labels, classes, "l2", follow=True)
    ahead = len(x) // 2
    assert (spent.forwards, spent.gradients) == (2 * len(x) - ahead, ahead + 9 * (len(x) - ahead))
    logits, rows = class_gradients(model, x)
    everyone = torch.arange(len(x)).unsqueeze(1)
    normals = rows[everyone, classes] - rows[everyone, labels.unsqueeze(1)]
    slopes = normals.flatten(2).norm(dim=2)
    gaps = logits.gather(1, classes) - logits.gather(1, labels.unsqueeze(1))
    chosen = torch.where(gaps.amax(1) > 0, gaps.argmax(1), (gaps.abs() / slopes).argmin(1)).unsqueeze(1)
    assert (gaps.amax(1) > 0).sum() == ahead
    torch.testing.assert_close(at.logits, logits)
    torch.testing.assert_close(at.gap, gaps.gather(1, chosen).squeeze(1))
    torch.testing.assert_close(at.slope, slopes.gather(1, chosen).squeeze(1))
    torch.testing.assert_close(at.normal, normals[everyone, chosen].squeeze(1))


# ---- closed forms ----


@pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_two_class_linear_model(case, binding):
    attack, norm = case
    model, x, labels = models.two_sided(binding)
    optimum = model.nearest(x, labels, norm, (0.0, 1.0))[0]
    adv = attack(model, x, labels, norm=norm)
    assert_sound(model, adv, x, labels, norm, optimum)
    found = row_norm(adv - x, norm)
    # Where the box binds, DeepFool's alternating clips reach the boundary, not its nearest point, and the projection of
    # FAB's point is not a multiple of the input's.
    slack = {deepfool: 1.02, fab: 1.005}.get(attack, 1) if binding else 1
    assert (found <= slack * largest_norm(attack, optimum)).all()


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_many_class_linear_model(case):
    attack, norm = case
    model, x = models.linear(7), models.inputs()
    labels = model(x).argmax(1)
    optimum = model.nearest(x, labels, norm, (0.0, 1.0))[0]
    adv = attack(model, x, labels, norm=norm)
    assert_sound(model, adv, x, labels, norm, optimum)
    # DeepFool does not return to the input, so a second step after a change of class is not the shortest: on the median.
    found = row_norm(adv - x, norm)
    assert (found <= largest_norm(attack, optimum)).double().mean() >= (0.5 if attack is deepfool else 1)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_a_union_of_half_spaces(case):
    attack, norm = case
    model, x = models.union()
    labels = torch.zeros(len(x), dtype=torch.int64)
    optimum = model.nearest(x, norm, (0.0, 1.0))[0]
    adv = attack(model, x, labels, norm=norm)
    assert_sound(model, adv, x, labels, norm, optimum)
    # Gradients see one piece at a time, so a nearer one may stay unseen.
    assert (row_norm(adv - x, norm) <= largest_norm(attack, optimum)).double().mean() >= 0.5


@pytest.mark.parametrize("control", [1.0, 2.0])
@pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])
def test_sparsefool_solves_its_linear_program(control, binding):
    model, x, labels = models.two_sided(binding)
    adv = sparsefool(model, x, labels, control=control, bounds=(0.0, 1.0))
    assert_sound(model, adv, x, labels, "l1", model.nearest(x, labels, "l1", (0.0, 1.0))[0])
    if binding:
        return
    # DeepFool's r crosses by itself, so control · (gap + nudge · ‖w‖) is what the values must close.
    normal = (model.weight[labels] - model.weight[1 - labels]).double()
    gap = (normal * x.double().flatten(1)).sum(1) + (model.bias[labels] - model.bias[1 - labels]).double()
    need = control * (gap + NUDGE * row_norm(normal, "l2"))
    offset = need - (normal * x.double().flatten(1)).sum(1)
    _, shift = half_space(x, normal, offset, "l1", (0.0, 1.0))
    expected = (x.double().flatten(1) + 1.02 * shift).clamp(0, 1)
    torch.testing.assert_close(adv.double().flatten(1), expected, rtol=0, atol=1e-5)


def test_sparsefool_is_sparse():
    model, x, labels = trained()
    adv = sparsefool(model, x, labels, control=1.0)
    assert (model(adv).argmax(1) != labels).all()
    assert row_norm(adv - x, "l0").mean() <= 4  # of 64
    assert row_norm(adv - x, "l1").mean() < row_norm(deepfool(model, x, labels) - x, "l1").mean()


# ---- what holds for all ----


@every_attack
def test_other_bounds_and_float64(attack):
    model = models.linear(4, dtype=torch.float64)
    x = models.inputs(dtype=torch.float64)
    labels = model(x).argmax(1)
    plain = attack(model, x, labels)
    shifted = attack(lambda z: model((z + 1) / 8), 8 * x - 1, labels, bounds=(-1.0, 7.0))
    torch.testing.assert_close((shifted + 1) / 8, plain, rtol=0, atol=1e-9)


@every_attack
def test_samples_do_not_depend_on_their_batch(attack):
    model, x, labels = trained()
    model, x = model.double(), x.double()
    try:
        whole = attack(model, x, labels)
        order = torch.randperm(len(x), generator=models.generator(0))
        torch.testing.assert_close(attack(model, x[order], labels[order]), whole[order], rtol=0, atol=1e-7)
        torch.testing.assert_close(attack(model, x[3:5], labels[3:5]), whole[3:5], rtol=0, atol=1e-7)
    finally:
        model.float()


@every_attack
def test_a_callback_sees_all_samples_and_can_stop(attack):
    model, x, labels = trained()
    seen = []

    def watch(step, state):
        assert state.adv.shape == state.best.shape == x.shape
        assert state.adversarial.shape == labels.shape
        seen.append(state.best_distance.isfinite().sum().item())
        return len(seen) == 8

    adv = attack(model, x, labels, callback=watch)
    assert seen == sorted(seen)
    assert len(seen) <= 8
    assert (model(adv).argmax(1) != labels).sum() == seen[-1]


def test_the_callback_measures_sparsefool_in_its_norm():
    model, x, labels = trained()
    for norm in ("l0", "l1"):
        last = []
        adv = sparsefool(model, x, labels, norm=norm, callback=lambda step, state, last=last: last.append(state))
        torch.testing.assert_close(last[-1].best_distance.double(), row_norm(adv - x, norm))


def points_of(attack, *arguments, **options):
    """All points that the attack predicts in its steps, and its result."""
    points = []
    result = attack(*arguments, **options, callback=lambda step, state: points.append(state.adv.clone()))
    return [*points, result]


def same(first, second):
    return len(first) == len(second) and all(map(torch.equal, first, second))


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (deepfool, {"steps": 1}),
        (deepfool, {"norm": "linf"}),
        (deepfool, {"candidates": 1}),
        (deepfool, {"overshoot": 0.5}),
        (deepfool, {"max_step": 0.1}),
        (superdeepfool, {"steps": 3}),
        (superdeepfool, {"candidates": 1}),
        (superdeepfool, {"overshoot": 0.5}),
        (superdeepfool, {"search_steps": 0}),
        (sparsefool, {"steps": 2}),
        (sparsefool, {"control": 1.5}),
        (sparsefool, {"candidates": 1}),
        (sparsefool, {"overshoot": 0.5}),
        (fab, {"steps": 2}),
        (fab, {"norm": "l1"}),
        (fab, {"candidates": 1}),
        (fab, {"alpha_max": 0.0}),
        (fab, {"eta": 1.5}),
        (fab, {"beta": 0.5}),
        (fab, {"class_by_class": True}),
        (fab, {"search_steps": 8}),
        (fab, {"restarts": 3}),
    ],
)
def test_every_option_changes_the_result(attack, options):
    model, x, labels = trained()
    base = {"steps": 5} if attack is fab else {}
    plain = points_of(attack, model, x, labels, **base)
    assert not same(plain, points_of(attack, model, x, labels, **{**base, **options}))


def test_steps_are_clipped():
    model, x, labels = trained()
    points = [x]
    deepfool(model, x, labels, max_step=0.1, callback=lambda step, state: points.append(state.adv.clone()))
    for before, after in itertools.pairwise(points):  # each is x + (1 + overshoot) r
        assert (row_norm(after - before, "l2") <= 1.02 * 0.1 * (1 + ROUNDING)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_superdeepfool_does_not_stall_in_16_bits(dtype):
    """Its last steps are far below the spacing of numbers there."""
    torch.manual_seed(1)
    x = torch.rand(32, 1, 6, 6, dtype=torch.float64).mul(64).round().div(64).to(dtype)
    layers = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 4)
    model = torch.nn.Sequential(*layers).to(dtype)
    labels = model(x).argmax(1)
    assert (model(superdeepfool(model, x, labels)).argmax(1) != labels).all()


def test_start_radius_of_fab_is_in_units_of_the_box():
    model, x, labels = trained()
    run = functools.partial(points_of, fab, norm="l2", steps=3, search_steps=0, restarts=2)
    assert same(run(model, x, labels), run(model, x, labels, start_radius=1.0))
    wide = functools.partial(run, lambda z: model(z / 8), 8 * x, labels, bounds=(0.0, 8.0))
    assert same(wide(), wide(start_radius=1.0))


def test_random_starts_of_fab_are_keyed_by_seed_and_sample():
    model, x, labels = trained()
    run = functools.partial(points_of, fab, model, x, labels, norm="l2", steps=3, search_steps=0, restarts=3)
    first = run(seed=1)
    assert same(first, run(seed=1))
    assert not same(first, run(seed=2))
    assert not same(first, run(seed=1, sample_ids=torch.arange(100, 116)))
    assert not same(first, run(seed=1, start_radius=0.1))
    once = run(seed=1, restarts=1)
    assert same(first[:3], once[:3])
    assert (row_norm(first[-1] - x, "l2") <= row_norm(once[-1] - x, "l2")).all()


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (deepfool, {"norm": "l1"}, "norm: expected"),
        (deepfool, {"steps": 0}, "steps: expected"),
        (deepfool, {"candidates": 0}, "candidates: expected"),
        (deepfool, {"overshoot": -0.1}, "overshoot: expected"),
        (deepfool, {"max_step": 0}, "max_step: expected"),
        (superdeepfool, {"norm": "linf"}, "norm: expected"),
        (superdeepfool, {"overshoot": float("nan")}, "overshoot: expected"),
        (superdeepfool, {"search_steps": -1}, "search_steps: expected"),
        (sparsefool, {"norm": "l2"}, "norm: expected"),
        (sparsefool, {"control": 0.5}, "control: expected"),
        (fab, {"norm": "l0"}, "norm: expected"),
        (fab, {"alpha_max": 1.5}, "alpha_max: expected"),
        (fab, {"eta": 0.9}, "eta: expected"),
        (fab, {"beta": 0}, "beta: expected"),
        (fab, {"restarts": 0}, "restarts: expected"),
        (fab, {"start_radius": -1.0}, "start_radius: expected"),
        (fab, {"search_steps": True}, "search_steps: expected"),
    ],
)
def test_bad_options_are_named(attack, options, message):
    model, x, labels = models.two_sided(False)
    with pytest.raises(ValueError, match=message):
        attack(model, x, labels, **options)


@every_attack
def test_a_model_without_gradient_fools_nobody(attack):
    class Flat(nn.Module):
        def forward(self, z):
            return z.flatten(1)[:, :3] * 0 + torch.tensor([1.0, 0.0, 0.0])

    x = models.inputs(4)
    labels = torch.zeros(4, dtype=torch.int64)
    assert torch.equal(attack(Flat(), x, labels), x)


# ---- peers ----


@pytest.fixture(scope="module")
def peer():
    if adv_lib()[0] is None:
        pytest.skip(adv_lib()[1])
    from adv_lib.attacks.fast_adaptive_boundary import fab as peer_fab
    from adv_lib.attacks.superdeepfool import sdf

    return peer_fab, sdf


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("class_by_class", [False, True])
def test_fab_is_that_of_adv_lib_step_for_step(peer, norm, class_by_class):
    model, x, labels = trained()
    exponent = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
    ours = fab(model, x, labels, norm=norm, steps=10, search_steps=0, class_by_class=class_by_class)
    theirs = peer[0](model, x, labels, exponent, n_iter=10, targeted_restarts=class_by_class)
    # The same points up to rounding, which ten steps amplify; and never a worse one.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_superdeepfool_is_not_beaten_by_that_of_adv_lib(peer):
    model, x, labels = trained()
    ours = superdeepfool(model, x, labels)
    theirs = peer[1](model, x, labels)
    assert row_norm(ours - x, "l2").mean() <= row_norm(theirs - x, "l2").mean()
    # Both end at the boundary, ours at a foot of the normal; single samples may fall into another class.
    assert (row_norm(ours - x, "l2") <= 1.01 * row_norm(theirs - x, "l2")).double().mean() >= 0.9


def test_superdeepfool_on_a_linear_model_is_that_of_adv_lib(peer):
    model, x, labels = models.two_sided(False)
    torch.testing.assert_close(superdeepfool(model, x, labels), peer[1](model, x, labels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deepfool_is_that_of_foolbox(norm):
    foolbox = pytest.importorskip("foolbox")
    model = models.linear(5).eval()
    x = models.inputs()
    labels = model(x).argmax(1)
    attack = {"l2": foolbox.attacks.L2DeepFoolAttack, "linf": foolbox.attacks.LinfDeepFoolAttack}[norm]
    theirs, _, _ = attack(steps=50, candidates=10)(foolbox.PyTorchModel(model, (0, 1)), x, labels, epsilons=None)
    torch.testing.assert_close(deepfool(model, x, labels, norm=norm), theirs, rtol=0, atol=1e-6)
