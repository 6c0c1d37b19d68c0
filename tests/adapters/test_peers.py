"""Every peer that is installed keeps the contract of our attacks, and does through its adapter what it does by itself."""

from __future__ import annotations

import importlib.util
import math
import random

import numpy as np
import pytest
import torch
from oracles import row_norm
from torch import nn

from pyrobust import adapters
from tests.attacks import models

MODULES = {"adv_lib": "adv_lib", "foolbox": "foolbox", "torchattacks": "torchattacks", "art": "art"}
# Peer, attack, norm, options, and how far over the least norm of a linear two-class model it may end. Attacks that go to a
# hyperplane are exact there but for their overshoot: 2 % in DeepFool, 5 % in FAB. DDN and FMN change their radius by 5 % a
# step or less, so they end within one such step: 1 / 0.95. The others' figures are measured, with a tenth of the excess to spare.
PEERS = [
    ("adv_lib", "ddn", "l2", {"steps": 100, "levels": None}, 1.055),
    ("adv_lib", "fab", "linf", {"steps": 10}, 1.05),
    ("adv_lib", "fab", "l1", {"steps": 10}, 1.05),
    ("adv_lib", "sdf", "l2", {}, 1.02),
    ("adv_lib", "fmn", "linf", {"steps": 100}, 1.055),
    ("adv_lib", "pdpgd", "l1", {"steps": 300}, 1.13),
    ("adv_lib", "sigma_zero", "l0", {"steps": 200}, 1.0),
    ("foolbox", "L2DeepFoolAttack", "l2", {}, 1.02),
    ("foolbox", "LinfDeepFoolAttack", "linf", {}, 1.02),
    ("foolbox", "DDNAttack", "l2", {"steps": 100}, 1.055),
    ("foolbox", "L2CarliniWagnerAttack", "l2", {"steps": 100, "binary_search_steps": 5, "initial_const": 0.1}, 1.18),
    ("torchattacks", "FAB", "l2", {"steps": 10}, 1.05),
    ("torchattacks", "DeepFool", "l2", {}, 1.02),
    ("art", "DeepFool", "l2", {"steps": 20, "epsilon": 0.02}, 1.02),
]
BUDGETED = [
    ("adv_lib", "apgd", "l2", {"steps": 10, "loss_function": "ce"}),
    ("adv_lib", "pgd_linf", "linf", {"steps": 10}),
    ("foolbox", "LinfPGD", "linf", {"steps": 10}),
    ("foolbox", "L1BasicIterativeAttack", "l1", {"steps": 10}),
    ("torchattacks", "PGD", "linf", {"steps": 10}),
    ("torchattacks", "PGDL2", "l2", {"steps": 10}),
    ("torchattacks", "PIFGSM", "linf", {}),
    ("torchattacks", "PIFGSMPP", "linf", {}),
    ("art", "ProjectedGradientDescent", "linf", {"steps": 10, "num_random_init": 1}),
]


def attack_of(library: str, name: str, options: dict) -> adapters.PeerAttack:
    if importlib.util.find_spec(MODULES[library]) is None:
        pytest.skip(f"{library} is not installed")
    try:
        return adapters.PEERS[library](name, **options)
    except ImportError as error:
        pytest.skip(str(error))


def named(case: tuple) -> str:
    return ":".join(case[:3])


@pytest.mark.parametrize("case", PEERS, ids=named)
def test_the_nearest_point_of_a_linear_model(case: tuple) -> None:
    library, name, norm, options, factor = case
    attack = attack_of(library, name, options)
    model, x, labels = models.two_sided(binding=False)
    exact, _ = model.nearest(x, labels, norm)
    adv = attack(model, x, labels, norm=norm)
    with torch.no_grad():
        found = model(adv).argmax(1) != labels
    assert found.all()
    assert ((adv >= 0) & (adv <= 1)).all()
    distance = row_norm(adv.double() - x.double(), norm)
    # The oracle's distance is that of the boundary; float32 logits of 48 terms may cross it earlier by rounding.
    assert (distance >= exact * (1 - 1e-4)).all()
    # foolbox and adv-lib add 1e-4 to DeepFool's distance before its overshoot of 2 %.
    assert (distance <= factor * exact + 1.02e-4 + 1e-6).all(), distance / exact


@pytest.mark.parametrize("case", PEERS, ids=named)
def test_other_bounds_and_dtypes_are_the_unit_box_in_other_units(case: tuple) -> None:
    library, name, norm, options, _ = case
    attack = attack_of(library, name, options)
    model, x, labels = models.two_sided(binding=False)
    unit = row_norm(attack(model, x, labels, norm=norm).double() - x.double(), norm)

    def shifted(z: torch.Tensor) -> torch.Tensor:
        assert z.dtype == torch.float64
        return model(((z + 2) / 8).float())

    wide = 8 * x.double() - 2
    adv = attack(shifted, wide, labels, norm=norm, bounds=(-2, 6))
    assert adv.dtype == torch.float64
    assert ((adv >= -2) & (adv <= 6)).all()
    distance = row_norm(adv - wide, norm) / (1 if norm == "l0" else 8)
    # The same steps up to float32's rounding of the scaled points, which moves a discrete l0 by a value at most.
    torch.testing.assert_close(distance, unit, rtol=2e-2, atol=1.0 if norm == "l0" else 1e-4)


@pytest.mark.parametrize("case", BUDGETED, ids=named)
def test_budget_attacks_stay_within_eps_in_any_bounds(case: tuple) -> None:
    library, name, norm, options = case
    attack = attack_of(library, name, options)
    model, x, labels = models.two_sided(binding=True)
    eps = {"linf": 0.1, "l2": 0.5, "l1": 1.5}[norm]
    wide = 4 * x - 1
    adv = attack(lambda z: model((z + 1) / 4), wide, labels, norm=norm, eps=4 * eps, bounds=(-1, 3))
    distance = row_norm(adv.double() - wide.double(), norm)
    assert ((adv >= -1) & (adv <= 3)).all()
    # Each stored value is rounded by at most 2⁻²³ · 3, and l1 adds 48 of them; scaling rounds once more.
    assert distance.max() <= 4 * eps * (1 + 1e-6) + 48 * 6 * 2**-23
    assert distance.max() > eps  # eps is in the units of the inputs


def stochastic() -> nn.Module:
    """A network with parameters that ask for gradients, dropout and batch norm, partly in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 4)
        )
    model.train()
    model[4].training = False
    return model


@pytest.mark.parametrize("case", PEERS + [(*case, 0) for case in BUDGETED], ids=named)
def test_nothing_is_left_behind_and_a_seed_repeats(case: tuple) -> None:
    library, name, norm, options, _ = case
    attack = attack_of(library, name, options)
    model, x = stochastic(), models.inputs()
    with torch.no_grad():
        labels = model.eval()(x).argmax(1)
    model.train()
    model[4].training = False
    labels[:3] = (labels[:3] + 1) % 4  # these are adversarial as they are
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    kept = x.clone()
    more = {"eps": 0.1} if attack.traits.budget else {}
    first = attack(model, x, labels, norm=norm, seed=3, **more)
    assert torch.equal(x, kept)
    assert torch.equal(first[:3], x[:3])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert flags == [module.training for module in model.modules()]
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    assert states[2] == random.getstate()
    assert torch.equal(first, attack(model, x, labels, norm=norm, seed=3, **more))


@pytest.mark.parametrize(
    ("library", "name"), [("foolbox", "LinfPGD"), ("torchattacks", "PGD"), ("adv_lib", "pgd_linf")]
)
def test_a_seed_moves_random_starts(library: str, name: str) -> None:
    attack = attack_of(library, name, {"steps": 1})
    model, x, labels = models.two_sided(binding=False)
    first, second = (attack(model, x, labels, eps=0.02, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_where_nothing_is_found_the_input_comes_back() -> None:
    attack = attack_of("adv_lib", "ddn", {"steps": 5})
    x = models.inputs()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).requires_grad_(False)
    flat[1].weight.zero_()
    flat[1].bias.copy_(torch.tensor([1.0, 0.0]))
    assert torch.equal(attack(flat, x, torch.zeros(len(x), dtype=torch.int64)), x)


@pytest.mark.parametrize(
    ("library", "name", "norm", "options"),
    [
        ("adv_lib", "ddn", "l2", {"levels": None}),
        ("foolbox", "DDNAttack", "l2", {}),
        ("torchattacks", "CW", "l2", {"c": 10, "steps": 100}),
        ("art", "CarliniL2Method", "l2", {"initial_const": 10.0}),
        ("art", "SaliencyMapMethod", "l0", {"theta": 0.5}),
    ],
)
def test_targets_are_reached(library: str, name: str, norm: str, options: dict) -> None:
    attack = attack_of(library, name, options)
    model, x = models.linear(4), models.inputs()
    with torch.no_grad():
        predicted = model(x).argmax(1)
        targets = (predicted + 1) % 4
        adv = attack(model, x, targets, norm=norm, targeted=True)
        moved = (adv != x).flatten(1).any(1)
        reached = model(adv).argmax(1) == targets
    assert torch.equal(moved, reached)  # either at the target, or the unchanged input
    assert reached.float().mean() >= 0.5


def test_the_adapter_adds_nothing_to_a_peer() -> None:
    """Bit for bit, where bounds and dtype are the peers' own."""
    model, x, labels = models.two_sided(binding=True)
    ours = attack_of("adv_lib", "fmn", {"steps": 30})(model, x, labels, norm="linf")
    from pyrobust.adapters.adv_lib import import_adv_lib

    theirs = import_adv_lib().fmn(model, x, labels, norm=math.inf, steps=30)
    with torch.no_grad():
        found = model(theirs).argmax(1) != labels
    assert found.any()
    assert torch.equal(ours[found], theirs.clamp(0, 1)[found])
