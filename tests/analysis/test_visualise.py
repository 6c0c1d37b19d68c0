"""Activation maximisation against optima in closed form; recognition, filters and their choice."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyrobust.analysis import activation_maximisation, filters, recognised
from pyrobust.analysis.work import Work
from pyrobust.models import lenet_matconvnet, small_cnn

SHAPE = (1, 3, 4)


def linear(classes=3) -> nn.Sequential:
    model = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, classes)).double()
    with torch.no_grad():
        model[2].weight.copy_(torch.randn(classes, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    return model


def maximise(model, units, **options):
    return activation_maximisation(model, SHAPE, torch.as_tensor(units), dtype=torch.float64, **options)


def test_without_decay_a_linear_class_ends_in_the_corner_of_the_box():
    model = linear()
    found = maximise(model, [0, 1, 2, 1], steps=4000, step_size=0.02)
    weight = model[2].weight.detach()[found.units]
    assert torch.equal(found.images.flatten(1), (weight > 0).double())
    corner = weight.clamp(min=0).sum(1) + model[2].bias.detach()[found.units]
    torch.testing.assert_close(found.activation, corner, rtol=1e-12, atol=1e-12)
    assert (found.activation > found.before).all()


def test_with_decay_it_is_the_clipped_minimum_of_a_parabola():
    model, decay = linear(), 2.0
    wanted = (model[2].weight.detach() / (2 * decay)).clamp(0, 1)
    found = maximise(model, [0, 1, 2], decay=decay, steps=2000)
    # Normalised steps circle the optimum at their own length: the last ones are below 2 / 2000 of 0.01 · √12.
    torch.testing.assert_close(found.images.flatten(1), wanted, rtol=0, atol=5e-4)
    origin = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = maximise(model, [0, 1, 2], decay=decay, origin=origin, steps=2000)
    wanted = (origin.flatten() + model[2].weight.detach() / (2 * decay)).clamp(0, 1)
    torch.testing.assert_close(moved.images.flatten(1), wanted, rtol=0, atol=5e-4)
    assert (maximise(model, [0], decay=decay, origin=0.5).images > found.images[:1]).any()


def test_units_of_a_layer_and_the_mean_over_maps():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(24, 3)).double()
    found = maximise(model, [2, 0], layer=model[0], steps=1, step_size=0.02)
    start = maximise(model, [2, 0], layer=model[0], steps=1, step_size=1e-12).images
    kernels = model[0].weight.detach()[found.units]
    # ∂ mean of a map / ∂x: each place's kernel, spread over the image.
    gradient = nn.functional.conv_transpose2d(torch.ones(1, 1, 2, 3, dtype=torch.float64), kernels.transpose(0, 1)) / 6
    step = gradient[0] / gradient[0].flatten(1).norm(dim=1)[:, None, None]
    torch.testing.assert_close((found.images - start)[:, 0], 0.02 * 12**0.5 * step, rtol=1e-9, atol=1e-9)
    mean = model[0](found.images).flatten(2).mean(2).gather(1, found.units.unsqueeze(1)).squeeze(1).detach()
    torch.testing.assert_close(found.activation, mean, rtol=1e-12, atol=1e-12)
    assert not model[0]._forward_hooks


def test_the_path_is_keyed_bounded_and_leaves_the_model():
    model = linear().train()
    options = {"steps": 3, "noise": (0.2, 0.3)}
    found = maximise(model, [0, 1, 2, 0], **options)
    assert torch.equal(found.images, maximise(model, [0, 1, 2, 0], **options).images)
    assert torch.equal(found.images[:2], maximise(model, [0, 1], **options).images)
    torch.testing.assert_close(
        found.images, maximise(model, [0, 1, 2, 0], batch_size=3, **options).images, rtol=0, atol=1e-12
    )
    assert not torch.equal(found.images, maximise(model, [0, 1, 2, 0], seed=1, **options).images)
    assert model.training
    assert model[0].training
    wide = maximise(model, [0, 1], bounds=(-2.0, 3.0), steps=1, step_size=1.0)
    assert wide.images.amin() >= -2
    assert wide.images.amax() <= 3
    start = maximise(model, [0, 1], bounds=(-2.0, 3.0), steps=1, step_size=1e-12).images
    tiny = maximise(model, [0, 1], bounds=(-2.0, 3.0), steps=1, step_size=1e-3).images
    rms = (tiny - start).flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(rms, torch.full_like(rms, 5e-3), rtol=1e-6, atol=0)


def test_dead_units_stay_at_the_noise():
    model = linear()
    nn.init.zeros_(model[2].weight)
    found = maximise(model, [0, 1])
    assert (found.images >= 0.4).all()
    assert (found.images <= 0.6).all()
    assert torch.equal(found.before, found.activation)


def test_gradients_that_autograd_expands():
    def total(x):  # its gradient is one number, expanded to the shape of x
        z = x.sum((1, 2, 3)).unsqueeze(1)
        return torch.cat([z, -z], 1)

    found = activation_maximisation(total, (1, 2, 2), torch.arange(2), decay=0.25, steps=200)
    # max of ± sum x − 0.25 ‖x‖² over the box is 4 · 0.75 at its bright corner, and 0 at its dark one.
    torch.testing.assert_close(found.activation, torch.tensor([4.0, 0.0]))


def test_recognition():
    model = linear().train()
    images = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    classes = torch.tensor([0, 1, 2, 0, 1])
    found = recognised(model, images, classes, batch_size=2)
    assert model[0].training
    probs = torch.softmax(model.eval()(images), 1).detach()
    torch.testing.assert_close(found.confidence, probs[torch.arange(5), classes], rtol=1e-12, atol=0)
    assert torch.equal(found.predictions, probs.argmax(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": torch.tensor([3])}, "units: expected 0 <= unit < 3"),
        ({"units": torch.tensor([0.0])}, "units: expected an int64"),
        ({"steps": 0}, "steps: expected"),
        ({"decay": -1.0}, "decay: expected"),
        ({"step_size": 0.0}, "step_size: expected"),
        ({"noise": (0.5, 1.5)}, "noise: expected"),
        ({"origin": torch.zeros(2)}, "origin: expected"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"layer": nn.Linear(2, 2)}, "layer: expected a module that the model calls"),
    ],
)
def test_bad_arguments_are_named(options, message):
    units = options.pop("units", torch.tensor([0]))
    with pytest.raises(ValueError, match=message):
        maximise(linear(), units, **options)


# ---- filters ----


def test_rms_kernels_and_their_choice():
    model = small_cnn()
    example = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = filters(model, example, count=10)
    assert [layer.name for layer in found.layers] == ["0", "2", "5", "7"]
    for layer in found.layers:
        weight = model[int(layer.name)].weight.detach()
        assert layer.shape == tuple(weight.shape)
        assert layer.rms == pytest.approx(weight.double().norm().item() / weight.numel() ** 0.5, rel=1e-12)
    first, second, dense, last = found.layers
    assert last.kernels is None
    assert first.kernels.shape == (10, 1, 3, 3)
    for (out, whole), kernel in zip(first.chosen, first.kernels, strict=True):
        assert whole == -1
        assert torch.equal(kernel, model[0].weight[out])
    for (out, source), kernel in zip(second.chosen, second.kernels, strict=True):
        assert torch.equal(kernel[0], model[2].weight[out, source])
    for (out, source), kernel in zip(dense.chosen, dense.kernels, strict=True):  # behind the maps of 32 × 4 × 4
        assert torch.equal(kernel[0], model[5].weight[out].reshape(32, 4, 4)[source])
    again, other = filters(model, example, count=10), filters(model, example, count=10, seed=1)
    assert [layer.chosen for layer in again.layers] == [layer.chosen for layer in found.layers]
    assert [layer.chosen for layer in other.layers] != [layer.chosen for layer in found.layers]
    assert len(filters(model, example).layers[0].kernels) == 16  # as many as there are
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_weights_under_spectral_normalisation_are_read_without_moving_it():
    torch.manual_seed(0)
    dense = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 8))
    model = nn.Sequential(nn.Flatten(), dense).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    (layer,) = filters(model, torch.rand(1, 1, 2, 2)).layers
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.training
    assert dense.training
    assert layer.rms == pytest.approx(model.eval()[1].weight.square().mean().sqrt().item(), rel=1e-6)


def test_dense_layers_on_images_colours_and_leaving_the_model():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, 5))
    found = filters(model, torch.rand(4, 3, 4, 4))
    assert model.training
    assert model[1].num_batches_tracked == 0
    (layer,) = found.layers
    assert torch.equal(layer.kernels, model[2].weight.detach().reshape(5, 3, 4, 4))
    assert filters(model, torch.rand(2, 48)).layers[0].kernels is None
    lenet = filters(lenet_matconvnet(), torch.rand(1, 1, 28, 28), count=4)
    assert [layer.kernels is None for layer in lenet.layers] == [False, False, False, True]
    assert lenet.layers[2].kernels.shape == (4, 1, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: filters(nn.Flatten(), torch.rand(1, 2)), "model: expected layers with weights"),
        (lambda: filters(small_cnn(), torch.rand(1, 1, 8, 8), count=0), "count: expected"),
        (lambda: recognised(linear(), torch.zeros(1, *SHAPE).double(), torch.tensor([3])), "labels: expected"),
    ],
)
def test_other_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_plots():
    pytest.importorskip("matplotlib")
    model, example = small_cnn(), torch.rand(2, 1, 8, 8)
    figure = filters(model, example, count=10).plot()
    assert len(figure.axes) == 3  # the last layer reads no maps
    first = filters(model, example, count=10).layers[0]
    drawn = figure.axes[0].images[0].get_array()
    side = drawn.shape[0] // 3  # pixels a weight of 3 × 3 kernels in one row
    at = drawn[side // 2 : 3 * side : side, side // 2 : 3 * side : side]
    # Grey is 0, and the layer's largest weight is black or white.
    torch.testing.assert_close(
        torch.as_tensor(at.data), 0.5 + first.kernels[0, 0].double() / (2 * first.kernels.abs().max())
    )
    with pytest.raises(ValueError, match="filters: expected a layer"):
        filters(linear(), torch.zeros(1, 12).double()).plot()
    found = maximise(linear(), [0, 1, 2])
    figure = recognised(linear(), found.images, torch.tensor([1, 1, 2])).plot()
    captions = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert len(captions) == 3
    assert captions[0].endswith("(seen as 0)")
    assert captions[1].startswith("class 1: ")
    assert "seen" not in captions[2]
    assert len(found.plot().axes) == 3


def test_progress_is_told():
    seen = []
    work = Work(progress=lambda p: seen.append(p.done))
    maximise(linear(), [0, 1, 2], steps=2, batch_size=2, work=work)
    assert seen == [0, 2, 3]
