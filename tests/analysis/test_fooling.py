"""Fooling images: what is measured equals a plain loop over samples, classes and budgets."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pyrobust import ops
from pyrobust.analysis import fooling_curve, fooling_images, plot_fooling_curves, softmax_temperature
from pyrobust.analysis.work import Work

SHAPE = (1, 4, 4)
EPS = (0.0, 0.05, 0.3, 1.0)


def network(classes=5) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, classes))
    with torch.no_grad():
        model[-1].weight *= 6
    return model.requires_grad_(False)


def start(samples, low, high, seed=0):
    unit = ops.sample_lp_ball(torch.empty(samples, *SHAPE), math.inf, 0.5 * (high - low), seed=seed)
    return (unit + 0.5 * (low + high)).clamp(low, high)


def gradient(model, x, target):
    x = x.clone().requires_grad_()
    torch.log_softmax(model(x), 1)[:, target].sum().backward()
    return x.grad


def test_the_curve_is_that_of_a_plain_loop():
    model = network().eval()
    curve = fooling_curve(model, SHAPE, EPS, samples=30, batch_size=30, threshold=0.4)
    x = start(30, 0.0, 1.0)
    for i, eps in enumerate(EPS):
        hits, margins = [], []
        for target in range(5):
            probs = torch.softmax(model((x + eps * gradient(model, x, target).sign()).clamp(0, 1)), 1)
            top = probs.topk(2, 1).values
            hits.append((probs.argmax(1) == target) & (probs[:, target] >= 0.4))
            margins.append(top[:, 0] - top[:, 1])
        assert curve.success[i].item() == torch.stack(hits).double().mean().item()
        assert curve.margin[i].item() == pytest.approx(torch.stack(margins).double().mean().item(), abs=1e-6)
    assert curve.eps.tolist() == list(EPS)


def test_a_linear_model_is_fooled_from_the_distance_on():
    weight = torch.randn(16, generator=torch.Generator().manual_seed(1))
    model = lambda z: torch.stack([z.flatten(1) @ weight - 0.5 * weight.sum(), torch.zeros(len(z))], 1)  # noqa: E731
    x = start(50, 0.4, 0.6)
    distance = (
        model(x)[:, 0].abs() / weight.abs().sum()
    )  # of the samples that are not of the class yet: half of the trials
    eps = [0.0, distance.median().item() * (1 + 1e-4), 0.2]
    curve = fooling_curve(model, SHAPE, eps, samples=50, noise=(0.4, 0.6))
    assert curve.success.tolist() == [0.5, 0.5 + 0.5 * (distance <= eps[1]).double().mean().item(), 1.0]


def test_more_steps_fool_more_and_stay_in_the_ball():
    model = network().eval()
    seen = []

    def watched(z):
        seen.append(z.detach().clone())
        return model(z)

    single = fooling_curve(model, SHAPE, [0.1], samples=40)
    many = fooling_curve(watched, SHAPE, [0.1], samples=40, steps=10)
    assert many.success > single.success
    assert torch.stack([s - seen[0] for s in seen]).abs().max() <= 0.1 * (1 + 1e-5)


def test_the_threshold_only_takes_away_and_the_batches_do_not_matter():
    model = network().eval()
    easy = fooling_curve(model, SHAPE, EPS, samples=25)
    strict = fooling_curve(model, SHAPE, EPS, samples=25, threshold=0.9)
    assert (strict.success <= easy.success).all()
    assert (strict.success < easy.success).any()
    torch.testing.assert_close(
        tuple(easy), tuple(fooling_curve(model, SHAPE, EPS, samples=25, batch_size=7)), rtol=0, atol=1e-6
    )
    other = fooling_curve(model, SHAPE, EPS, samples=25, seed=1)
    assert not torch.equal(easy.margin, other.margin)


def test_images_become_their_class_and_start_from_keyed_noise():
    model = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 4, bias=False)).requires_grad_(False)
    model[2].weight.copy_(torch.eye(4).repeat(1, 4))  # each class has four pixels of its own
    targets = torch.arange(4)
    images = fooling_images(model, targets, SHAPE, steps=200)
    assert all(module.training for module in model.modules())
    # 200 signed steps of 0.005 take every pixel from the noise in [0.5, 0.6] to its end of the box.
    torch.testing.assert_close(images.reshape(4, 4, 4), torch.eye(4).unsqueeze(1).expand(4, 4, 4))
    options = {"steps": 3, "noise": (0.2, 0.9)}
    few = fooling_images(model, targets, SHAPE, **options)
    assert torch.equal(few, fooling_images(model, targets, SHAPE, **options))
    assert torch.equal(few[:2], fooling_images(model, targets[:2], SHAPE, **options))
    assert not torch.equal(few, fooling_images(model, targets, SHAPE, seed=1, **options))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_one_step_has_the_length_asked_for(norm):
    model, targets = network().eval(), torch.arange(5)
    once = fooling_images(
        model, targets, SHAPE, steps=1, step_size=0.01, norm=norm, noise=(0.4, 0.6), dtype=torch.float32
    )
    moved = (once - start(5, 0.4, 0.6)).flatten(1)
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    torch.testing.assert_close(torch.linalg.vector_norm(moved, order, dim=1), torch.full((5,), 0.01), rtol=1e-3, atol=0)
    wide = fooling_images(model, targets, SHAPE, steps=1, step_size=9.0, norm=norm, bounds=(-1.0, 2.0))
    assert wide.min() >= -1
    assert wide.max() <= 2
    assert wide.abs().max() > 1.0 - 1e-6


def test_float64_images():
    assert (
        fooling_images(network().eval().double(), torch.arange(2), SHAPE, steps=2, dtype=torch.float64).dtype
        == torch.float64
    )
    curve = fooling_curve(network().eval().double(), SHAPE, EPS, samples=4, dtype=torch.float64)
    assert curve.success.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": (0.5, 1.5)}, "noise: expected"),
        ({"noise": (0.6, 0.5)}, "noise: expected"),
        ({"steps": 0}, "steps: expected"),
        ({"bounds": (1.0, 0.0)}, "bounds: expected"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        fooling_images(network(), torch.arange(2), SHAPE, **options)
    with pytest.raises(ValueError, match=message):
        fooling_curve(network(), SHAPE, EPS, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fooling_images(network(), torch.zeros(2), SHAPE), "targets: expected"),
        (lambda: fooling_images(network(), torch.arange(6), SHAPE), "targets: expected"),
        (lambda: fooling_images(network(), torch.arange(2), SHAPE, norm="l0"), "norm: expected"),
        (lambda: fooling_images(network(), torch.arange(2), SHAPE, step_size=0.0), "step_size: expected"),
        (lambda: fooling_curve(network(), SHAPE, []), "eps: expected"),
        (lambda: fooling_curve(network(), SHAPE, [-0.1]), "eps: expected"),
        (lambda: fooling_curve(network(), SHAPE, EPS, samples=0), "samples: expected"),
        (lambda: fooling_curve(network(), SHAPE, EPS, batch_size=0), "batch_size: expected"),
        (lambda: fooling_curve(network(), SHAPE, EPS, threshold=2.0), "threshold: expected"),
        (lambda: fooling_curve(nn.Flatten(0), SHAPE, EPS), "model: expected logits"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- temperature ----


@pytest.mark.parametrize("confidence", [0.3, 0.95, 0.999])
def test_the_temperature_gives_the_median_confidence(confidence):
    logits = 5 * torch.randn(201, 10, generator=torch.Generator().manual_seed(2))
    temperature = softmax_temperature(logits, confidence)
    assert torch.softmax(logits.double() / temperature, 1).amax(1).median().item() == pytest.approx(
        confidence, abs=1e-9
    )
    assert softmax_temperature(100 * logits, confidence) == pytest.approx(100 * temperature, rel=1e-6)
    two = torch.tensor([[0.0, 3.0]])
    assert softmax_temperature(two, confidence=0.9) == pytest.approx(3 / math.log(9), rel=1e-9)


@pytest.mark.parametrize(
    ("logits", "confidence", "message"),
    [
        (torch.zeros(3), 0.9, "logits: expected shape"),
        (torch.zeros(0, 3), 0.9, "logits: expected shape"),
        (torch.full((3, 2), torch.nan), 0.9, "logits: expected finite"),
        (torch.zeros(3, 2), 0.9, "logits: tie"),
        (torch.randn(3, 2), 0.5, "confidence: expected"),
        (torch.randn(3, 2), 1.0, "confidence: expected"),
    ],
)
def test_temperatures_that_do_not_exist_are_named(logits, confidence, message):
    with pytest.raises(ValueError, match=message):
        softmax_temperature(logits, confidence)


# ---- figures ----


def test_the_curves_are_drawn():
    pytest.importorskip("matplotlib")
    model = network().eval()
    curve = fooling_curve(model, SHAPE, EPS, samples=10)
    for figure in (curve.plot(), curve.plot("net"), plot_fooling_curves({"net": curve, "twice": curve})):
        success, margin = figure.axes
        assert success.lines[0].get_ydata().tolist() == (100 * curve.success).tolist()
        assert margin.lines[-1].get_ydata().tolist() == curve.margin.tolist()
    assert [text.get_text() for text in success.get_legend().get_texts()] == ["net", "twice"]
    assert curve.plot().axes[0].get_legend() is None


def test_parts_are_kept(tmp_path):
    model, seen = network().eval(), []
    options = {"samples": 10, "batch_size": 4}
    first = fooling_curve(model, SHAPE, EPS, work=Work(tmp_path, lambda p: seen.append((p.done, p.resumed))), **options)
    again = fooling_curve(model, SHAPE, EPS, work=Work(tmp_path, lambda p: seen.append((p.done, p.resumed))), **options)
    assert seen == [(0, 0), (4, 0), (8, 0), (10, 0), (0, 0), (4, 4), (8, 8), (10, 10)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
