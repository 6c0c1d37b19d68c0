"""Attacks within a budget: inside ball and box, successful exactly where the closed form says that they can be, and the
same as peers' implementations where those are right."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import row_norm
from torch import nn

from pyrobust import ops
from pyrobust.attacks import apgd, bim, daa, fgm_clipped, mim, pgd, slide

from . import models

# (attack, norm, options that give it enough steps for the linear models)
ITERATED = [
    *((bim, norm, {"steps": 100}) for norm in ("linf", "l2", "l1")),
    *((mim, norm, {"steps": 100, "step_size_share": 0.025}) for norm in ("linf", "l2", "l1")),
    (slide, "l1", {"quantile": 0.98}),
    (slide, "l1", {"quantile": (0.9, 1.0), "steps": 200}),
    (daa, "linf", {"particles": 3, "steps": 50}),
    *((apgd, norm, {}) for norm in ("linf", "l2", "l1")),
]
EVERY = [(fgm_clipped, "linf", {}), *ITERATED]


def ids(case):
    return f"{case[0].__name__}-{case[1]}" + ("-drawn" if isinstance(case[2].get("quantile"), tuple) else "")


def run(case, model, x, labels, eps, **options):
    attack, norm, more = case
    more = {**more, **options}
    if "step_size_share" in more:
        more["step_size"] = more.pop("step_size_share") * eps
    return attack(model, x, labels, norm=norm, eps=eps, **more)


def fooled(model, adv, labels):
    with torch.no_grad():
        return model(adv).argmax(1) != labels


every = pytest.mark.parametrize("case", EVERY, ids=ids)
iterated = pytest.mark.parametrize("case", ITERATED, ids=ids)


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))
        .to(dtype)
        .eval()
        .requires_grad_(False)
    )  # fmt: skip


@every
@pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])
def test_results_stay_in_ball_and_box(case, binding):
    model, x, labels = models.two_sided(binding)
    for eps in (0.0, 0.01, 0.3, 5.0):
        adv = run(case, model, x, labels, eps)
        assert (row_norm(adv - x, case[1]) <= eps * (1 + 1e-5) + 1e-6).all()
        assert adv.min() >= 0
        assert adv.max() <= 1


def factor(case, binding):
    """By how much eps may exceed the distance before the attack has to succeed."""
    attack, norm, _ = case
    if attack is daa:
        return 1.1  # the pull of the other particles outweighs small gradients
    if attack is slide and binding:
        return 1.05  # random shares keep pushing a few values that are in the wrong place
    if attack is bim and norm == "l2" and binding:
        return 1.5  # cutting a long step back to the ball moves values off their bounds again
    if attack in (bim, mim) and norm == "l1" and binding:
        return None  # the steepest value is the only one to move, also once it is at its bound
    return 1.01


@iterated
@pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])
def test_success_begins_at_the_distance_of_the_nearest_error(case, binding):
    model, x, labels = models.two_sided(binding)
    distance = model.nearest(x, labels, case[1], (0.0, 1.0))[0]
    beyond = factor(case, binding)
    for index in range(0, len(x), 8):
        one = slice_of(index)
        assert not fooled(model, run(case, model, x[one], labels[one], 0.98 * distance[index].item()), labels[one])
        if beyond is not None:
            assert fooled(model, run(case, model, x[one], labels[one], beyond * distance[index].item()), labels[one])


def slice_of(index):
    return slice(index, index + 1)


@every
def test_no_success_before_the_distance_among_many_classes(case):
    model, x = models.linear(5), models.inputs()
    labels = model(x).argmax(1)
    distance = model.nearest(x, labels, case[1], (0.0, 1.0))[0]
    for index in range(0, len(x), 12):
        one = slice_of(index)
        for loss in ("ce", "margin", "dlr"):
            adv = run(case, model, x[one], labels[one], 0.98 * distance[index].item(), loss=loss)
            assert not fooled(model, adv, labels[one])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_towards_every_class_finds_the_nearest_one(norm):
    model, x = models.linear(5), models.inputs()
    labels = model(x).argmax(1)
    distance = model.nearest(x, labels, norm, (0.0, 1.0))[0]
    for index in range(0, len(x), 12):
        one = slice_of(index)
        for loss in ("dlr", "margin"):
            options = {"norm": norm, "eps": 1.02 * distance[index].item(), "loss": loss}
            assert fooled(model, apgd(model, x[one], labels[one], target_classes=4, **options), labels[one])


@iterated
def test_targets_are_reached(case):
    model, x = models.linear(4), models.inputs()
    targets = (model(x).argmax(1) + 1) % 4
    eps = {"linf": 0.3, "l2": 3.0, "l1": 20.0}[case[1]]
    adv = run(case, model, x, targets, eps, targeted=True)
    assert (model(adv).argmax(1) == targets).all()


@every
def test_other_bounds_are_the_same_attack(case):
    case = case if case[0] is fgm_clipped else (*case[:2], {**case[2], "steps": 20})
    model = network()
    x = models.inputs(8, dtype=torch.float64)
    labels = model(x).argmax(1)
    eps = 0.1
    plain = run(case, model, x, labels, eps)
    shifted = run(case, lambda z: model((z + 1) / 8), 8 * x - 1, labels, 8 * eps, bounds=(-1.0, 7.0))
    # The scale is a power of two, so only the shift rounds.
    torch.testing.assert_close((shifted + 1) / 8, plain, rtol=0, atol=1e-9)


@every
def test_results_do_not_depend_on_the_order_of_the_batch(case):
    model, x, labels = models.two_sided(False)
    order = torch.arange(len(x) - 1, -1, -1)
    options = {} if case[0] is fgm_clipped else {"steps": 5}
    start = run(case, model, x, labels, 0.05, **options)
    turned = run(case, model, x[order], labels[order], 0.05, sample_ids=order, **options)
    torch.testing.assert_close(
        turned[order], start, rtol=0, atol=1e-6
    )  # the model's own products may round differently


@pytest.mark.parametrize(
    "attack",
    [
        lambda *a, **k: slide(*a, random_start=True, step_size=0.001, **k),
        lambda *a, **k: slide(*a, quantile=(0.5, 0.9), **k),
        daa,
        lambda *a, **k: apgd(*a, norm="l2", **k),
    ],
    ids=["slide-start", "slide-quantile", "daa", "apgd"],
)
def test_randomness_is_keyed_by_seed_and_sample(attack):
    model, x, labels = models.two_sided(False)
    state = torch.random.get_rng_state()
    first = attack(model, x, labels, eps=0.01, steps=3)
    assert torch.equal(first, attack(model, x, labels, eps=0.01, steps=3))
    assert not torch.equal(first, attack(model, x, labels, eps=0.01, steps=3, seed=1))
    moved = torch.arange(100, 100 + len(x))
    assert not torch.equal(first, attack(model, x, labels, eps=0.01, steps=3, sample_ids=moved))
    assert torch.equal(torch.random.get_rng_state(), state)


CHANGES = [
    (fgm_clipped, {}, {"scale": 0.01}),
    (bim, {}, {"steps": 2}),
    (bim, {}, {"step_size": 0.002}),
    (bim, {}, {"norm": "l2"}),
    (mim, {"steps": 4}, {"decay": 0.0}),
    (mim, {}, {"step_size": 0.001}),
    (mim, {}, {"norm": "l1"}),
    (slide, {"steps": 4}, {"quantile": 0.5}),
    (slide, {"steps": 4}, {"quantile": (0.2, 0.5)}),
    (slide, {"steps": 4, "step_size": 0.001}, {"random_start": True}),
    (slide, {"steps": 4, "step_size": 0.001}, {"restarts": 2}),
    (slide, {"steps": 4}, {"step_size": 0.002}),
    (daa, {"steps": 4}, {"particles": 3}),
    (daa, {"steps": 4, "step_size": 0.002}, {"interaction": 500.0}),
    (daa, {"steps": 4}, {"step_size": 0.002}),
    (apgd, {}, {"random_start": False}),
    (apgd, {}, {"restarts": 2}),
    (apgd, {}, {"rho": 0.0}),
    (apgd, {}, {"target_classes": 2}),
    (apgd, {"norm": "l1"}, {"large_eps": True}),
    (apgd, {}, {"steps": 30}),
    (daa, {"step_size": 0.002, "steps": 4}, {"steps": 5}),
]


@pytest.mark.parametrize(("attack", "options", "change"), CHANGES, ids=lambda v: getattr(v, "__name__", str(v)))
def test_every_argument_changes_something(attack, options, change):
    model, x = network(), models.inputs(8, dtype=torch.float64)
    labels = model(x).argmax(1)
    eps = 0.02
    assert not torch.equal(
        attack(model, x, labels, eps=eps, **options), attack(model, x, labels, eps=eps, **{**options, **change})
    )


@every
def test_losses_are_different_and_callbacks_stop(case):
    case = (*case[:2], {**case[2], "steps": 6}) if "steps" in case[2] else case
    model, x = network(), models.inputs(8, dtype=torch.float64)
    labels = model(x).argmax(1)
    assert not torch.equal(
        run(case, model, x, labels, 0.03, loss="ce"), run(case, model, x, labels, 0.03, loss="margin")
    )
    steps = []
    run(case, model, x, labels, 0.01, callback=lambda step, state: steps.append(step) or step == 1)
    assert steps == [0, 1]


@every
def test_nan_logits_are_no_success(case):
    model, x, labels = models.two_sided(False)
    calls = []

    def broken(z):
        calls.append(1)
        return model(z) * (torch.nan if len(calls) > 1 else 1.0)

    seen = []
    adv = run(case, broken, x, labels, 0.05, callback=lambda step, state: seen.append(state.adversarial.any()))
    assert not any(seen)
    assert adv.isfinite().all()


# ---- definitions ----


def test_clipped_gradient_is_the_seed_s_formula():
    model, x, labels = models.two_sided(False)
    point = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(model(point), labels, reduction="sum"), point)
    unit = grad / row_norm(grad, "l2").float().reshape(-1, 1, 1, 1)
    for scale, eps in ((100.0, 0.05), (0.1, 0.03), (1e-3, 0.2)):
        adv = fgm_clipped(model, x, labels, eps=eps, scale=scale)
        torch.testing.assert_close(adv, (x + (scale * unit).clamp(-eps, eps)).clamp(0, 1), rtol=0, atol=1e-6)
    sign = pgd(model, x, labels, eps=0.05, steps=1, step_size=0.05, random_start=False)
    torch.testing.assert_close(fgm_clipped(model, x, labels, eps=0.05, scale=1e9), sign, rtol=0, atol=1e-6)


def test_particles_without_interaction_are_restarts():
    model, x = network(), models.inputs(8, dtype=torch.float64)
    labels = model(x).argmax(1)
    eps, found = 0.05, torch.zeros(len(x), dtype=torch.bool)
    for particle in range(3):
        sample = ops.sample_lp_ball(x, math.inf, eps, step=particle)
        point = (x + sample).clamp(0, 1)
        for _ in range(10):
            point.requires_grad_()
            (grad,) = torch.autograd.grad(nn.functional.cross_entropy(model(point), labels, reduction="sum"), point)
            point = (point.detach() + 0.01 * grad.sign()).clamp(x - eps, x + eps).clamp(0, 1)
            found |= fooled(model, point, labels)
    adv = daa(model, x, labels, eps=eps, steps=10, step_size=0.01, particles=3, interaction=0.0, loss="ce")
    assert torch.equal(fooled(model, adv, labels), found)


def test_the_flow_of_particles_is_the_published_one():
    seen = []
    model, x = network(), models.inputs(2, dtype=torch.float64)
    labels = model(x).argmax(1)
    eps, size, c, count = 0.05, 0.002, 1.1, 4
    daa(
        model, x, labels, eps=eps, steps=2, step_size=size, particles=count, interaction=c, loss="ce",
        callback=lambda step, state: seen.append(state.adv.clone()) and False,
    )  # fmt: skip
    for sample in range(len(x)):
        rows = slice(sample * count, (sample + 1) * count)
        particles = seen[0][rows]
        point = particles.clone().requires_grad_()
        (grad,) = torch.autograd.grad(
            nn.functional.cross_entropy(model(point), labels[sample].expand(count), reduction="sum"), point
        )
        flat, g = particles.flatten(1), grad.flatten(1)
        squares = (flat[:, None] - flat[None]).square().sum(2)
        h2 = squares.quantile(0.5) / (2 * math.log(count))
        kernel = torch.exp(-squares / (2 * h2))
        away = torch.stack([(kernel[i, :, None] * (flat[i] - flat)).sum(0) for i in range(count)]) / h2
        flow = g + c / count * (kernel @ g - away)
        expected = (flat + size * flow.sign()).clamp(x[sample].flatten() - eps, x[sample].flatten() + eps).clamp(0, 1)
        torch.testing.assert_close(seen[1][rows].flatten(1), expected, rtol=0, atol=1e-12)


def test_checkpoints_are_the_paper_s():
    from pyrobust.attacks._auto_steps import checkpoints, phases

    assert list(checkpoints(100, math.inf)) == [22, 41, 57, 70, 80, 87, 93, 99]  # Croce and Hein 2020, §3.2
    assert list(checkpoints(100, 1.0)) == list(range(4, 100, 4))
    assert phases(1.0, 100, True) == [(3.0, 30), (2.0, 30), (1.0, 40)]


# ---- peers: float64, the same start, the same steps ----


def last_point(attack, model, x, labels, **options):
    """The final iterate: peers that keep nothing return it."""
    points = []
    attack(model, x, labels, callback=lambda step, state: points.append(state.adv.clone()) and False, **options)
    return points


def sample_data():
    model = network()
    x = torch.rand(24, *models.SHAPE, generator=models.generator(11), dtype=torch.float64)
    return model, x, model(x).argmax(1)


def test_bim_and_mim_are_torchattacks():
    torchattacks = pytest.importorskip("torchattacks")
    model, x, labels = sample_data()
    theirs = torchattacks.BIM(model, eps=0.1, alpha=0.02, steps=10)(x, labels)
    ours = last_point(bim, model, x, labels, eps=0.1, step_size=0.02, steps=10)[-1]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    theirs = torchattacks.MIFGSM(model, eps=0.1, alpha=0.02, steps=10, decay=0.9)(x, labels)
    ours = last_point(mim, model, x, labels, eps=0.1, step_size=0.02, steps=10, decay=0.9)[-1]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_slide_is_foolbox_s_where_no_bound_is_met():
    foolbox = pytest.importorskip("foolbox")
    model, x, labels = sample_data()
    x = 0.4 + 0.2 * x  # foolbox clips after its projection, so that they differ at the bounds
    labels = model(x).argmax(1)
    # Ten steps of 0.05 stay inside the ball: foolbox's projection counts one value too many.
    theirs = foolbox.attacks.SparseL1DescentAttack(quantile=0.9, abs_stepsize=0.05, steps=10)(
        foolbox.PyTorchModel(model, (0, 1), device="cpu"), x, labels, epsilons=0.6
    )[0]
    ours = last_point(slide, model, x, labels, eps=0.6, quantile=0.9, step_size=0.05, steps=10)[-1]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def assert_same_climb(model, labels, ours, theirs):
    """Nearly all points are the same (peers keep the radius in float32); where equal losses round differently the paths
    part."""
    assert torch.equal(fooled(model, ours, labels), fooled(model, theirs, labels))
    assert ((ours - theirs).flatten(1).abs().amax(1) < 1e-6).double().mean() >= 0.9


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.6)])
@pytest.mark.parametrize("steps", [30, 100])
def test_apgd_is_torchattacks(norm, eps, steps, monkeypatch):
    torchattacks = pytest.importorskip("torchattacks")
    model, x, labels = sample_data()
    draw = torch.randn(x.shape, generator=models.generator(12), dtype=torch.float64)
    peer = torchattacks.APGD(model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, steps=steps, loss="ce")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", lambda *shape: (draw + 1) / 2)
        patch.setattr(torch, "randn", lambda *shape: draw)
        best, correct, _, adversarial = peer.attack_single_run(x, labels)
    theirs = torch.where(correct.reshape(-1, 1, 1, 1), best, adversarial)
    noise = draw * (eps / row_norm(draw, norm)).reshape(-1, 1, 1, 1)
    monkeypatch.setattr(ops, "sample_lp_ball", lambda *args, **options: noise)
    assert_same_climb(model, labels, apgd(model, x, labels, norm=norm, eps=eps, steps=steps), theirs)


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_in_l1_is_adv_lib_s(loss, monkeypatch):
    # In linf and l2 adv-lib compares the best loss with itself at every checkpoint, so only l1 can be compared.
    peers = pytest.importorskip("bench.peers")
    module, why = peers.adv_lib()
    if module is None:
        pytest.skip(why)
    from adv_lib.attacks.auto_pgd import _apgd

    model, x, labels = sample_data()
    eps = 2.0
    points = last_point(apgd, model, x, labels, norm="l1", eps=eps, steps=30, loss=loss)
    ours = apgd(model, x, labels, norm="l1", eps=eps, steps=30, loss=loss)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda _: points[0] - x)
        radius = torch.full((len(x),), eps, dtype=torch.float64)
        best, found, _, adversarial = _apgd(
            model=model, inputs=x, labels=labels, eps=radius, norm=1, n_iter=30, loss_function=loss
        )
    assert_same_climb(model, labels, ours, torch.where(found.reshape(-1, 1, 1, 1), adversarial, best))


# ---- errors ----


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        *((attack, {"eps": -1.0}, "eps: expected") for attack in (fgm_clipped, bim, mim, slide, daa, apgd)),
        *((attack, {"norm": "l0"}, "norm: expected") for attack in (fgm_clipped, bim, mim, slide, daa, apgd)),
        *((attack, {"step_size": -0.1}, "step_size: expected") for attack in (bim, mim, slide, daa)),
        *((attack, {"steps": 0}, "steps: expected") for attack in (bim, mim, slide, daa, apgd)),
        (fgm_clipped, {"norm": "l2"}, "norm: expected"),
        (daa, {"norm": "l2"}, "norm: expected"),
        (slide, {"norm": "linf"}, "norm: expected"),
        (fgm_clipped, {"scale": math.inf}, "scale: expected"),
        (mim, {"decay": -1.0}, "decay: expected"),
        (slide, {"quantile": 1.5}, "quantile: expected"),
        (slide, {"quantile": (0.1, 0.2, 0.3)}, "quantile: expected"),
        (slide, {"quantile": (0.9, 0.2)}, "quantile: expected"),
        (slide, {"restarts": 0}, "restarts: expected"),
        (daa, {"particles": 1}, "particles: expected"),
        (daa, {"interaction": -1.0}, "interaction: expected"),
        (apgd, {"rho": 1.5}, "rho: expected"),
        (apgd, {"target_classes": -1}, "target_classes: expected"),
        (apgd, {"target_classes": 2}, "target_classes: the model has 1"),
        (apgd, {"target_classes": 1, "targeted": True}, "target_classes: not together"),
        (apgd, {"target_classes": 1, "loss": "dlr"}, "loss: .* 4 classes"),
        (apgd, {"large_eps": True, "steps": 2}, "steps: expected at least 3"),
        (apgd, {"loss": "hinge"}, "loss: expected"),
    ],
)
def test_bad_options_are_named(attack, options, message):
    model, x, labels = models.two_sided(False)
    with pytest.raises(ValueError, match=message):
        attack(model, x, labels, **{"eps": 0.1, **options})
