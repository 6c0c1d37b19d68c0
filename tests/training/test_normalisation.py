"""Normalisation layers against their definitions in float64, their gradients, and attacks through them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pyrobust.attacks import pgd
from pyrobust.models import ZCA, GlobalContrast, MeanStd, normalisation, small_cnn


def data(count: int, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Correlated values in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, *shape, dtype=torch.float64, generator=generator)
    return ((noise + noise.roll(1, -1) + noise.roll(2, -1)) / 3).to(dtype)


def test_mean_and_std() -> None:
    images = data(50, 3, 4, 5)
    layer = MeanStd.fit(images)
    result = layer(images)
    for channel in range(3):
        torch.testing.assert_close(
            result[:, channel].mean(), torch.tensor(0.0, dtype=torch.float64), atol=1e-12, rtol=0
        )
        torch.testing.assert_close(result[:, channel].pow(2).mean(), torch.tensor(1.0, dtype=torch.float64))
    rows = data(50, 6)
    torch.testing.assert_close(MeanStd.fit(rows)(rows), (rows - rows.mean(0)) / rows.std(0, correction=0))
    torch.testing.assert_close(MeanStd(0.5, 0.25).double()(images), 4 * images - 2)
    by_channel = MeanStd([0.1, 0.2, 0.3], [1.0, 2.0, 4.0]).double()(images)
    torch.testing.assert_close(by_channel[:, 2], (images[:, 2] - 0.3) / 4, atol=1e-7, rtol=1e-7)  # 0.3 as a float32
    mean_image = images.mean(0)
    torch.testing.assert_close(MeanStd(mean_image, 2.0)(images), (images - mean_image) / 2)


def test_mean_and_std_names_what_is_wrong() -> None:
    for std in (0.0, [1.0, -1.0], float("nan")):
        with pytest.raises(ValueError, match="std: expected"):
            MeanStd(0.0, std)
    with pytest.raises(ValueError, match="mean: expected"):
        MeanStd(float("inf"), 1.0)
    with pytest.raises(ValueError, match="std: expected"):
        MeanStd.fit(torch.ones(4, 2, 3))
    with pytest.raises(ValueError, match="inputs: expected"):
        MeanStd.fit(torch.ones(4))


@pytest.mark.parametrize("shape", [(3, 4, 5), (7,)])
def test_global_contrast(shape: tuple[int, ...]) -> None:
    inputs = data(6, *shape)
    result = GlobalContrast(scale=2.0, bias=0.01)(inputs).flatten(1)
    rows = inputs.flatten(1)
    centred = rows - rows.mean(1, keepdim=True)
    torch.testing.assert_close(result, 2 * centred / (0.01 + centred.pow(2).mean(1, keepdim=True)).sqrt())
    # Without a bias to speak of, the mean is 0 and the l2 norm scale · √D, whatever the contrast of the input.
    plain = GlobalContrast(bias=1e-14)(0.1 + 0.3 * inputs).flatten(1)
    torch.testing.assert_close(plain.mean(1), torch.zeros(6, dtype=rows.dtype), atol=1e-7, rtol=0)
    # bias / (2 · variance) is the relative error of the norm; the variance here is above 1e-6.
    torch.testing.assert_close(
        plain.norm(dim=1), torch.full((6,), rows.shape[1] ** 0.5, dtype=rows.dtype), rtol=1e-8, atol=0
    )
    with pytest.raises(ValueError, match="bias: expected"):
        GlobalContrast(bias=0.0)
    with pytest.raises(ValueError, match="scale: expected"):
        GlobalContrast(scale=-1.0)


def test_constant_inputs_have_a_gradient() -> None:
    inputs = torch.full((2, 1, 3, 3), 0.5, requires_grad=True)
    result = GlobalContrast()(inputs)
    (grad,) = torch.autograd.grad(result[:, 0, 0, 0].sum(), inputs)
    assert not result.any()
    assert bool(grad.isfinite().all())


def test_whitening_is_its_definition() -> None:
    """cov(y) = U Λ (Λ + eps)⁻¹ Uᵀ, so it is the identity up to eps / (λ_min + eps); W is symmetric and positive."""
    inputs, eps = data(300, 2, 3, 4), 1e-3
    layer = ZCA.fit(inputs, eps)
    assert layer(inputs).shape == inputs.shape
    rows, white = inputs.flatten(1), layer(inputs).flatten(1)
    variances = torch.linalg.eigvalsh(torch.cov(rows.T, correction=0))
    covariance = torch.cov(white.T, correction=0)
    torch.testing.assert_close(white.mean(0), torch.zeros(24, dtype=white.dtype), atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.linalg.eigvalsh(covariance), (variances / (variances + eps)).sort().values)
    off = torch.linalg.matrix_norm(covariance - torch.eye(24, dtype=white.dtype), 2)
    torch.testing.assert_close(off, eps / (variances.min() + eps))
    torch.testing.assert_close(layer.weight, layer.weight.T)
    assert float(torch.linalg.eigvalsh(layer.weight).min()) > 0
    nearly = torch.cov(ZCA.fit(inputs, 1e-12)(inputs).flatten(1).T, correction=0)
    torch.testing.assert_close(nearly, torch.eye(24, dtype=white.dtype), atol=1e-7, rtol=0)


def test_whitening_is_the_nearest() -> None:
    """Of all W' = R W with R orthogonal, which whiten as well, no other moves the centred data less."""
    inputs = data(200, 8)
    layer = ZCA.fit(inputs, 1e-9)
    centred, white = inputs - layer.mean, layer(inputs)
    distance = (white - centred).pow(2).sum()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=generator))[0]
        assert (white @ rotation.T - centred).pow(2).sum() > distance


def test_whitening_is_fitted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = data(50, 6)
    whole = ZCA.fit(inputs)
    monkeypatch.setattr(normalisation, "_ROWS", 7)
    torch.testing.assert_close(ZCA.fit(inputs).weight, whole.weight)


def test_fewer_samples_than_values() -> None:
    """Directions without variance are scaled by eps^(−1/2), not by what rounding left of it."""
    inputs = data(5, 12, dtype=torch.float32)
    layer = ZCA.fit(inputs, 0.01)
    assert layer.weight.dtype == torch.float32
    torch.testing.assert_close(torch.linalg.matrix_norm(layer.weight, 2), torch.tensor(10.0))
    with pytest.raises(ValueError, match="eps: expected"):
        ZCA.fit(inputs, 0.0)
    with pytest.raises(ValueError, match="weight: expected"):
        ZCA(torch.zeros(3), torch.eye(4))


def test_gradients() -> None:
    inputs = data(2, 2, 3).requires_grad_()
    for layer in (MeanStd.fit(data(9, 2, 3)), GlobalContrast(1.5, 0.1), ZCA.fit(data(9, 2, 3))):
        assert torch.autograd.gradcheck(layer, inputs)
        assert torch.autograd.gradgradcheck(layer, inputs)


def test_half_precision_and_autocast() -> None:
    images = data(64, 1, 4, 4, dtype=torch.float32)
    layers = nn.Sequential(MeanStd(0.5, 0.5), GlobalContrast(), ZCA.fit(images))
    expected = layers(images)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layers(images), expected)  # none of these layers computes in half precision
    # bfloat16 keeps 8 bits; the whitening's largest factor is eps^(−1/2).
    lowered = layers(images.to(torch.bfloat16)).float()
    assert float((lowered - expected).abs().max()) < 2**-8 * 0.1**-0.5 * 4 * float(expected.abs().max())


def test_weight_files_hold_the_statistics() -> None:
    images = data(30, 1, 8, 8, dtype=torch.float32)
    network = nn.Sequential(MeanStd.fit(images), ZCA.fit(images), small_cnn(1))
    empty = nn.Sequential(MeanStd(0.0, 1.0), ZCA(torch.zeros(64), torch.eye(64)), small_cnn(2))
    empty.load_state_dict(network.state_dict())
    assert torch.equal(empty(images), network(images))


def test_attacks_stay_in_pixel_space() -> None:
    images = data(8, 1, 8, 8, dtype=torch.float32)
    network = nn.Sequential(GlobalContrast(), ZCA.fit(GlobalContrast()(images)), small_cnn()).eval()
    labels = network(images).argmax(1)
    adv = pgd(network, images, labels, eps=0.1, norm="linf", steps=5)
    assert float((adv - images).abs().max()) <= 0.1 + 1e-6  # rounding of images + 0.1
    assert 0 <= float(adv.min()) <= float(adv.max()) <= 1
    assert not torch.equal(adv, images)
