"""Tangents of the data, and penalties along them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pyrobust.data import digits
from pyrobust.models import small_cnn
from pyrobust.training import (
    Batch,
    ContractiveAutoencoder,
    CrossEntropy,
    Objective,
    Tangent,
    contractive_autoencoder,
    local_pca_tangents,
)


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 4)).double()


def batch_of(count: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(count, 3, 4, generator=generator, dtype=torch.float64)
    return Batch(inputs, torch.randint(4, (count,), generator=generator), torch.arange(count) + 2)


def orthonormal(samples: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    basis = torch.linalg.qr(torch.randn(samples, 12, count, generator=generator, dtype=torch.float64)).Q
    return basis.transpose(1, 2).reshape(samples, count, 3, 4)


def penalty(term: Tangent, model: nn.Module, batch: Batch) -> Tensor:
    return Objective(tangent=term)(model, batch)[0]


def test_by_differences_along_the_tangents() -> None:
    """J t and ⟨∇CE, t⟩ as central differences of the network along t."""
    model, tangents, batch, h = net(), orthonormal(9, 3), batch_of(), 1e-5
    logits, losses = 0.0, 0.0
    for x, y, i in zip(batch.inputs, batch.labels, batch.sample_ids, strict=True):
        slopes = []
        for t in tangents[i]:
            high, low = model(torch.stack([x + h * t, x - h * t])).detach()
            logits += float(((high - low) / (2 * h)).square().sum()) / 5
            ce = [float(torch.logsumexp(z, 0) - z[y]) for z in (high, low)]
            slopes.append((ce[0] - ce[1]) / (2 * h))
        losses += math.hypot(*slopes) / 5
    # Central differences are off by h² times a third derivative, and by 1e-16 / h.
    assert float(penalty(Tangent(tangents), model, batch_of())) == pytest.approx(logits, rel=1e-8)
    assert float(penalty(Tangent(tangents, "loss"), model, batch_of())) == pytest.approx(losses, rel=1e-8)


def test_all_directions_make_the_whole_jacobian() -> None:
    model = net()
    everything = torch.eye(12, dtype=torch.float64).reshape(1, 12, 3, 4).expand(9, -1, -1, -1)
    batch = batch_of()
    rows = [torch.autograd.functional.jacobian(lambda x: model(x.unsqueeze(0))[0], x) for x in batch.inputs]
    exact = sum(float(row.square().sum()) for row in rows) / 5
    assert float(penalty(Tangent(everything), model, batch)) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("of", ["logits", "loss"])
def test_second_derivatives_by_differences(of: str) -> None:
    model, term = net(), Tangent(orthonormal(9, 2), of)

    def value(weight: Tensor) -> Tensor:
        batch = batch_of(2)
        batch.inputs.requires_grad_()
        return term(lambda x: torch.func.functional_call(model, {"1.weight": weight}, (x,)), batch)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(value, (model[1].weight.detach().clone().requires_grad_(),))


def test_tangents_of_samples_or_of_inputs() -> None:
    model, tangents = net(), orthonormal(9, 3)
    stored = Tangent(tangents)
    assert torch.equal(stored.state_dict()["tangents"], tangents)
    called = Tangent(lambda inputs: tangents[2:7])
    assert not called.state_dict()
    assert float(penalty(called, model, batch_of())) == float(penalty(stored, model, batch_of()))
    other = batch_of()
    other.sample_ids = other.sample_ids - 1
    assert float(penalty(stored, model, other)) != float(penalty(stored, model, batch_of()))


@pytest.mark.parametrize("of", ["logits", "loss"])
def test_images_and_half_precision(of: str, device: torch.device) -> None:
    model, found = small_cnn().to(device), []
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    term = Tangent(local_pca_tangents(images, 2, neighbours=4), of).to(device)
    for enabled in (False, True):
        ids = torch.arange(6, device=device)
        batch = Batch(images.to(device), ids, ids)
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            loss = penalty(term, model, batch)
        assert loss.dtype == torch.float32
        found.append(float(loss.detach()))
        loss.backward()
    # bfloat16 keeps 8 bits: 0.4 % a rounding, squared, over four layers there and back.
    assert found[0] == pytest.approx(found[1], rel=0.1)
    assert found[0] > 0


def plane(count: int, noise: float) -> tuple[Tensor, Tensor]:
    """Points near a plane in [0, 1]^12 shaped (3, 4), and the plane's projector."""
    generator = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(12, 2, generator=generator, dtype=torch.float64)).Q
    where = torch.rand(count, 2, generator=generator, dtype=torch.float64) - 0.5
    points = 0.5 + 0.6 * where @ basis.T + noise * torch.randn(count, 12, generator=generator, dtype=torch.float64)
    return points.reshape(count, 3, 4), basis @ basis.T


def test_local_pca_finds_a_plane() -> None:
    points, projector = plane(300, 0.0)
    found = local_pca_tangents(points, 2, neighbours=10).flatten(2)
    torch.testing.assert_close(found @ found.transpose(1, 2), torch.eye(2, dtype=torch.float64).expand(300, 2, 2))
    torch.testing.assert_close(found.transpose(1, 2) @ found, projector.expand(300, 12, 12), rtol=0, atol=1e-10)
    assert torch.equal(found, local_pca_tangents(points, 2, neighbours=10, chunk=7).flatten(2))
    points, projector = plane(300, 1e-3)
    few, many = (local_pca_tangents(points, 2, neighbours=k).flatten(2) for k in (5, 40))
    left = [float((t - t @ projector).square().sum()) for t in (few, many)]
    assert left[1] < left[0]  # a wider patch averages the noise, on a plane


def test_contractive_autoencoder() -> None:
    points, projector = plane(400, 0.01)
    points = points.float()
    coder = contractive_autoencoder(points, hidden=24, contraction=1e-3, epochs=60, lr=1e-2)
    tangents = coder.tangents(points, 2)
    assert tangents.shape == (400, 2, 3, 4)
    flat = tangents.flatten(2)
    torch.testing.assert_close(flat @ flat.transpose(1, 2), torch.eye(2).expand(400, 2, 2), rtol=0, atol=1e-5)
    inside = (flat @ projector.float()).square().sum((1, 2)).mean() / 2  # 1 in the plane, 2 / 12 by chance
    assert float(inside) > 0.9
    again = contractive_autoencoder(points, hidden=24, contraction=1e-3, epochs=60, lr=1e-2)
    assert torch.equal(again.weight, coder.weight)
    assert not torch.equal(contractive_autoencoder(points, 24, 1e-3, 1, lr=1e-2, seed=1).weight, contractive_autoencoder(points, 24, 1e-3, 1, lr=1e-2).weight)  # fmt: skip
    stiff = contractive_autoencoder(points, 24, contraction=10.0, epochs=60, lr=1e-2)
    assert slope(stiff, points) < 0.1 * slope(coder, points)
    assert not any(p.requires_grad for p in coder.parameters())


def slope(coder: ContractiveAutoencoder, inputs: Tensor) -> float:
    rows = torch.func.vmap(torch.func.jacrev(lambda x: coder.encode(x.unsqueeze(0))[0]))(inputs[:20])
    return float(rows.square().sum() / 20)


def test_contraction_and_tangents_by_the_jacobian() -> None:
    coder = ContractiveAutoencoder(12, 7, seed=4).double()
    inputs = batch_of().inputs
    rows = torch.stack([torch.autograd.functional.jacobian(lambda x: coder.encode(x.unsqueeze(0))[0], x).flatten(1) for x in inputs])  # fmt: skip
    gap = coder.loss(inputs, 2.0) - coder.loss(inputs, 0.0)
    assert float(gap.detach()) == pytest.approx(2 * float(rows.square().sum((1, 2)).mean()), rel=1e-12)
    outputs = torch.sigmoid(coder.encode(inputs) @ coder.weight + coder.output_bias)
    flat = inputs.flatten(1)
    errors = -(flat * outputs.log() + (1 - flat) * (1 - outputs).log()).sum(1).mean()
    torch.testing.assert_close(coder.loss(inputs, 0.0), errors)
    found = coder.tangents(inputs, 3).flatten(2)
    exact = torch.linalg.svd(rows).Vh[:, :3]
    torch.testing.assert_close((found * exact).sum(2).abs(), torch.ones(5, 3, dtype=torch.float64))


@pytest.mark.parametrize("of", ["logits", "loss"])
def test_training_makes_digits_insensitive_along_tangents(of: str) -> None:
    pytest.importorskip("sklearn")
    data = digits()
    assert data.train is not None
    inputs, labels = (t[:400] for t in data.train)
    tangents = local_pca_tangents(inputs, 4)
    coder = contractive_autoencoder(inputs, 32, epochs=2)
    measured = {}
    given = functools.partial(coder.tangents, count=4) if of == "loss" else tangents
    for weight in (0.0, 1.0):
        model, term = small_cnn(), Tangent(given, of)
        objective = Objective(ce=CrossEntropy(), tangent=(weight, term))
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for step in range(60):
            ids = torch.randint(400, (64,), generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            loss, values = objective(model, Batch(inputs[ids], labels[ids], ids, step=step))
            loss.backward()
            optimizer.step()
        everything = Batch(inputs.clone(), labels, torch.arange(400))
        measured[weight] = float(penalty(Tangent(given, of), model, everything))
        assert float((model(inputs).argmax(1) == labels).float().mean()) > 0.75
    assert measured[1.0] < 0.7 * measured[0.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Tangent(orthonormal(9, 2), "inputs"), "of: expected"),
        (lambda: penalty(Tangent(orthonormal(9, 2).flatten(2)), net(), batch_of()), r"tangents: expected \(5, T, 3, 4\)"),
        (lambda: Tangent(orthonormal(9, 2))(net(), batch_of()), r"batch\.inputs: expected"),
        (lambda: local_pca_tangents(batch_of().inputs, 2, neighbours=5), "neighbours: expected fewer than the 5"),
        (lambda: local_pca_tangents(batch_of().inputs, 4, neighbours=3), "count: expected at most 3"),
        (lambda: local_pca_tangents(batch_of().inputs, 0, neighbours=3), "count: expected an integer"),
        (lambda: contractive_autoencoder(batch_of().inputs + 1), "inputs: expected samples"),
        (lambda: contractive_autoencoder(batch_of().inputs, 0), "hidden: expected an integer"),
        (lambda: contractive_autoencoder(batch_of().inputs, contraction=-1), "contraction: expected"),
        (lambda: contractive_autoencoder(batch_of().inputs, lr=0), "lr: expected"),
        (lambda: contractive_autoencoder(batch_of().inputs, epochs=0), "epochs: expected"),
        (lambda: ContractiveAutoencoder(12, 3).tangents(batch_of().inputs.float(), 4), "count: expected at most 3"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
