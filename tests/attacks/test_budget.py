"""FGM and PGD: inside ball and box, and successful exactly where the closed form says that they can be."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import row_norm

from pyrobust._counting import counted
from pyrobust.attacks import bim, fgm, fgm_clipped, mim, pgd, slide

from . import models

NORMS = ("linf", "l2", "l1")
ATTACKS = {"fgm": fgm, "pgd": lambda *a, **k: pgd(*a, steps=60, **k)}


def fooled(model, adv, labels):
    with torch.no_grad():
        return model(adv).argmax(1) != labels


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])
def test_results_stay_in_ball_and_box(norm, name, binding):
    model, x, labels = models.two_sided(binding)
    for eps in (0.0, 0.01, 0.3, 5.0):
        adv = ATTACKS[name](model, x, labels, norm=norm, eps=eps)
        assert (row_norm(adv - x, norm) <= eps * (1 + 1e-5) + 1e-6).all()
        assert adv.min() >= 0
        assert adv.max() <= 1


@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
@pytest.mark.parametrize("norm", NORMS)
def test_pgd_never_succeeds_before_the_distance(norm, loss):
    model, x = models.linear(5), models.inputs()
    labels = model(x).argmax(1)
    distance = model.nearest(x, labels, norm, (0.0, 1.0))[0]
    for index in range(0, len(x), 4):
        one = slice(index, index + 1)
        adv = pgd(
            model, x[one], labels[one], norm=norm, eps=0.98 * distance[index].item(), steps=50, loss=loss, restarts=2
        )
        assert not fooled(model, adv, labels[one]).item()


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("norm", NORMS)
def test_pgd_succeeds_just_beyond_the_distance_of_the_only_other_class(norm, loss):
    model, x, labels = models.two_sided(False)
    distance = model.nearest(x, labels, norm, (0.0, 1.0))[0]
    for index in range(0, len(x), 4):
        one = slice(index, index + 1)
        for share in (0.98, 1.03):
            eps = share * distance[index].item()
            adv = pgd(model, x[one], labels[one], norm=norm, eps=eps, steps=100, loss=loss)
            assert fooled(model, adv, labels[one]).item() == (share > 1)


def test_one_step_is_enough_for_two_linear_classes():
    model, x, labels = models.two_sided(False)
    for norm in ("linf", "l2"):
        eps = 1.02 * model.nearest(x, labels, norm)[0].max().item()
        assert fooled(model, fgm(model, x, labels, norm=norm, eps=eps), labels).all()
        assert not fooled(model, fgm(model, x, labels, norm=norm, eps=0.4 * eps), labels).all()


def test_sparse_l1_steps_move_a_share_of_the_values():
    model, x, labels = models.two_sided(False)
    dense = fgm(model, x, labels, norm="l1", eps=0.01, sparsity=0.25)
    single = fgm(model, x, labels, norm="l1", eps=0.01)
    assert (row_norm(dense - x, "l0") == 12).all()
    assert (row_norm(single - x, "l0") == 1).all()


def test_targets_are_approached():
    model, x = models.linear(4), models.inputs()
    labels = model(x).argmax(1)
    targets = (labels + 1) % 4
    adv = pgd(model, x, targets, norm="l2", eps=3.0, steps=60, targeted=True)
    assert (model(adv).argmax(1) == targets).all()
    with pytest.raises(ValueError, match="loss"):
        pgd(model, x, targets, eps=0.1, loss="dlr", targeted=True)


def test_a_loss_of_clean_and_perturbed_logits():
    model, x = models.linear(2), models.inputs()
    model.weight[1] = -model.weight[0]  # one singular vector, to which ascent turns at once
    labels = model(x).argmax(1)
    seen = []

    def distance(clean, perturbed):
        seen.append((clean.shape, perturbed.requires_grad))
        return (perturbed - clean).norm(dim=1)

    adv = pgd(model, x, labels, norm="l2", eps=0.1, steps=60, loss=distance)
    assert seen == [((len(x), 2), True)] * 60
    moved = (model(adv) - model(x)).norm(dim=1)
    # The largest change of the logits is that along the first singular vector; fooled samples stopped where they were
    # found.
    largest = 0.1 * torch.linalg.svdvals(model.weight)[0]
    same = ~fooled(model, adv, labels)
    assert same.any()
    assert (moved[same] >= 0.98 * largest).all()


def test_starts_are_keyed_by_seed_and_sample():
    model, x, labels = models.two_sided(False)
    options = {"norm": "linf", "eps": 0.001, "steps": 1, "step_size": 0.0}
    start = pgd(model, x, labels, **options)
    assert row_norm(start - x, "linf").max() > 0.0005
    assert torch.equal(start, pgd(model, x, labels, **options))
    assert not torch.equal(start, pgd(model, x, labels, seed=1, **options))
    order = torch.arange(len(x) - 1, -1, -1)
    turned = pgd(model, x[order], labels[order], sample_ids=order, **options)
    assert torch.equal(turned[order], start)
    assert torch.equal(pgd(model, x, labels, random_start=False, **options), x)


def test_more_restarts_never_lose_a_success():
    model, x = models.linear(5), models.inputs()
    labels = model(x).argmax(1)
    options = {"norm": "l2", "eps": 0.12, "steps": 3, "step_size": 0.03}
    one = fooled(model, pgd(model, x, labels, **options), labels)
    many = fooled(model, pgd(model, x, labels, restarts=20, **options), labels)
    assert (many | ~one).all()
    assert many.sum() > one.sum()


@pytest.mark.parametrize(
    ("attack", "options", "passes"),
    [
        (fgm, {}, (2, 1)),
        (fgm_clipped, {}, (2, 1)),
        (bim, {"steps": 4}, (5, 4)),
        (mim, {"steps": 4}, (5, 4)),
        (pgd, {"steps": 4, "restarts": 2, "random_start": False}, (10, 8)),
        (pgd, {"steps": 4, "restarts": 2}, (11, 8)),
        (slide, {"steps": 4, "random_start": False}, (5, 4)),
        (slide, {"steps": 4, "random_start": True}, (6, 4)),
    ],
)
def test_the_pass_at_the_input_is_the_first_step_s_as_well(attack, options, passes):
    model, x = models.linear(4), models.inputs(6)
    labels = model(x).argmax(1)
    with counted(model) as (watched, spent):
        attack(watched, x, labels, eps=0.1, **options)
    assert (spent.forwards / 6, spent.gradients / 6) == passes


def test_callback_stops():
    model, x, labels = models.two_sided(False)
    steps = []
    pgd(model, x, labels, eps=0.01, steps=9, callback=lambda step, state: steps.append(step) or step == 3)
    assert steps == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -1.0}, "eps"),
        ({"eps": math.nan}, "eps"),
        ({"eps": 0.1, "norm": "l0"}, "norm"),
        ({"eps": 0.1, "loss": "hinge"}, "loss"),
        (
            {"eps": 0.1, "loss": torch.nn.CrossEntropyLoss()},
            r"loss: expected one value a sample, shape \(24,\), got \(\)",
        ),
        ({"eps": 0.1, "loss": lambda clean, logits: logits}, r"loss: .*got \(24, 2\)"),
        ({"eps": 0.1, "loss": lambda clean, logits: 0.0}, "loss: .*got float"),
        ({"eps": 0.1, "step_size": -0.1}, "step_size"),
        ({"eps": 0.1, "sparsity": 0.1}, "sparsity"),
        ({"eps": 0.1, "loss": "dlr"}, "dlr"),
    ],
)
def test_bad_options_are_named(options, message):
    model, x, labels = models.two_sided(False)
    with pytest.raises(ValueError, match=message):
        pgd(model, x, labels, **options)


def test_fgm_and_pgd_are_those_of_torchattacks():
    theirs = pytest.importorskip("torchattacks")
    model, x, labels = models.two_sided(False)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(models.SIZE, 2))
    with torch.no_grad():
        module[1].weight.copy_(model.weight)
        module[1].bias.copy_(model.bias)
    assert torch.equal(fgm(module, x, labels, eps=0.03), theirs.FGSM(module, eps=0.03)(x, labels))
    options = {"eps": 0.01, "steps": 7}
    ours = pgd(module, x, labels, step_size=0.002, random_start=False, **options)
    peer = theirs.PGD(module, alpha=0.002, random_start=False, **options)(x, labels)
    kept = ~fooled(model, ours, labels)  # others stop where they are first adversarial
    assert kept.sum() > 4
    torch.testing.assert_close(ours[kept], peer[kept], rtol=0, atol=2**-23)  # the order of sums in x + clamp(…)
    options = {"eps": 0.05, "steps": 7}
    ours = pgd(module, x, labels, norm="l2", step_size=0.02, random_start=False, **options)
    peer = theirs.PGDL2(module, alpha=0.02, random_start=False, **options)(x, labels)
    kept = ~fooled(model, ours, labels)
    assert kept.sum() > 4
    torch.testing.assert_close(ours[kept], peer[kept], rtol=0, atol=2**-20)  # they add 1e-10 to norms of 1e-1 and more
