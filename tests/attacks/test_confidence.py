"""Attacks that raise the probability of a class, against the closed form of two linear classes.

There p_t ≥ C iff the margin z_t − z_y reaches log(C / (1 − C)), a half-space, and the way to it is straight, with a box as
without: clamping the sum of steps along w is the nearest point in l2. So the excess over the nearest point is at most the last
step's: what `high_confidence` adds to a Newton step, which by concavity stays below C by itself, or the step of the ascent.
"""

from __future__ import annotations

import math

import pytest
import torch
from oracles import half_space, row_norm
from torch import nn

from pyrobust.analysis import softmax_temperature
from pyrobust.attacks import confident_ascent, high_confidence
from pyrobust.attacks._confidence import nearest_class

from . import models

ASCENT_STEP = 0.01
EXCESS = {high_confidence: 1e-4, confident_ascent: ASCENT_STEP}
ROUNDING = 2e-5  # of the points, in l2
both = pytest.mark.parametrize("attack", EXCESS, ids=lambda attack: attack.__name__)


def run(attack, *arguments, **options):
    if attack is confident_ascent:
        options = {"step_size": ASCENT_STEP, **options}
    return attack(*arguments, **options)


def probability(model, x, classes, temperature=1.0):
    with torch.no_grad():
        return torch.softmax(model(x) / temperature, 1).gather(1, classes.unsqueeze(1)).squeeze(1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Softplus(), nn.Flatten(), nn.Linear(128, 4)
    )


@both
@pytest.mark.parametrize("confidence", [0.6, 0.9, 0.999])
@pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])
def test_two_classes_are_crossed_at_the_nearest_point_with_the_confidence(attack, confidence, binding):
    model, x, labels = models.two_sided(binding)
    w, b = model.weight[labels] - model.weight[1 - labels], model.bias[labels] - model.bias[1 - labels]
    optimum, _ = half_space(x, w, b + math.log(confidence / (1 - confidence)), "l2", (0.0, 1.0))
    adv = run(attack, model, x, labels, confidence=confidence)
    assert (probability(model, adv, 1 - labels) >= confidence * (1 - 1e-6)).all()
    distance = row_norm(adv - x, "l2")
    assert (distance >= optimum - ROUNDING).all()
    assert (distance <= optimum + EXCESS[attack] + ROUNDING).all()
    targeted = run(attack, model, x, 1 - labels, confidence=confidence, targeted=True)
    assert torch.equal(targeted, adv)


@both
def test_many_classes(attack):
    model, x = models.linear(6), models.inputs()
    labels = model(x).argmax(1)
    chosen = []
    adv = run(attack, model, x, labels, confidence=0.8, callback=lambda step, state: chosen.append(state.targets))
    assert (model(adv).argmax(1) == chosen[0]).all()
    # p_t ≥ C leaves at most 1 − C for the label, so the half-space of two classes bounds the distance from below.
    w, b = model.weight[labels] - model.weight[chosen[0]], model.bias[labels] - model.bias[chosen[0]]
    bound, _ = half_space(x, w, b + math.log(0.8 / 0.2), "l2", (0.0, 1.0))
    assert (row_norm(adv - x, "l2") >= bound - ROUNDING).all()
    nearest = torch.stack(
        [
            half_space(x, model.weight[labels] - model.weight[j], model.bias[labels] - model.bias[j], "l2")[0]
            for j in range(6)
        ]
    )
    nearest[labels, torch.arange(len(x))] = math.inf
    assert torch.equal(chosen[0], nearest.argmin(0))
    run(attack, model, x, labels, top_k=1, callback=lambda step, state: chosen.append(state.targets) or True)
    assert torch.equal(chosen[-1], model(x).topk(2, 1).indices[:, 1])
    assert not torch.equal(chosen[-1], chosen[0])


@both
def test_a_confidence_for_each_sample(attack):
    model, x, labels = models.two_sided(False)
    wanted = torch.linspace(0.55, 0.99, len(x))
    adv = run(attack, model, x, labels, confidence=wanted)
    for i in (0, 11, 23):
        one = slice(i, i + 1)
        alone = run(attack, model, x[one], labels[one], confidence=wanted[i].item())
        torch.testing.assert_close(adv[one], alone, rtol=0, atol=1e-6)
    assert (probability(model, adv, 1 - labels) >= wanted * (1 - 1e-6)).all()


@both
def test_a_low_confidence_still_has_to_win(attack):
    model, x = models.linear(6, reach=0.05), models.inputs()
    model.weight /= 20  # nearly uniform probabilities
    model.bias /= 20
    labels = model(x).argmax(1)
    adv = run(attack, model, x, labels, confidence=0.1)
    assert (model(adv).argmax(1) != labels).all()


def test_the_default_confidence_is_that_of_the_input():
    model, x, labels = models.two_sided(False)
    clean = probability(model, x, labels)
    adv = high_confidence(model, x, labels)
    assert (probability(model, adv, 1 - labels) >= clean * (1 - 1e-6)).all()
    torch.testing.assert_close(adv, high_confidence(model, x, labels, confidence=clean), rtol=0, atol=1e-6)


@both
def test_samples_that_are_there_already_stay(attack):
    model, x, labels = models.two_sided(False)
    low = probability(model, x, labels).min().item()
    assert torch.equal(run(attack, model, x, 1 - labels), x)
    assert torch.equal(run(attack, model, x, labels, confidence=0.9 * low, targeted=True), x)
    assert not torch.equal(run(attack, model, x, labels, confidence=1.1 * low, targeted=True), x)


@both
def test_steps_their_size_and_their_callback(attack):
    model, x = network().eval(), models.inputs()
    labels = model(x).argmax(1)
    seen = []
    limit = {"max_step": 0.02} if attack is high_confidence else {"step_size": 0.02}
    adv = attack(model, x, labels, confidence=0.99, steps=4, callback=lambda s, state: seen.append(state), **limit)
    assert len(seen) == 4
    moved = [
        row_norm(after - before, "l2")
        for before, after in zip([s.adv for s in seen], [s.adv for s in seen[1:]] + [adv], strict=True)
    ]
    torch.testing.assert_close(
        torch.stack(moved), torch.full((4, len(x)), 0.02, dtype=torch.float64), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(seen[2].confidence, probability(model, seen[2].adv, seen[2].targets))
    assert torch.equal(seen[2].reached, seen[2].confidence >= 0.99)
    stopped = attack(model, x, labels, confidence=0.99, callback=lambda s, state: s == 2, **limit)
    assert torch.equal(stopped, seen[2].adv)


@both
def test_other_bounds_and_float64(attack):
    model, x = models.linear(4, dtype=torch.float64), models.inputs(dtype=torch.float64)
    labels = model(x).argmax(1)
    plain = run(attack, model, x, labels)
    shifted = run(attack, lambda z: model((z + 1) / 8), 8 * x - 1, labels, bounds=(-1.0, 7.0))
    assert plain.dtype == torch.float64
    torch.testing.assert_close((shifted + 1) / 8, plain, rtol=0, atol=1e-9)


@both
def test_a_vanishing_gradient_moves_nothing(attack):
    x = models.inputs(4)
    flat = lambda z: z.flatten(1)[:, :3] * 0 + torch.tensor([1.0, 0.0, 0.0])  # noqa: E731
    assert torch.equal(run(attack, flat, x, torch.zeros(4, dtype=torch.int64), steps=3), x)


@both
def test_finished_batches_stop_early(attack):
    model, x, labels = models.two_sided(False)
    calls = []
    run(attack, model, x, labels, confidence=0.6, steps=100000, callback=lambda s, state: calls.append(s))
    assert len(calls) <= 200


def test_temperature_scales_the_confidence():
    model, x, labels = models.two_sided(False)
    soft = confident_ascent(model, x, labels, temperature=3.0, step_size=ASCENT_STEP)
    reached = probability(model, soft, 1 - labels, temperature=3.0)
    assert (reached >= 0.95).all()
    assert (row_norm(soft - x, "l2") > row_norm(run(confident_ascent, model, x, labels) - x, "l2")).all()
    temperature = softmax_temperature(model(x), 0.9)
    scores = torch.softmax(model(x) / temperature, 1).amax(1)
    assert scores.median().item() == pytest.approx(0.9, abs=1e-6)


# ---- differentiation through the steps ----


class Stop(torch.autograd.Function):
    """1[p < C], with the derivative of sigmoid(C − p)."""

    @staticmethod
    def forward(ctx, p, c):
        ctx.save_for_backward(torch.sigmoid(c - p))
        return (p < c).to(p.dtype)

    @staticmethod
    def backward(ctx, grad):
        (s,) = ctx.saved_tensors
        return -grad * s * (1 - s), None


def by_hand(model, x, targets, confidence, steps):
    """Algorithm 1 as it stands, and the straight-through stop."""
    c = torch.tensor(confidence, dtype=x.dtype)
    adv, gate = x.clone().requires_grad_(), 1.0
    for _ in range(steps):
        log_p = torch.log_softmax(model(adv), 1).gather(1, targets.unsqueeze(1)).squeeze(1)
        (w,) = torch.autograd.grad(log_p.sum(), adv, create_graph=True)
        gate = gate * Stop.apply(log_p.exp(), c)
        norm = w.flatten(1).norm(dim=1)
        length = gate * ((c.log() - log_p) / norm + 1e-4)
        adv = (adv + (length / norm).reshape(-1, 1, 1, 1) * w).clamp(0, 1)
    return adv


@pytest.mark.parametrize("steps", [1, 4])
def test_the_derivative_is_that_of_algorithm_1_with_the_straight_through_stop(steps):
    model, x = network().eval().double(), models.inputs(dtype=torch.float64)
    with torch.no_grad():
        model[-1].weight *= 20  # steep enough that no step is longer than the diagonal of the box
    targets = (model(x).argmax(1) + 1) % 4
    parameters = list(model.parameters())
    ours = high_confidence(
        model, x, targets, confidence=0.9, steps=steps, max_step=None, differentiable=True, targeted=True
    )
    hand = by_hand(model, x, targets, 0.9, steps)
    direction = torch.randn(x.shape, generator=models.generator(1), dtype=x.dtype)
    torch.testing.assert_close(ours, hand)
    assert (ours != x).any()
    gradients = [torch.autograd.grad((adv * direction).sum(), parameters) for adv in (ours, hand)]
    assert max(g.abs().max() for g in gradients[0]) > 0
    torch.testing.assert_close(*gradients)


def test_differentiable_results_have_the_same_values():
    model, x = network().eval(), models.inputs()
    labels = model(x).argmax(1)
    for options in ({"steps": 5, "max_step": None}, {"steps": 25, "confidence": 0.6}):
        plain = high_confidence(model, x, labels, **options)
        graph = high_confidence(model, x, labels, differentiable=True, **options)
        assert not plain.requires_grad
        assert graph.requires_grad
        torch.testing.assert_close(graph, plain, rtol=0, atol=0)


def test_training_through_the_attack_moves_the_boundary_away():
    model, x, labels = models.two_sided(False)
    model.requires_grad_(True)

    def distance():
        adv = high_confidence(model, x, labels, confidence=0.9, steps=20, max_step=None, differentiable=True)
        return (adv - x).flatten(1).norm(dim=1).mean()

    before = distance()
    before.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1e-3 * parameter.grad
    assert distance() > before


@pytest.mark.parametrize("eval_mode", [True, False])
def test_a_network_with_batch_norm_can_be_trained_through_the_attack(eval_mode):
    model, x = network().train(), models.inputs()
    labels = model(x).argmax(1)
    before = [b.clone() for b in model.buffers()]
    adv = high_confidence(model, x, labels, steps=3, differentiable=True, eval_mode=eval_mode)
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    nn.functional.cross_entropy(model(adv), labels).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_nearest_class_prefers_the_nearer_boundary_to_the_likelier_class():
    logits = lambda z: torch.stack([z[:, 0] * 0, z[:, 0] - 1.0, 10 * (z[:, 0] - 0.6)], 1)  # noqa: E731
    x, labels = torch.full((1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    assert nearest_class(logits, x, labels, logits(x), 2).tolist() == [2]
    assert nearest_class(logits, x, labels, logits(x), 1).tolist() == [1]


@both
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 1.0}, "confidence"),
        ({"confidence": 0.0}, "confidence"),
        ({"confidence": "high"}, "confidence"),
        ({"confidence": torch.full((3,), 0.5)}, "confidence"),
        ({"top_k": 0}, "top_k"),
        ({"steps": 0}, "steps"),
    ],
)
def test_bad_options_are_named(attack, options, message):
    model, x, labels = models.two_sided(False)
    with pytest.raises(ValueError, match=f"^{message}: expected"):
        attack(model, x, labels, **options)


def test_options_of_one_attack_are_named():
    model, x, labels = models.two_sided(False)
    for value in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match=r"^max_step: expected"):
            high_confidence(model, x, labels, max_step=value)
        with pytest.raises(ValueError, match=r"^step_size: expected"):
            confident_ascent(model, x, labels, step_size=value)
        with pytest.raises(ValueError, match=r"^temperature: expected"):
            confident_ascent(model, x, labels, temperature=value)
