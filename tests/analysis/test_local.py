"""Local linear classifiers: the two-layer network of the seed in closed form, and all classes by brute force."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from pyrobust.analysis.local import layer_weights, local_classifier

NORMS = {"l2": 2, "linf": 1, "l1": math.inf}  # the exponent of the dual


def _inputs(n: int = 12) -> Tensor:
    return torch.rand(n, 1, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _network(classes: int, smooth: bool = False) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(8, 20), nn.Tanh() if smooth else nn.ReLU(), nn.Linear(20, classes)
        ).double()


def _labels(n: int, classes: int) -> Tensor:
    return torch.arange(n) % classes


def test_two_layer_network() -> None:
    """w = W₂W₁ˣ and b = W₂b₁ˣ + b₂, the lines of W₁ and b₁ zeroed where the unit is off."""
    model, x = _network(2), _inputs()
    labels = _labels(len(x), 2)
    found = local_classifier(model, x, labels)
    first, second = model[1], model[3]
    sign = (1 - 2 * labels).double()
    for i, flat in enumerate(x.flatten(1)):
        on = (first.weight @ flat + first.bias > 0).double()
        rows = second.weight[0] - second.weight[1]
        w = rows @ (on.unsqueeze(1) * first.weight)
        b = rows @ (on * first.bias) + second.bias[0] - second.bias[1]
        torch.testing.assert_close(found.weights[i].flatten(), sign[i] * w, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(found.offsets[i], sign[i] * b, rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(found.scores[i], sign[i] * (w @ flat + b), rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(found.scales[i], w.norm(), rtol=1e-12, atol=0)
        torch.testing.assert_close(found.distances[i] * found.scales[i], found.scores[i], rtol=1e-12, atol=0)
    assert torch.equal(found.others, 1 - labels)
    assert bool((found.scores < 0).any()), "some are misclassified"


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("smooth", [False, True])
def test_every_class(norm: str, smooth: bool) -> None:
    model, x = _network(5, smooth), _inputs()
    labels = _labels(len(x), 5)
    found = local_classifier(model, x, labels, norm=norm)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda p: model(p.unsqueeze(0)).squeeze(0)))(x).detach()
    logits = model(x).detach()
    for i, y in enumerate(labels.tolist()):
        distances = []
        for j in range(5):
            slope = torch.linalg.vector_norm((jacobians[i, y] - jacobians[i, j]).flatten(), NORMS[norm])
            distances.append(float((logits[i, y] - logits[i, j]) / slope) if j != y else math.inf)
        j = min(range(5), key=distances.__getitem__)
        assert found.others[i] == j
        torch.testing.assert_close(found.distances[i].item(), distances[j], rtol=1e-11, atol=0)
        torch.testing.assert_close(found.weights[i], jacobians[i, y] - jacobians[i, j], rtol=1e-11, atol=1e-14)
    wrong = logits.argmax(1) != labels
    assert torch.equal(found.distances < 0, wrong)
    assert 0 < int(wrong.sum()) < len(x)


def test_seeds_are_held_for_a_few_classes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """N (K − 1) K of them would be 1 GB for a batch of 128 and 1000 classes."""
    from pyrobust.analysis import local

    model, x, labels = _network(9), _inputs(), _labels(12, 9)
    whole = local_classifier(model, x, labels)
    held, pull_back = [], local.pull_back

    def counted(logits: Tensor, point: Tensor, seeds: Tensor, keep: bool = False) -> Iterator[Tensor]:
        held.append(seeds.numel())
        return pull_back(logits, point, seeds, keep=keep)

    monkeypatch.setattr(local, "pull_back", counted)
    monkeypatch.setattr(local, "SEEDS", 3 * 12 * 9)
    found = local_classifier(model, x, labels)
    assert held == [3 * 12 * 9, 3 * 12 * 9, 2 * 12 * 9]
    assert torch.equal(found.others, whole.others)
    for name in ("weights", "scales", "distances"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-13, atol=0)


def test_distance_of_a_linear_classifier_reaches_its_boundary() -> None:
    """For a linear network x − d w / ‖w‖ is a tie."""
    x = _inputs()
    weight = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model = lambda x: x.flatten(1) @ weight.T + 0.1  # noqa: E731
    found = local_classifier(model, x, torch.zeros(12, dtype=torch.int64))
    step = (found.distances / found.scales).reshape(-1, 1, 1, 1) * found.weights
    tied = model(x - step)
    assert (tied[:, 0] - tied[:, 1]).abs().max() < 1e-13  # sums of 8 products of order 1


def test_scaled_logits() -> None:
    """A temperature scales scores and gradients alike, and leaves distances."""
    model, x = _network(3), _inputs()
    labels = _labels(len(x), 3)
    one, ten = local_classifier(model, x, labels), local_classifier(lambda x: 10 * model(x), x, labels)
    torch.testing.assert_close(ten.distances, one.distances, rtol=1e-12, atol=0)
    torch.testing.assert_close(ten.scales, 10 * one.scales, rtol=1e-12, atol=0)
    torch.testing.assert_close(ten.scores, 10 * one.scores, rtol=1e-12, atol=0)


def test_without_a_gradient() -> None:
    x = _inputs(2)
    model = lambda x: 0 * x.flatten(1)[:, :2] + torch.tensor([1.0, 0.0], dtype=x.dtype)  # noqa: E731
    found = local_classifier(model, x, torch.tensor([0, 1]))
    assert found.distances.tolist() == [math.inf, -math.inf]
    assert found.scores.tolist() == [1, -1]


def test_batches_and_traces() -> None:
    model, x = _network(3), _inputs()
    model.insert(1, nn.Dropout(0.5))
    model.train()
    labels = _labels(len(x), 3)
    one, two = local_classifier(model, x, labels), local_classifier(model, x, labels, batch_size=5)
    torch.testing.assert_close(one.distances, two.distances, rtol=1e-12, atol=0)
    assert model[1].training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not x.requires_grad
    single = local_classifier(model.float(), x.float(), labels)
    assert single.weights.dtype == torch.float32
    assert single.distances.dtype == torch.float64
    # Logits of order 1 are rounded to 1e-7, which scores near 0.01 feel as 1e-5.
    torch.testing.assert_close(single.distances, one.distances, rtol=1e-4, atol=1e-6)


def test_plots() -> None:
    pytest.importorskip("matplotlib")
    x = _inputs()
    found = local_classifier(_network(3), x, _labels(len(x), 3))
    (histogram,) = found.plot().axes
    assert sum(patch.get_height() for patch in histogram.patches) == len(x)
    (scatter,) = found.plot(torch.linspace(0, 1, len(x))).axes
    assert len(scatter.collections[0].get_offsets()) == int((found.distances > 0).sum())


def test_layer_weights() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Sequential(nn.Linear(3, 4)))
    with torch.no_grad():
        model[0].weight.fill_(-2.0)
        model[2][0].weight.copy_(torch.tensor([3.0, 4.0, 0.0]).expand(4, 3))
    layers = layer_weights(model)
    assert [(one.name, one.kind, one.shape) for one in layers] == [
        ("0", "Conv2d", (3, 2, 2, 2)),
        ("2.0", "Linear", (4, 3)),
    ]
    assert layers[0].rms == 2.0
    assert layers[1].rms == pytest.approx(math.sqrt(25 / 3), rel=1e-15)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"norm": "l0"}, "norm: expected one of"),
        ({"labels": torch.full((12,), 3)}, "labels: expected 0 <= label < 3"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"model": lambda x: x.flatten(1)[:, :1]}, "model: expected logits"),
    ],
)
def test_errors(changed: dict[str, object], message: str) -> None:
    call = {"model": _network(3), "inputs": _inputs(), "labels": _labels(12, 3)} | changed
    with pytest.raises(ValueError, match=message):
        local_classifier(**call)
