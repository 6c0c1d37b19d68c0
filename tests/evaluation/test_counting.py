from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from pyrobust._counting import counted
from pyrobust.evaluation import evaluate

from . import toy_attacks
from .conftest import Halves


def test_one_prediction_is_a_forward_and_one_vector_jacobian_product_a_gradient(halves: Halves, points: tuple) -> None:
    inputs, _ = points
    with counted(halves) as (model, spent):
        with torch.no_grad():
            model(inputs[:3])
        leaf = inputs.clone().requires_grad_()
        logits = model(leaf)
        torch.autograd.grad(logits[:, 0].sum(), leaf, retain_graph=True)
        assert (spent.forwards, spent.gradients) == (13, 10)
        seeds = torch.eye(2).unsqueeze(1).expand(2, 10, 2)
        torch.autograd.grad(logits, leaf, seeds, is_grads_batched=True)
    assert (spent.forwards, spent.gradients) == (13, 30)


def test_functions_are_counted_too(halves: Halves, points: tuple) -> None:
    with counted(lambda x: halves(x)) as (model, spent):
        toy_attacks.step_once(model, *points, norm="linf", eps=0.1)
    assert (spent.forwards, spent.gradients) == (10, 10)


def test_a_module_stays_the_object_that_it_is_and_keeps_no_trace(halves: Halves, points: tuple) -> None:
    with pytest.raises(RuntimeError, match="no such luck"), counted(halves) as (model, spent):
        assert model is halves
        toy_attacks.raises(model, *points)
    halves(points[0])
    assert spent.forwards == 0
    assert not halves._forward_hooks


def test_what_a_model_returns_is_left_to_others_to_judge() -> None:
    with counted(lambda x: "no tensor") as (model, spent):
        assert model(torch.zeros(2)) == "no tensor"
    assert spent.forwards == 0


@pytest.mark.parametrize("batch_size", [4, 10, 64])  # with padding and without
def test_the_harness_counts_the_attack_and_not_itself(halves: Halves, points: tuple, batch_size: int) -> None:
    walk = functools.partial(toy_attacks.walk, steps=3)
    report = evaluate(
        halves, points, norms="linf", attacks=[walk, toy_attacks.step_once], eps=[0.1, 0.2], batch_size=batch_size
    )
    figures = report.summary()["norms"]["linf"]
    # A step of the walk is a gradient (with its forward) and a look; then come a look and twelve bisections.
    assert (figures["walk(steps=3)"]["gradients"], figures["walk(steps=3)"]["forwards"]) == (3, 3 * 2 + 1 + 12)
    # Both budgets of the sweep together.
    assert (figures["step_once"]["gradients"], figures["step_once"]["forwards"]) == (2, 2)
    assert "gradients" not in figures["best of all"]
    assert report.results["gradients"].to_pylist() == [3.0] * 10 + [1.0] * 20


def test_finished_samples_that_an_attack_drops_lower_the_mean(halves: Halves, points: tuple) -> None:
    def half(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        model(inputs[::2])
        return inputs

    results = evaluate(halves, points, norms="linf", attacks=half, batch_size=10).results
    assert np.all(results["forwards"].to_numpy() == 0.5)
    assert np.all(results["gradients"].to_numpy() == 0)


def test_a_batch_that_is_started_again_is_counted_once(points: tuple) -> None:
    def greedy(model, inputs, labels):
        model(inputs)
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return inputs

    results = evaluate(Halves(), points, norms="linf", attacks=greedy, batch_size=8).results
    assert set(results["forwards"].to_pylist()) == {1.0}
