"""Feature adversary: reaches the closed form of linear features, and takes the same steps as ART's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pyrobust.attacks import feature_adversary

from . import models


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.Softplus(), nn.Linear(20, 4)).requires_grad_(False)


def setup():
    model, x = network(), models.inputs()
    labels = model(x).argmax(1)
    return model, x, labels, models.inputs(seed=3)


def distance(phi, x, guides):
    with torch.no_grad():
        return (phi(x) - phi(guides)).flatten(1).square().sum(1)


def test_diagonal_features_are_matched_as_far_as_the_budget_allows():
    scale = torch.rand(48, generator=models.generator(4)) + 0.5
    phi = lambda z: z.flatten(1) * scale  # noqa: E731
    model, x, labels, guides = setup()
    eps = 0.05
    adv = feature_adversary(model, x, labels, guides=guides, layer=phi, eps=eps, steps=200)
    # The coordinates are independent: each goes to the guide's value, or to the end of the ball.
    optimum = x + (guides - x).clamp(-eps, eps)
    assert (adv - x).abs().max() <= eps * (1 + 1e-5)
    # The signed steps end within one step of it, 2.5 · eps / steps.
    assert (adv - optimum).abs().max() <= 2.5 * eps / 200 * (1 + 1e-3)


def test_a_layer_of_the_model_and_the_same_layer_as_a_function():
    model, x, labels, guides = setup()
    options = {"guides": guides, "eps": 0.1, "steps": 20}
    inside = feature_adversary(model, x, labels, layer=model[2], **options)
    outside = feature_adversary(model, x, labels, layer=model[:3], **options)
    torch.testing.assert_close(inside, outside, rtol=0, atol=1e-6)
    assert (distance(model[:3], inside, guides) < 0.5 * distance(model[:3], x, guides)).all()
    assert not torch.equal(inside, feature_adversary(model, x, labels, layer=model[3], **options))
    assert not model[2]._forward_hooks


def test_the_closest_point_seen_is_returned():
    model, x, labels, guides = setup()
    seen = []
    adv = feature_adversary(
        model, x, labels, guides=guides, layer=model, eps=0.3, steps=9, step_size=0.2,
        callback=lambda step, state: seen.append((step, state)),
    )  # fmt: skip
    assert [step for step, _ in seen] == list(range(10))
    distances = torch.stack([state.distance for _, state in seen])
    assert not torch.equal(distances.amin(0), distances[-1])
    torch.testing.assert_close(distance(model, adv, guides), distances.amin(0))
    torch.testing.assert_close(seen[-1][1].best_distance, distances.amin(0))
    first = feature_adversary(
        model, x, labels, guides=guides, layer=model, eps=0.3, steps=9, step_size=0.2,
        callback=lambda step, state: step == 0,
    )  # fmt: skip
    assert torch.equal(first, x)


def test_more_budget_and_more_steps_come_closer():
    model, x, labels, guides = setup()

    def reached(**options):
        adv = feature_adversary(model, x, labels, guides=guides, layer=model[2], **options)
        return distance(model[:3], adv, guides).mean()

    assert reached(eps=0.0) == distance(model[:3], x, guides).mean()
    assert reached(eps=0.2) < reached(eps=0.05) < reached(eps=0.0)
    assert reached(eps=0.2, steps=50) < reached(eps=0.2, steps=2)


def test_adversarial_inputs_stay():
    model, x, labels, guides = setup()
    options = {"guides": guides, "layer": model[2], "eps": 0.1, "steps": 5}
    assert torch.equal(feature_adversary(model, x, labels, targeted=True, **options), x)
    assert torch.equal(feature_adversary(model, x, (labels + 1) % 4, **options), x)
    assert not torch.equal(feature_adversary(model, x, (labels + 1) % 4, targeted=True, **options), x)


def test_the_random_start_is_keyed_by_seed_and_sample():
    model, x, labels, guides = setup()
    options = {"layer": model[2], "eps": 0.05, "steps": 1, "step_size": 0.0, "random_start": True}
    starts = []

    def start(order=slice(None), ids=None, **more):
        feature_adversary(
            model, x[order], labels[order], guides=guides[order], sample_ids=ids, **options, **more,
            callback=lambda step, state: starts.append(state.adv) or True,
        )  # fmt: skip
        return starts[-1]

    once = start()
    assert (once - x).abs().max() > 0.04
    assert (once - x).abs().max() <= 0.05 * (1 + 1e-5)
    assert torch.equal(once, start())
    assert not torch.equal(once, start(seed=1))
    order = torch.arange(len(x) - 1, -1, -1)
    assert torch.equal(start(order, order)[order], once)


def test_other_bounds():
    model, x, labels, guides = setup()
    near_edge = x - 0.35
    free = feature_adversary(
        model, near_edge, model(near_edge).argmax(1), guides=guides, layer=model[2], eps=0.3, bounds=(-9.0, 9.0)
    )
    held = feature_adversary(
        model, near_edge, model(near_edge).argmax(1), guides=guides, layer=model[2], eps=0.3, bounds=(0.0, 0.3)
    )
    assert held.min() >= 0
    assert held.max() <= 0.3
    assert free.min() < 0
    assert free.max() > 0.3


def test_the_steps_are_those_of_art():
    pytest.importorskip("art")
    from art.attacks.evasion import FeatureAdversariesPyTorch
    from art.estimators.classification import PyTorchClassifier

    model, x, labels, guides = setup()
    model.requires_grad_(True)
    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), x.shape[1:], 4, clip_values=(0.0, 1.0), device_type="cpu"
    )
    peer = FeatureAdversariesPyTorch(
        classifier, delta=0.1, layer=2, max_iter=10, step_size=0.02, batch_size=64, verbose=False
    )
    theirs = torch.from_numpy(peer.generate(x.numpy(), guides.numpy()))
    last = []
    feature_adversary(
        model, x, labels, guides=guides, layer=model[2], eps=0.1, steps=10, step_size=0.02,
        callback=lambda step, state: last.append(state.adv.clone()),
    )  # fmt: skip
    torch.testing.assert_close(last[-1], theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -0.1}, "eps: expected"),
        ({"eps": math.nan}, "eps: expected"),
        ({"step_size": -1.0}, "step_size: expected"),
        ({"guides": None}, "guides: expected"),
        ({"guides": torch.zeros(3, 48)}, "guides: expected"),
        ({"layer": "conv1"}, "layer: expected a module"),
        ({"layer": lambda z: z.sum()}, "layer: expected an output"),
        ({"layer": lambda z: (z, z)}, "layer: expected an output"),
    ],
)
def test_bad_options_are_named(options, message):
    model, x, labels, guides = setup()
    with pytest.raises(ValueError, match=f"^{message}"):
        feature_adversary(model, x, labels, **{"guides": guides, "layer": model[2], "eps": 0.1, **options})


def test_a_layer_that_is_not_called_is_named():
    model, x, labels, guides = setup()
    model.append(nn.Identity())
    model.forward = lambda z: model[3](model[2](model[1](model[0](z))))
    with pytest.raises(ValueError, match=r"^layer: expected a module that the model calls"):
        feature_adversary(model, x, labels, guides=guides, layer=model[4], eps=0.1)
