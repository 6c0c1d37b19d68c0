"""Every documented argument of every attack changes something, or, where nothing is random, nothing; no argument is left out."""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from pyrobust import attacks, ops
from pyrobust.data import digits
from pyrobust.models import fit, small_cnn

from . import models

FUNCTIONS = {name: value for name, value in vars(attacks).items() if inspect.isfunction(value)}


class Row(NamedTuple):
    """An attack: a short call of it, and for each argument of its own another value (with what that value needs beside it)."""

    base: dict[str, Any]
    changes: dict[str, Any]
    beside: dict[str, dict[str, Any]] = {}  # noqa: RUF012  # by argument: what both calls get beside the base


@functools.cache
def trained() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network on digits in three alike channels of different weight, eight images, and its predictions there."""
    data = digits()
    grey = nn.Conv2d(3, 1, 1, bias=False)
    with torch.no_grad():
        grey.weight.copy_(torch.tensor([0.5, 0.3, 0.2]).reshape(1, 3, 1, 1))
    model = nn.Sequential(grey, *fit(small_cnn(), *data.train, epochs=2, batch_size=32)).eval().requires_grad_(False)
    x = data.test[0][:12].expand(-1, 3, -1, -1).contiguous()
    return model, x, model(x).argmax(1)


def call(name: str, *, inputs=None, labels=None, **options) -> torch.Tensor:
    model, x, predicted = trained()
    inputs, labels = x[:8] if inputs is None else inputs, predicted[:8] if labels is None else labels
    found = FUNCTIONS[name](model, inputs, labels, **{**table()[name].base, **options})
    return (found if isinstance(found, torch.Tensor) else found.adv).detach()


def path(name: str, **options) -> list[torch.Tensor]:
    """Every point that a callback sees, and the result."""
    points: list[torch.Tensor] = []

    def watch(step, state):
        points.append((state if isinstance(state, torch.Tensor) else state.adv).detach().clone())

    points.append(call(name, callback=watch, **options))
    return points


@functools.cache
def table() -> dict[str, Row]:
    model, images, predicted = trained()
    x, held_back = images[:8], (images[8:], predicted[8:])
    hard = images[8:], (predicted[8:] + 1) % 10  # wrong already: every step size does as well
    far = 1 - x
    pair = (lambda r: ops.lp_norm(r, 1), ops.prox_l1)
    return {
        "alma": Row({"steps": 30}, {"steps": 20, "step_size": 0.3, "mu": 3.0, "rho": 2.0, "gamma": 3.0, "alpha": 0.5, "restarts": 3}, {"gamma": {"mu": 0.1, "rho": 0.1, "step_size": 0.1, "steps": 60}}),
        "apgd": Row(
            {"eps": 0.05, "steps": 10, "norm": "linf"},
            {"eps": 0.1, "steps": 4, "random_start": False, "restarts": 3, "loss": "dlr", "rho": 0.01, "target_classes": 2,
             "large_eps": True},
            {"restarts": {"eps": 0.02}, "rho": {"eps": 0.3, "steps": 40}, "target_classes": {"loss": "dlr"}, "large_eps": {"norm": "l1", "eps": 2.0}},
        ),
        "bim": Row({"eps": 0.05, "steps": 5}, {"eps": 0.1, "steps": 2, "step_size": 0.001, "loss": "margin"}),
        "carlini_wagner": Row(
            {"steps": 20, "search_steps": 3, "const": 1.0},
            {"steps": 10, "search_steps": 2, "step_size": 0.05, "const": 5.0, "confidence": 0.1, "abort_early": False, "restarts": 3},
            {"abort_early": {"steps": 60, "step_size": 0.1}},
        ),
        "confident_ascent": Row(
            {"steps": 30, "step_size": 0.02},
            {"confidence": 0.5, "temperature": 3.0, "steps": 5, "step_size": 0.01, "top_k": 1},
            {"confidence": {"steps": 300}},
        ),
        "daa": Row(
            {"eps": 0.05, "steps": 5, "particles": 4},
            {"eps": 0.1, "steps": 2, "step_size": 0.001, "particles": 2, "interaction": 0.0, "loss": "ce"},
        ),
        "ddn": Row({"steps": 20}, {"steps": 10, "step_size": 0.2, "radius": 0.2, "gamma": 0.2, "restarts": 3}),
        "deepfool": Row({"steps": 10}, {"steps": 1, "candidates": 1, "overshoot": 0.5, "max_step": 0.01}),
        "ead": Row(
            {"steps": 15, "search_steps": 3, "const": 1.0},
            {"rule": "en", "beta": 0.1, "steps": 10, "search_steps": 2, "step_size": 0.05, "const": 5.0, "confidence": 0.1,
             "abort_early": False, "restarts": 3},
            {"rule": {"beta": 1e-3, "const": 20.0, "steps": 60}, "abort_early": {"steps": 60, "step_size": 0.1}},
        ),
        "extreme_weights": Row({}, {"pixels": 2}),
        "fab": Row(
            {"steps": 5, "norm": "l2"},
            {"steps": 2, "candidates": 1, "alpha_max": 0.01, "eta": 1.5, "beta": 0.5, "restarts": 3, "class_by_class": True,
             "start_radius": 0.1, "search_steps": 0},
            {"start_radius": {"restarts": 3, "search_steps": 0, "steps": 3}, "search_steps": {"steps": 2}},
        ),
        "feature_adversary": Row(
            {"guides": 1 - x, "layer": model[0], "eps": 0.05, "steps": 5},
            {"guides": x.flip(0), "layer": model[2], "eps": 0.1, "steps": 2, "step_size": 0.001, "random_start": True},
        ),
        "fgm": Row({"eps": 0.05}, {"eps": 0.1, "loss": "margin", "sparsity": 0.5}, {"sparsity": {"norm": "l1"}, "loss": {"norm": "l2"}}),
        "fgm_clipped": Row({"eps": 0.05}, {"eps": 0.1, "scale": 0.1, "loss": "margin"}, {"loss": {"scale": 0.1}}),
        "fmn": Row(
            {"steps": 20, "norm": "l2"},
            {"grouping": "value", "steps": 10, "step_size": 0.1, "gamma": 0.5, "restarts": 3}, {"grouping": {"norm": "l0"}},
        ),
        "high_confidence": Row(
            {"steps": 30}, {"confidence": 0.9, "steps": 5, "max_step": 0.005, "top_k": 1, "differentiable": True}
        ),
        "hop_skip_jump": Row({"steps": 2, "queries": 10}, {"steps": 1, "queries": 30, "starts": far}),
        "jsma": Row({"gamma": 1.0}, {"theta": -1.0, "gamma": 0.1, "pairs": False}),
        "lbfgs": Row(
            {"steps": 10, "search_steps": 3},
            {"steps": 5, "search_steps": 2, "const": 5.0, "memory": 1, "abort_early": False, "restarts": 3},
            {"abort_early": {"steps": 40}},
        ),
        "mim": Row({"eps": 0.05, "steps": 5}, {"eps": 0.1, "steps": 2, "step_size": 0.001, "decay": 0.0, "loss": "margin"},
                   {"decay": {"norm": "l2"}, "loss": {"norm": "l2"}}),
        "minimum_norm": Row({"budget": 60, "norm": "l2"}, {"budget": 20, "grouping": "value", "return_info": True}, {"grouping": {"norm": "l0"}}),
        "one_pixel": Row(
            {"pixels": 3, "population": 20, "steps": 5}, {"pixels": 1, "population": 10, "steps": 1, "mutation": 0.9}
        ),
        "pdgd": Row(
            {"steps": 30},
            {"steps": 20, "step_size": 0.01, "restarts": 3, "preset": "thesis", "tuning": hard, "starts": far},
            {"preset": {"step_size": 0.05}, "tuning": {"preset": "thesis", "tuning": held_back}},
        ),
        "pdpgd": Row(
            {"steps": 30, "norm": "l2"},
            {"penalty": pair, "grouping": "value", "steps": 20, "step_size": 0.01, "restarts": 3, "preset": "thesis",
             "tuning": hard, "starts": far},
            {"penalty": {"norm": None}, "grouping": {"norm": "l0"}, "preset": {"step_size": 0.05},
             "tuning": {"preset": "thesis", "tuning": held_back}},
        ),
        "pgd": Row(
            {"eps": 0.05, "steps": 5},
            {"eps": 0.1, "steps": 2, "step_size": 0.001, "random_start": False, "restarts": 3, "loss": "margin", "sparsity": 0.5},
            {"restarts": {"eps": 0.01, "step_size": 0.004}, "sparsity": {"norm": "l1", "eps": 1.0}},
        ),
        "pixel_swap": Row({"share": 0.5}, {"share": 1.0, "steps": 8, "restarts": 8, "grouping": "pixel"}, {"restarts": {"share": 0.2}}),
        "sigma_zero": Row(
            {"steps": 40},
            {"grouping": "value", "steps": 20, "step_size": 0.3, "sigma": 0.1, "threshold": 0.05, "threshold_step": 0.1},
        ),
        "simba": Row({"steps": 60}, {"basis": "pixel", "frequencies": 1.0, "steps": 10, "step_size": 0.05}),
        "slide": Row(
            {"eps": 1.0, "steps": 5},
            {"eps": 2.0, "steps": 2, "step_size": 0.01, "quantile": 0.5, "random_start": True, "restarts": 3, "loss": "margin"},
            {"restarts": {"eps": 0.3, "random_start": True}},
        ),
        "sparsefool": Row({"steps": 10, "norm": "l1"}, {"steps": 1, "control": 3.0, "candidates": 1, "overshoot": 0.5}),
        "superdeepfool": Row({"steps": 10}, {"steps": 2, "candidates": 1, "overshoot": 0.5, "search_steps": 0}),
        "transfer": Row(
            {"substitute": model, "attack": functools.partial(attacks.pgd, eps=0.1, steps=3)},
            {"substitute": lambda z: -model(z), "attack": functools.partial(attacks.pgd, eps=0.2, steps=3),
             "stretch": 0.5, "search_steps": 5},
        ),
    }  # fmt: skip


# Nothing is random in these calls: seeds and ids are taken, and change nothing.
FIXED = {
    "bim", "carlini_wagner", "confident_ascent", "ddn", "deepfool", "ead", "extreme_weights", "fab", "feature_adversary", "fgm",
    "fgm_clipped", "fmn", "high_confidence", "jsma", "lbfgs", "mim", "sigma_zero", "slide", "sparsefool", "superdeepfool", "alma",
}  # fmt: skip
# In these a restart, or a random start, draws.
DRAWN = {
    **{name: {"restarts": 3} for name in ("alma", "carlini_wagner", "ddn", "ead", "fab", "fmn", "lbfgs")},
    "pdgd": {"restarts": 2}, "pdpgd": {"restarts": 2}, "slide": {"random_start": True}, "feature_adversary": {"random_start": True},
}  # fmt: skip
COMMON = {"norm", "targeted", "bounds", "seed", "sample_ids", "callback", "eval_mode"}


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return len(a) == len(b) and all(map(torch.equal, a, b))


def parameters(name: str) -> set[str]:
    signature = inspect.signature(FUNCTIONS[name])
    return {key for key, value in signature.parameters.items() if value.kind is value.KEYWORD_ONLY}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_has_a_row(name):
    assert parameters(name) - COMMON == set(table()[name].changes)


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name in FUNCTIONS for argument in sorted(parameters(name) - COMMON)]
)
def test_every_argument_changes_something(name, argument):
    row = table()[name]
    beside = row.beside.get(argument, {})
    value = row.changes[argument]
    if argument == "return_info":
        assert not isinstance(attacks.minimum_norm(*trained(), **row.base, return_info=True), torch.Tensor)
    elif argument == "differentiable":
        model, x, labels = trained()
        point = x.clone().requires_grad_()
        assert FUNCTIONS[name](model, point, labels, **row.base, differentiable=True).requires_grad
        assert not FUNCTIONS[name](model, point, labels, **row.base).requires_grad
    else:
        assert not same(path(name, **beside), path(name, **{**beside, argument: value}))


@pytest.mark.parametrize(
    "name", [name for name in FUNCTIONS if len(getattr(FUNCTIONS[name], "norms", models.NORMS)) > 1]
)
def test_the_norm_changes_the_result(name):
    if name == "transfer":
        pytest.skip("the norm is its attack's")
    if name == "sparsefool":
        pytest.skip("one walk, whose points are compared in the norm asked for")
    norms = getattr(FUNCTIONS[name], "norms", models.NORMS)
    found = [call(name, norm=norm) for norm in norms]
    assert not any(same(a, b) for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_targets_change_the_result_or_are_refused_by_name(name):
    _, x, labels = trained()
    x, targets = x[:8], (labels[:8] + 1) % 10
    if "targeted" not in parameters(name):
        with pytest.raises(TypeError, match="targeted"):
            call(name, labels=targets, targeted=True)
        return
    # Taken for labels they are wrong already, and nothing is done.
    assert same(call(name, labels=targets), x)
    options = {"attack": functools.partial(attacks.pgd, eps=0.5, steps=20)} if name == "transfer" else {}
    options |= {"eps": 0.5} if "eps" in parameters(name) else {}
    options |= {"share": 1.0, "steps": 8, "restarts": 20} if name == "pixel_swap" else {}
    options |= {"steps": 300, "frequencies": 1.0, "step_size": 0.5} if name == "simba" else {}
    assert not same(call(name, labels=targets, targeted=True, **options), x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bounds_change_the_result_and_hold(name):
    bounds = 0.19, 0.81
    inputs = trained()[1][:8].clamp(0.2, 0.8)
    options = {"inputs": inputs, "labels": trained()[0](inputs).argmax(1)}
    options |= {"share": 1.0, "restarts": 8} if name == "pixel_swap" else {}
    options |= {"guides": inputs.round()} if name == "feature_adversary" else {}
    narrow = call(name, bounds=bounds, **options)
    assert narrow.min() >= bounds[0]
    assert narrow.max() <= bounds[1]
    if name != "pixel_swap":  # it permutes the values that are there
        assert not same(narrow, call(name, **options))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_seeds_and_sample_ids_change_what_is_random_alone(name):
    options = DRAWN.get(name, {})
    ids = torch.arange(50, 58)
    if name in FIXED:
        plain = path(name)
        assert same(plain, path(name, seed=1))
        assert same(plain, path(name, sample_ids=ids))
    if name not in FIXED or options:
        plain = path(name, **options)
        assert not same(plain, path(name, seed=1, **options))
        assert not same(plain, path(name, sample_ids=ids, **options))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_callback_is_called_and_stops_the_attack(name):
    seen: list[int] = []

    def watch(step, state):
        seen.append(step)
        return len(seen) == limit

    limit = math.inf
    call(name, callback=watch)
    whole = len(seen)
    assert seen[0] == 0
    seen.clear()
    limit = 1
    call(name, callback=watch)
    assert len(seen) == 1 or name == "daa"
    assert whole > 1 or name in ("fgm", "fgm_clipped", "extreme_weights", "pixel_swap")
