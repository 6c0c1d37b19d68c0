"""Objectives with an ascent inside: robust optimisation, adversarial training, TRADES, VAT and adversarial logit pairing."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyrobust.attacks import ddn, fgm, pgd
from pyrobust.training import (
    AdversarialLogitPairing,
    AdversarialTraining,
    CrossEntropy,
    Objective,
    RobustOptimisation,
    Trades,
    VirtualAdversarial,
)

from .toys import (
    Passes,
    batch_of,
    clean_and_robust,
    gradients,
    left_as_found,
    linear,
    network,
    on_digits,
    permuted,
    plain_on_digits,
    value,
)

TERMS = {
    "adversarial": AdversarialTraining(0.1, steps=3),
    "predicted": AdversarialTraining(0.1, steps=2, labels="predicted"),
    "mixed": AdversarialTraining(0.1, steps=2, weight=0.5, smoothing=0.1),
    "attack": AdversarialTraining(0.1, "l2", steps=4, attack="ddn"),
    "robust": RobustOptimisation(0.1),
    "trades": Trades(0.1, steps=3),
    "vat": VirtualAdversarial(0.1),
    "pairing": AdversarialLogitPairing(0.1, steps=2),
}


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)


def moved(point, clean):
    """The perturbations (N, D)."""
    return (point - clean).flatten(1)


def points_of(term, model, batch):
    """The input of the last forward pass before the backward pass: where the loss is taken."""
    seen = []
    hook = model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    value(term, model, batch)
    hook.remove()
    return seen[-1]


# ---- closed forms ----


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_robust_optimisation_takes_the_exact_worst_case_of_a_linear_classifier(norm):
    """With two classes the loss is a function of the margin alone, which falls by eps times the dual norm."""
    model, batch, eps = linear(classes=2), batch_of(classes=2), 0.05
    loss = value(RobustOptimisation(eps, norm), model, batch)
    weight = model[1].weight[1] - model[1].weight[0]
    fall = eps * torch.linalg.vector_norm(weight, {"linf": 1, "l2": 2, "l1": math.inf}[norm])
    z = model(batch.inputs)
    margin = (z[:, 1] - z[:, 0]) * (2 * batch.labels - 1)
    # A dozen roundings of float64 on numbers near 1.
    torch.testing.assert_close(loss, F.softplus(-(margin - fall)).mean(), rtol=1e-13, atol=0)


@pytest.mark.parametrize(("norm", "changed"), [("linf", 12), ("l2", 12), ("l1", 1)])
def test_robust_optimisation_moves_along_the_sign_the_gradient_or_one_value(norm, changed):
    model, batch = network(), batch_of()
    point = batch.inputs.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(point), batch.labels, reduction="sum"), point)
    step, grad = moved(points_of(RobustOptimisation(0.2, norm), model, batch), batch.inputs), grad.flatten(1)
    assert ((step != 0).sum(1) == changed).all()
    power = {"linf": grad.sign(), "l2": grad, "l1": torch.where(grad.abs() == grad.abs().amax(1, True), grad, 0)}[norm]
    size = torch.linalg.vector_norm(power, {"linf": math.inf, "l2": 2, "l1": 1}[norm], dim=1, keepdim=True)
    torch.testing.assert_close(step, 0.2 * power / size, rtol=1e-12, atol=1e-15)


def test_the_ascent_is_projected_gradient_ascent_step_by_step():
    model, batch, eps, size = network(), batch_of(bounds=(0.25, 0.65)), 0.1, 0.04
    batch.inputs.clamp_(*batch.bounds)
    term = AdversarialTraining(eps, "l2", steps=4, step_size=size, random_start=False)
    adv = batch.inputs.clone()
    for _ in range(4):
        point = adv.clone().requires_grad_()
        F.cross_entropy(model(point), batch.labels).backward()
        unit = point.grad / point.grad.flatten(1).norm(dim=1).reshape(-1, 1, 1)
        step = adv + size * unit - batch.inputs
        step = step * (eps / step.flatten(1).norm(dim=1)).clamp(max=1).reshape(-1, 1, 1)
        adv = (batch.inputs + step).clamp(*batch.bounds)
    model.zero_grad()
    torch.testing.assert_close(term.points(model, batch), adv, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(value(term, model, batch), F.cross_entropy(model(adv), batch.labels), rtol=1e-12, atol=0)


def test_the_mixed_loss_adds_the_weighted_adversarial_one():
    model, batch = network(), batch_of()
    alone = AdversarialTraining(0.1, steps=2)
    mixed = AdversarialTraining(0.1, steps=2, weight=0.25)
    clean = F.cross_entropy(model(batch.inputs), batch.labels)
    torch.testing.assert_close(
        value(mixed, model, batch), clean + 0.25 * value(alone, model, batch), rtol=1e-13, atol=0
    )


def kl(p, q):
    return (p * (p.log() - q.log())).sum(1)


def test_trades_is_the_divergence_at_a_local_maximum_in_the_ball():
    model, batch, eps = network(), batch_of(), 0.1
    term = Trades(eps, "linf", steps=20)
    loss, adv = value(term, model, batch), points_of(term, model, batch)
    p = model(batch.inputs).softmax(1)
    torch.testing.assert_close(loss, kl(p, model(adv).softmax(1)).mean(), rtol=1e-10, atol=0)
    point = adv.clone().requires_grad_()
    (grad,) = torch.autograd.grad(kl(p.detach(), model(point).softmax(1)).sum(), point)
    # At a corner of the cube, and every way off it is a way down.
    torch.testing.assert_close(adv - batch.inputs, eps * grad.sign(), rtol=0, atol=1e-14)


def test_both_predictions_of_trades_are_trained():
    model, batch = network(), batch_of()
    term = Trades(0.1, steps=3)
    adv = points_of(term, model, batch)
    expected = torch.autograd.grad(
        kl(model(batch.inputs).softmax(1), model(adv).softmax(1)).mean(), list(model.parameters())
    )
    # The last bias of a softplus network: differences of probabilities near 1, at 1e-16 each.
    torch.testing.assert_close(gradients(term, model, batch), list(expected), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_vat_finds_the_top_direction_of_the_exact_hessian(norm):
    """H = Jᵀ (diag p − p pᵀ) J; many steps with a short difference against the power method written out on H."""
    model, batch = network(), batch_of()
    term = VirtualAdversarial(0.1, norm, steps=60, xi=1e-4)
    found = term.direction(model, batch).flatten(1)
    jac = torch.stack(
        [torch.autograd.functional.jacobian(lambda x: model(x[None])[0], x) for x in batch.inputs]
    ).flatten(2)
    p = model(batch.inputs).softmax(1)
    hessian = jac.mT @ (torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)) @ jac
    for d, h in zip(found, hessian.detach(), strict=True):
        g = h @ d
        best = {"l2": g / g.norm(), "linf": g.sign(), "l1": torch.where(g.abs() == g.abs().max(), g.sign(), 0)}[norm]
        # A fixed point of the power method; the difference quotient errs by O(xi) relative to curvature near 1.
        torch.testing.assert_close(d, best, rtol=0, atol=1e-3)
    if norm == "l2":
        top = torch.linalg.eigh(hessian)[1][..., -1]
        assert ((found * top).sum(1).abs() > 1 - 1e-5).all()


def test_vat_is_the_divergence_along_its_direction_with_the_clean_prediction_held_constant():
    model, batch, eps = network(), batch_of(), 0.3
    term = VirtualAdversarial(eps)
    point = batch.inputs + eps * term.direction(model, batch)
    p = model(batch.inputs).softmax(1).detach()
    hand = kl(p, model(point).softmax(1)).mean()
    torch.testing.assert_close(value(term, model, batch), hand, rtol=1e-10, atol=0)
    expected = list(torch.autograd.grad(hand, list(model.parameters())))
    torch.testing.assert_close(gradients(term, model, batch), expected, rtol=1e-9, atol=1e-14)


def test_vat_in_float32_points_where_float64_does_even_where_the_model_is_certain():
    """p(x) is within 1e-6 of 0 and 1: differences of probabilities would be rounding errors."""
    model = network()
    with torch.no_grad():
        model[-1].weight *= 30
    double, single = batch_of(), batch_of(dtype=torch.float32)
    assert (model(double.inputs).softmax(1).amax(1) > 1 - 1e-6).any()
    noise = VirtualAdversarial(1.0, xi=1e-3)
    exact = noise.direction(model, double).flatten(1)
    found = noise.direction(model.float(), single).flatten(1).double()
    # The starts of the two dtypes agree to 2⁻²⁴; logits near 30 with that relative error over a difference of 1e-3 · slope.
    assert ((exact * found).sum(1) > 0.999).all()


def test_logit_pairing_adds_the_mean_square_of_the_change():
    model, batch = network(), batch_of()
    term = AdversarialLogitPairing(0.1, steps=2, weight=0.7)
    adv = points_of(term, model, batch)
    z, moved_z = model(batch.inputs), model(adv)
    mixed = F.cross_entropy(torch.cat([z, moved_z]), batch.labels.repeat(2))
    hand = mixed + 0.7 * (z - moved_z).pow(2).sum() / z.numel()
    torch.testing.assert_close(value(term, model, batch), hand, rtol=1e-13, atol=0)
    assert value(AdversarialLogitPairing(0.1, steps=2, weight=0), model, batch) < hand


# ---- arguments ----


def test_training_is_plain_before_the_start_and_eps_then_grows():
    model = network()
    term = AdversarialTraining(0.2, steps=1, step_size=1.0, start=2, warmup=4, random_start=False)
    for epoch, eps in ((0.0, 0.0), (1.99, 0.0), (2.0, 0.0), (3.0, 0.05), (5.0, 0.15), (6.0, 0.2), (9.0, 0.2)):
        batch = batch_of(epoch=epoch)
        reached = moved(points_of(term, model, batch), batch.inputs).abs()
        assert torch.allclose(reached, torch.full_like(reached, eps), atol=1e-12), epoch


def test_a_step_grows_with_eps_during_the_warm_up():
    model, batch = network(), batch_of(epoch=1.0)
    term = AdversarialTraining(0.2, steps=1, step_size=0.1, warmup=4, random_start=False)
    reached = moved(term.points(model, batch), batch.inputs).abs()
    torch.testing.assert_close(reached, torch.full_like(reached, 0.025), rtol=0, atol=1e-12)


def test_predicted_labels_are_those_that_the_ascent_moves_away_from():
    model, batch = network(), batch_of()
    predicted = model(batch.inputs).argmax(1)
    assert (predicted != batch.labels).any()
    options = {"steps": 2, "random_start": False}
    of_predicted = AdversarialTraining(0.1, labels="predicted", **options).points(model, batch)
    as_labels = batch_of()
    as_labels.labels = predicted
    assert torch.equal(of_predicted, AdversarialTraining(0.1, **options).points(model, as_labels))
    assert not torch.equal(of_predicted, AdversarialTraining(0.1, **options).points(model, batch))
    with_weight = AdversarialTraining(0.1, labels="predicted", weight=1.0, **options)
    assert torch.equal(with_weight.points(model, batch), of_predicted)


def test_the_random_start_is_in_the_ball_and_another_at_every_step():
    model = network()
    term = AdversarialTraining(0.1, steps=1, step_size=0.0)
    first, again, later, seeded = (
        term.points(model, batch_of(**key)) for key in ({"step": 1}, {"step": 1}, {"step": 2}, {"step": 1, "seed": 9})
    )
    assert torch.equal(first, again)
    for other in (later, seeded):
        assert (first != other).all()
    assert 0.05 < (first - batch_of().inputs).abs().amax() <= 0.1
    still = AdversarialTraining(0.1, steps=1, step_size=0.0, random_start=False).points(model, batch_of())
    assert torch.equal(still, batch_of().inputs)


@pytest.mark.parametrize(
    ("attack", "norm", "by_hand"),
    [
        ("fgm", "linf", functools.partial(fgm, eps=0.1)),
        (functools.partial(fgm, loss="margin"), "linf", functools.partial(fgm, eps=0.1, loss="margin")),
        (pgd, "l2", functools.partial(pgd, eps=0.1, norm="l2", steps=3, step_size=0.02, random_start=False)),
        (functools.partial(pgd, steps=1), "l2", functools.partial(pgd, eps=0.1, norm="l2", steps=1, step_size=0.02, random_start=False)),
    ],
)  # fmt: skip
def test_another_attack_is_given_what_it_takes(attack, norm, by_hand):
    model, batch = network(), batch_of()
    term = AdversarialTraining(0.1, norm, steps=3, step_size=0.02, random_start=False, attack=attack)
    expected = by_hand(model, batch.inputs, batch.labels)
    torch.testing.assert_close(term.points(model, batch), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(value(term, model, batch), F.cross_entropy(model(expected), batch.labels))


def test_the_points_of_a_minimum_norm_attack_are_projected_onto_the_ball():
    model, batch = linear(), batch_of()
    with torch.no_grad():
        model[1].bias.copy_(-0.5 * model[1].weight.sum(1))  # the boundaries meet in the middle of the box
    batch.labels = model(batch.inputs).argmax(1)
    free = ddn(model, batch.inputs, batch.labels, steps=20)
    length = moved(free, batch.inputs).norm(dim=1)
    assert (length > 0).all()
    eps = length.median().item()
    adv = AdversarialTraining(eps, "l2", steps=20, attack="ddn").points(model, batch)
    hand = batch.inputs + (free - batch.inputs) * (eps / length).clamp(max=1).reshape(-1, 1, 1)
    torch.testing.assert_close(adv, hand, rtol=0, atol=1e-12)


def test_an_attack_is_seeded_by_seed_and_step():
    model = network()
    term = AdversarialTraining(0.1, steps=1, step_size=0.0, attack="pgd", start=0)
    points = [term.points(model, batch_of(**key)) for key in ({}, {}, {"step": 4}, {"seed": 3})]
    assert torch.equal(points[0], points[1])
    assert not torch.equal(points[0], points[2])
    assert not torch.equal(points[0], points[3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdversarialTraining(-1), "eps: expected"),
        (
            lambda: AdversarialTraining(0.1, attack=functools.partial(pgd, eps=0.2, seed=1)),
            "attack: eps, seed: expected",
        ),
        (lambda: AdversarialTraining(0.1, "l0"), "norm: expected"),
        (lambda: AdversarialTraining(0.1, steps=0), "steps: expected"),
        (lambda: AdversarialTraining(0.1, step_size=-1), "step_size: expected"),
        (lambda: AdversarialTraining(0.1, weight=-1), "weight: expected"),
        (lambda: AdversarialTraining(0.1, labels="guessed"), "labels: expected"),
        (lambda: AdversarialTraining(0.1, start=-1), "start: expected"),
        (lambda: AdversarialTraining(0.1, warmup=math.inf), "warmup: expected"),
        (lambda: AdversarialTraining(0.1, attack="pdg"), "attack: expected"),
        (lambda: AdversarialTraining(0.1, "linf", attack="ddn"), "attack: expected one for norm linf, got one for l2"),
        (lambda: RobustOptimisation("big"), "eps: expected"),
        (lambda: Trades(0.1, steps=True), "steps: expected"),
        (lambda: VirtualAdversarial(0.1, xi=0), "xi: expected"),
        (lambda: VirtualAdversarial(0.1, norm="l0"), "norm: expected"),
        (lambda: AdversarialLogitPairing(0.1, weight=math.nan), "weight: expected"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- what training relies on ----


@pytest.mark.parametrize("name", TERMS)
def test_a_sample_does_not_depend_on_those_beside_it(name):
    model, batch = network(), batch_of()
    together = points_of(TERMS[name], model, batch)
    order = torch.tensor([4, 0, 5, 1])
    # Matrix products of another shape may round otherwise.
    torch.testing.assert_close(
        points_of(TERMS[name], model, permuted(batch, order)), together[order], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("name", "training_passes"),
    [("adversarial", 1), ("predicted", 1), ("mixed", 2), ("attack", 1), ("robust", 1), ("trades", 2), ("vat", 2), ("pairing", 2)],
)  # fmt: skip
def test_batch_norm_sees_the_passes_of_the_loss_and_none_of_the_ascent(name, training_passes):
    model = network(extras=True).train()
    value(TERMS[name], model, batch_of(16)).backward()
    assert model[2].num_batches_tracked == training_passes
    assert all(module.training for module in model.modules())
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "inner",
    [TERMS["adversarial"].points, TERMS["predicted"].points, TERMS["attack"].points, TERMS["vat"].direction],
    ids=["adversarial", "predicted", "attack", "vat"],
)
def test_the_ascent_leaves_no_trace(inner):
    model = network(extras=True).train()
    with left_as_found(model):
        assert not inner(model, batch_of(16)).requires_grad


@pytest.mark.parametrize("name", TERMS)
def test_the_same_key_gives_the_same_bits(name):
    model = network()
    first, second = (gradients(TERMS[name], model, batch_of()) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_mode_inside_the_ascent_is_an_option():
    model = network(extras=True).train()
    inside = AdversarialTraining(0.1, steps=2, random_start=False)
    batch = batch_of(16)
    assert torch.equal(inside.points(model, batch), inside.points(model.eval(), batch))
    own = AdversarialTraining(0.1, steps=2, random_start=False, eval_mode=False)
    with left_as_found(model.train()):
        points = own.points(model, batch)
    assert not torch.equal(points, inside.points(model, batch))


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [("adversarial", 4, 4), ("predicted", 4, 3), ("mixed", 4, 4), ("robust", 2, 2), ("trades", 6, 5), ("vat", 4, 2), ("pairing", 4, 4)],
)  # fmt: skip
def test_the_passes_are_those_that_the_docstring_counts(name, forward, backward):
    """With the clean ones included, where the term asks for them."""
    model = network()
    passes = Passes(model)
    value(TERMS[name], model, batch_of()).backward()
    assert (passes.forward, passes.backward) == (forward, backward)


@pytest.mark.parametrize("weight", [None, 0.5])
def test_smoothed_labels_are_those_of_the_losses_and_not_of_the_ascent(weight):
    model, batch = network(), batch_of()
    term = AdversarialTraining(0.1, steps=2, weight=weight, smoothing=0.2)
    adv = term.points(model, batch)
    assert torch.equal(adv, AdversarialTraining(0.1, steps=2, weight=weight).points(model, batch))
    soft = 0.8 * F.one_hot(batch.labels, 4).double() + 0.2 / 4

    def loss(points):
        return -(soft * model(points).log_softmax(1)).sum(1).mean()

    expected = loss(adv) if weight is None else loss(batch.inputs) + weight * loss(adv)
    torch.testing.assert_close(value(term, model, batch), expected, rtol=1e-13, atol=0)
    late = AdversarialTraining(0.1, start=1.0, smoothing=0.2)  # plain training at first, on the same labels
    torch.testing.assert_close(value(late, model, batch), loss(batch.inputs), rtol=1e-13, atol=0)


@pytest.mark.parametrize("term", [AdversarialTraining(0.1, steps=2, random_start=False), RobustOptimisation(0.1)])
def test_confident_samples_are_attacked_in_float16(term):
    """A slope of e⁻³⁰ with respect to the logits is 0 in float16, whose smallest number is 6e-8."""
    model, batch = linear(classes=2).float(), batch_of(dtype=torch.float32, classes=2)
    with torch.no_grad():
        model[1].bias[:] = torch.tensor([0.0, 0.0])
        model[1].weight.mul_(60.0)
    batch.labels = model(batch.inputs).argmax(1)
    assert (-F.cross_entropy(model(batch.inputs), batch.labels, reduction="none").expm1()).max() < 6e-8
    expected = points_of(term, model, batch)
    with torch.autocast("cpu", dtype=torch.float16):
        assert torch.equal(points_of(term, model, batch), expected)
    assert (expected != batch.inputs).any(2).all()


@pytest.mark.parametrize("name", TERMS)
def test_terms_work_under_autocast(name):
    model, batch = network(dtype=torch.float32), batch_of(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = value(TERMS[name], model, batch)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model[1].weight.grad.abs().max() > 0


def test_the_direction_of_vat_is_found_in_full_precision():
    """Differences of length xi are below what bfloat16 resolves in the inputs."""
    model, batch = network(dtype=torch.float32), batch_of(dtype=torch.float32)
    term = VirtualAdversarial(0.5)
    expected = term.direction(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(term.direction(model, batch), expected)


# ---- effect ----


@pytest.mark.parametrize(
    "objective",
    [
        Objective(adversarial=AdversarialTraining(0.12, steps=4)),
        Objective(fast=AdversarialTraining(0.12, steps=1, step_size=0.15)),
        Objective(robust=RobustOptimisation(0.12)),
        Objective(ce=CrossEntropy(), trades=(6, Trades(0.1, steps=4))),
        Objective(ce=CrossEntropy(), vat=(1, VirtualAdversarial(1.2))),
        Objective(pairing=AdversarialLogitPairing(0.12, steps=4)),
    ],
    ids=["adversarial", "fast", "robust", "trades", "vat", "pairing"],
)
def test_training_makes_digits_robust(objective):
    """Plain training leaves half of the test digits right under PGD; each method at least 10 points more (3.5 standard
    errors of 300 images), for at most 4 points of clean accuracy."""
    plain_clean, plain_robust = clean_and_robust(plain_on_digits())
    clean, robust = clean_and_robust(on_digits(objective))
    assert robust >= plain_robust + 0.10
    assert clean >= plain_clean - 0.04


def test_l2_and_l1_training_make_digits_robust_in_their_norms():
    for norm, eps in (("l2", 0.6), ("l1", 2.0)):
        plain = clean_and_robust(plain_on_digits(), norm, eps)[1]
        trained = on_digits(Objective(adversarial=AdversarialTraining(eps, norm, steps=4)))
        assert clean_and_robust(trained, norm, eps)[1] >= plain + 0.10


def test_an_undefined_model_is_not_hidden():
    """A model that returns NaN gives NaN, which the trainer reports, and no error of ours."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).double()
    nn.init.constant_(model[1].bias, math.nan)
    assert value(AdversarialTraining(0.1, steps=2), model, batch_of()).isnan()
