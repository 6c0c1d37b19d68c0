"""The run that refines in linf, l2 and l1: ascent within a ball that closes in on the nearest point."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import row_norm

from pyrobust import ops
from pyrobust.attacks import pdpgd
from pyrobust.attacks._closing import close_in
from pyrobust.ops import PrimalDualState

from . import models

NORMS = ("linf", "l2", "l1")
STEP = {"linf": (2.0, 0.003), "l2": (1.0, 0.003), "l1": (0.7, 0.003)}
DUAL = {"linf": "l1", "l2": "l2"}
# Steps end at 0.003 of the radius, and the ball at 0.0005 inside it; the rest covers the last corner that is rounded (linf)
# and the last values that are exchanged (l1) within sixty steps.
EXCESS = 1.02


def run(norm, model, x, labels, start, steps=60, targeted=False, bounds=(0.0, 1.0), callback=None, known=math.inf):
    state = PrimalDualState.start(x, 1.0)
    state.restart(start, 1.0, ops.lp_norm(start - x, norm))
    state.best_distance.fill_(known)
    stopped = close_in(
        model, x, labels, state, norm, steps=steps, first=0, step_size=STEP[norm], targeted=targeted,
        bounds=bounds, callback=callback,
    )  # fmt: skip
    return state, stopped


@pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])
@pytest.mark.parametrize("norm", NORMS)
def test_it_ends_at_the_nearest_point_of_a_linear_model(norm, binding):
    model, x, labels = models.two_sided(binding)
    far = (x + 0.5 * (model.weight[1 - labels] - model.weight[labels]).sign().reshape(x.shape)).clamp(0, 1)
    state, _ = run(norm, model, x, labels, far)
    optimum = model.nearest(x, labels, norm, (0.0, 1.0))[0]
    found = row_norm(state.best - x, norm)
    assert (model(state.best).argmax(1) != labels).all()
    torch.testing.assert_close(found.float(), state.best_distance.float(), rtol=1e-5, atol=1e-6)
    assert (found >= optimum * (1 - models.ROUNDING) - models.ROUNDING).all()
    assert found.mean() <= EXCESS * optimum.mean()


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_nearest_of_many_boundaries_is_met_head_on(norm, targeted):
    """By the cross-entropy's gradient alone, which weighs all 30 classes, it ends 1.8 % (l2: 1.5 %) beyond the nearest point,
    and with a margin that falls towards the target 18 % (8 %)."""
    model, x = models.linear(30), models.inputs()
    logits = model(x)
    first, second = logits.topk(2, dim=1).indices.T
    far = (x + 0.5 * (model.weight[second] - model.weight[first]).sign().reshape(x.shape)).clamp(0, 1)
    state, _ = run(norm, model, x, second if targeted else first, far, steps=30, targeted=targeted)
    found = row_norm(state.best - x, norm)
    if targeted:  # at least: the other classes may be in the way
        normal = model.weight[second] - model.weight[first]
        optimum = (logits.gather(1, first[:, None]) - logits.gather(1, second[:, None]))[:, 0] / row_norm(
            normal, DUAL[norm]
        )
    else:
        optimum = model.nearest(x, first, norm, (0.0, 1.0))[0]
    assert (found >= optimum * (1 - models.ROUNDING) - models.ROUNDING).all()
    assert (found / optimum).mean() <= 1.007


class Rescaled(torch.nn.Module):
    """A model of inputs in [0, 1], for inputs in [-1, 3]."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((x + 1) / 4)


@pytest.mark.parametrize("norm", NORMS)
def test_targets_and_other_bounds(norm):
    small, x, labels = models.two_sided(True)
    model, x = Rescaled(small.double()), x.double()
    targets, inputs = 1 - labels, 4 * x - 1
    far = torch.where(small.weight[targets] > small.weight[labels], 3.0, -1.0).reshape(x.shape)
    state, _ = run(norm, model, inputs, targets, far, targeted=True, bounds=(-1.0, 3.0))
    optimum = 4 * small.nearest_target(x, targets, norm, (0.0, 1.0))[0]
    assert (model(state.best).argmax(1) == targets).all()
    found = row_norm(state.best - inputs, norm)
    assert (found >= optimum * (1 - 1e-9)).all()
    assert found.mean() <= EXCESS * optimum.mean()


@pytest.mark.parametrize("norm", NORMS)
def test_where_nothing_is_known_the_whole_box_is_searched(norm):
    model, x, labels = models.two_sided(False)
    state, _ = run(norm, model, x, labels, x.clone(), steps=80)
    assert (model(state.best).argmax(1) != labels).all()
    assert row_norm(state.best - x, norm).mean() <= 1.2 * model.nearest(x, labels, norm, (0.0, 1.0))[0].mean()


@pytest.mark.parametrize("norm", NORMS)
def test_every_point_lies_inside_the_ball_and_the_callback_can_stop(norm):
    model, x, labels = models.two_sided(False)
    far = (x + 0.5 * (model.weight[1 - labels] - model.weight[labels]).sign().reshape(x.shape)).clamp(0, 1)
    seen = []

    def callback(step, state):
        found = state.best_distance < math.inf
        assert (state.distance[found] <= state.best_distance[found] * (1 - 0.0005) * (1 + 1e-5)).all()
        seen.append(step)
        return step == 7

    _, stopped = run(norm, model, x, labels, far, callback=callback)
    assert stopped
    assert seen == list(range(8))


@pytest.mark.parametrize("norm", NORMS)
def test_step_size_applies_to_starts(norm):
    model, x, labels = models.two_sided(False)
    far = (x + 0.5 * (model.weight[1 - labels] - model.weight[labels]).sign().reshape(x.shape)).clamp(0, 1)
    options = {"norm": norm, "steps": 10, "starts": far}
    assert not torch.equal(pdpgd(model, x, labels, **options), pdpgd(model, x, labels, **options, step_size=0.05))
