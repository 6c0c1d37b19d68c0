"""Saliency: weights of linear models, the three rules by hand, and whatever way a model calls relu."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pyrobust.analysis import saliency
from pyrobust.analysis.saliency import METHODS
from pyrobust.analysis.work import Work


def two_layers(dtype=torch.float64) -> nn.Sequential:
    """z = V relu(W x + b): small enough to go backwards by hand."""
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2, bias=False)).to(dtype)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype))
        model[2].weight[1] = -model[2].weight[0]  # errors of both signs, whichever the class
    return model


class Functional(nn.Module):
    """The same with relu called in other ways."""

    def __init__(self, layers: nn.Sequential, call) -> None:
        super().__init__()
        self.layers, self.call = layers, call

    def forward(self, x):
        return self.layers[2](self.call(self.layers[0](x)))


CALLS = {
    "F.relu": F.relu,
    "F.relu in place": lambda h: F.relu(h, inplace=True),
    "positional": lambda h: F.relu(h, True),
    "torch.relu": torch.relu,
    "method": lambda h: h.relu(),
    "method in place, result unused": lambda h: (h.relu_(), h)[1],
    "torch in place": torch.relu_,
    "module in place": nn.ReLU(inplace=True),
}


def inputs(n=7, dtype=torch.float64):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)


def by_hand(model, x, y, method):
    w, b, v = model[0].weight, model[0].bias, model[2].weight
    h, delta = x @ w.T + b, v[y]
    if method != "deconvolution":
        passed = delta * (h > 0)
    if method == "guided":
        passed = passed * (delta > 0)
    if method == "deconvolution":
        passed = delta * (delta > 0)
    return (passed @ w).detach()


@pytest.mark.parametrize("method", METHODS)
def test_the_rules_are_those_of_the_seed(method):
    model, x = two_layers(), inputs()
    y = torch.tensor([0, 1, 0, 1, 1, 0, 1])
    found = saliency(model, x, y, methods=(method,))
    assert list(found.maps) == [method]
    torch.testing.assert_close(found.maps[method], by_hand(model, x, y, method), rtol=1e-12, atol=1e-14)
    assert torch.equal(found.classes, y)
    assert torch.equal(found.inputs, x)


@pytest.mark.parametrize("name", CALLS)
def test_every_call_of_relu_is_met(name):
    model, x = two_layers(), inputs()
    wanted = saliency(model, x)
    found = saliency(Functional(model, CALLS[name]), x)
    assert torch.equal(found.classes, wanted.classes)
    for method in METHODS:
        assert torch.equal(found.maps[method], wanted.maps[method]), method
    assert not torch.equal(wanted.maps["guided"], wanted.maps["deconvolution"])
    assert not torch.equal(wanted.maps["guided"], wanted.maps["gradient"])


def test_a_linear_model_answers_to_its_weights():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    x = torch.rand(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 1, 2])
    found = saliency(model, x, labels, methods=("gradient",))
    weights = model[1].weight.detach()[labels].reshape(4, 3, 2, 2)
    assert torch.equal(found.maps["gradient"], weights)
    assert torch.equal(found.heat("gradient"), weights.abs().amax(1))
    predicted = saliency(model, x, methods=("gradient",))
    assert torch.equal(predicted.classes, model(x).argmax(1))


def test_the_gradient_is_autograds_through_pools_and_batch_norm():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(20, 4)
    ).double()  # fmt: skip
    x = torch.rand(6, 2, 6, 6, dtype=torch.float64)
    found = saliency(model, x, batch_size=6)
    model.eval()
    point = x.clone().requires_grad_()
    model(point).gather(1, found.classes.unsqueeze(1)).sum().backward()
    torch.testing.assert_close(found.maps["gradient"], point.grad, rtol=1e-12, atol=1e-14)


def test_the_model_is_left_as_found_and_batches_do_not_matter():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(6, 3)
    )
    model[1].eval()
    x = torch.rand(9, 1, 2, 2)
    before, state = x.clone(), {key: value.clone() for key, value in model.state_dict().items()}
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    seen = []
    found = saliency(model, x, batch_size=4, work=Work(progress=lambda p: seen.append((p.done, p.total))))
    assert seen == [(0, 9), (4, 9), (8, 9), (9, 9)]
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(x, before)
    assert model[3].inplace
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    whole = saliency(model, x)
    # Sums of at most 6 products; products of matrices may be summed in another order in another batch.
    for method in METHODS:
        torch.testing.assert_close(found.maps[method], whole.maps[method], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_models_without_relu_are_told_apart():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)), inputs(dtype=torch.float32)
    assert list(saliency(model, x, methods=("gradient",)).maps) == ["gradient"]
    with pytest.raises(ValueError, match="model: expected calls of torch's relu"):
        saliency(model, x)
    scripted = torch.jit.trace(two_layers(torch.float32), x)
    with pytest.raises(ValueError, match="model: expected calls of torch's relu"):
        saliency(scripted, x, methods=("guided",))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"methods": ()}, ValueError, "methods: expected"),
        ({"methods": ("smooth",)}, ValueError, "methods: expected"),
        ({"labels": torch.tensor([0] * 6 + [2])}, ValueError, "labels: expected 0 <= label < 2"),
        ({"labels": torch.zeros(7)}, TypeError, "labels: expected"),
        ({"batch_size": 0}, ValueError, "batch_size: expected"),
    ],
)
def test_bad_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        saliency(two_layers(), inputs(), **options)


@pytest.mark.skipif(importlib.util.find_spec("captum") is None, reason="captum is not installed")
def test_guided_backpropagation_is_captums():
    from captum.attr import Deconvolution, GuidedBackprop

    model, x = two_layers(), inputs()
    y = torch.tensor([0, 1, 0, 1, 1, 0, 1])
    found = saliency(model, x, y)
    for method, other in (("guided", GuidedBackprop), ("deconvolution", Deconvolution)):
        torch.testing.assert_close(
            found.maps[method], other(model).attribute(x, target=y).detach(), rtol=1e-12, atol=1e-14
        )


def test_plot():
    pytest.importorskip("matplotlib")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    x = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = saliency(model, x)
    figure = found.plot()
    shown = [axis for part in figure.subfigs for axis in part.axes if axis.images]
    assert len(shown) == 5 * 4
    drawn = shown[1].images[0].get_array()
    assert torch.equal(torch.as_tensor(drawn.data), found.heat("gradient")[0].double())
    with pytest.raises(ValueError, match=r"images: expected \(N, C, H, W\)"):
        saliency(two_layers(), inputs()).plot()
