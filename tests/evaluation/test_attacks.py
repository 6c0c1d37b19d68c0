from __future__ import annotations

import functools

import pytest

from pyrobust.evaluation.attacks import budgets_by_norm, plan, resolve

from . import toy_attacks


def test_attacks_are_found_by_module_and_function_or_passed_as_functions() -> None:
    by_name = resolve(f"{toy_attacks.__name__}:walk")
    assert by_name.function is toy_attacks.walk
    assert by_name == resolve(toy_attacks.walk)
    assert by_name.name == "walk"
    assert not by_name.is_budget
    assert resolve(toy_attacks.step_once).is_budget


def test_bound_arguments_show_in_the_name_and_the_record() -> None:
    attack = resolve(functools.partial(toy_attacks.walk, steps=7))
    assert attack.name == "walk(steps=7)"
    assert attack.reference.endswith("toy_attacks:walk(steps=7)")


@pytest.mark.parametrize("name", ["no_such_attack", "no.such.module:attack", "math:no_such_function"])
def test_unknown_attacks_are_told_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="no"):
        resolve(name)


def test_only_what_a_signature_takes_is_passed() -> None:
    seen = {}

    def attack(model, inputs, labels, *, steps, seed=0):
        seen.update(steps=steps, seed=seed)
        return inputs

    resolve(attack).run(None, 1, 2, steps=3, seed=None, norm="l2")
    assert seen == {"steps": 3, "seed": 0}


def test_what_a_partial_binds_stays_bound_but_for_the_swept_eps() -> None:
    def attack(model, inputs, labels, *, eps, steps=1):
        return eps, steps

    bound = resolve(functools.partial(attack, eps=0.3, steps=7))
    assert bound.run(None, 1, 2, eps=0.1, steps=3) == (0.1, 7)
    assert bound.is_budget
    with pytest.raises(ValueError, match="takes a number of steps"):
        plan(["linf"], functools.partial(attack, steps=7), {"linf": (0.1,)}, 3, False)


def test_the_budget_of_gradients_goes_to_attacks_that_take_one() -> None:
    (task,) = plan(["l2"], "minimum_norm", {}, None, False, 7)
    assert task.attack.takes("budget")
    assert not task.attack.is_budget
    assert not resolve(toy_attacks.walk).takes("budget")


def test_a_plan_has_one_task_an_attack_and_one_an_eps_of_budget_attacks() -> None:
    tasks = plan(["linf"], [toy_attacks.walk, toy_attacks.step_once], {"linf": (0.1, 0.2)}, None, False)
    assert [(t.attack.name, t.eps) for t in tasks] == [("walk", None), ("step_once", 0.1), ("step_once", 0.2)]


def test_a_mapping_gives_each_norm_its_own_attacks() -> None:
    tasks = plan(["l2", "l1"], {2: toy_attacks.walk, "l1": [toy_attacks.clean]}, {}, None, False)
    assert [(t.norm, t.attack.name) for t in tasks] == [("l2", "walk"), ("l1", "clean")]


def l2_only(model, inputs, labels):
    return inputs


l2_only.norms = ("l2",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["l2"], [toy_attacks.walk, toy_attacks.walk], {}, None, False), "named twice"),
        ((["l2"], [], {}, None, False), "at least one"),
        ((["l2"], {"l1": toy_attacks.walk}, {}, None, False), "norms are l2"),
        ((["linf"], toy_attacks.step_once, {}, None, False), "needs eps"),
        ((["l2"], toy_attacks.clean, {}, 5, False), "takes a number of steps"),
        ((["l2"], toy_attacks.walk, {}, 0, False), "steps: expected an integer >= 1"),
        ((["l2"], toy_attacks.walk, {}, None, False, 5), "takes a budget of gradients"),
        ((["l2"], "minimum_norm", {}, None, False, 0), "budget: expected an integer >= 1"),
        ((["l2"], toy_attacks.clean, {}, None, True), "no targeted form"),
        ((["linf"], l2_only, {}, None, False), "an attack in l2, not in linf"),
    ],
)
def test_what_does_not_apply_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(*arguments)


def test_budgets_are_sorted_and_belong_to_norms() -> None:
    assert budgets_by_norm(["linf"], [0.2, 0.1, 0.2]) == {"linf": (0.1, 0.2)}
    assert budgets_by_norm(["linf", "l2"], {2: [1]}) == {"l2": (1.0,)}
    assert budgets_by_norm(["linf"], None) == {}
    assert budgets_by_norm(["linf"], 0.1) == {"linf": (0.1,)}
    assert budgets_by_norm(["linf", "l2"], {"l2": 1}) == {"l2": (1.0,)}


@pytest.mark.parametrize(
    ("norms", "eps", "message"),
    [
        (["linf", "l2"], [0.1], "a list for each"),
        (["linf"], {"l2": [0.1]}, "not among"),
        (["linf"], [0.0], "positive"),
        (["linf"], [float("nan")], "positive"),
        (["linf"], [], "positive"),
        (["l0"], [1.5], "whole"),
    ],
)
def test_bad_budgets_are_refused(norms: list, eps: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        budgets_by_norm(norms, eps)
