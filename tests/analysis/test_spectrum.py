"""Jacobian spectra beside torch.linalg in float64, and beside spectra that are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pyrobust.analysis import JacobianSpectrum, jacobian, jacobian_spectrum
from pyrobust.analysis.lanczos import largest_singular
from pyrobust.analysis.work import Work
from tests.training.pieces import batch_of, jacobians, relu_net

EPS = 2.0**-53


def with_spectrum(values: list[float], rows: int, columns: int, seed: int = 0) -> Tensor:
    """A matrix with these singular values between random orthonormal bases."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(size, len(values), generator=generator, dtype=torch.float64))[0]
        for size in (rows, columns)
    )
    return left * torch.tensor(values, dtype=torch.float64) @ right.T


def linear(matrix: Tensor) -> nn.Module:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False).to(matrix.dtype)
    layer.weight.data.copy_(matrix)
    return nn.Sequential(layer)


@pytest.mark.parametrize("sizes", [(20, 40, 30, 9), (6, 12, 20)], ids=["wide", "tall"])
@pytest.mark.parametrize("method", ["auto", "gram", "svd"])
def test_beside_linalg(sizes: tuple[int, ...], method: str) -> None:
    model, x = relu_net(sizes=sizes), batch_of(5, sizes[0]).inputs
    full = jacobians(model, x)
    left, values, right = torch.linalg.svd(full, full_matrices=False)
    found = jacobian_spectrum(model, x, method=method, vectors=True)
    # J Jᵀ is off by its dimension times EPS σ₁², so σ by up to the square root where σ is 0; both sizes have full rank.
    scale = values[:, :1] if method != "gram" else values[:, :1].square() / values
    assert bool(((found.values - values).abs() <= 64 * EPS * scale).all())
    assert found.vectors is not None
    identity = torch.eye(values.shape[1], dtype=torch.float64).expand(5, -1, -1)
    torch.testing.assert_close(found.vectors @ found.vectors.mT, identity, rtol=0, atol=1e-13)
    # JᵀJ v = σ² v, whatever the sign of v.
    back = full.mT @ (full @ found.vectors.mT)
    torch.testing.assert_close(back, found.vectors.mT * values.unsqueeze(1).square(), rtol=0, atol=1e-12)
    assert (found.residuals, found.steps) == (None, 0)


def test_methods_differ_where_values_are_small() -> None:
    """Squaring loses what is below 1e-8 of the largest in float64; in float32 the entries themselves are no better."""
    values = [1.0, 1e-3, 1e-6, 1e-10]
    matrix, x = with_spectrum(values, 4, 50), torch.rand(2, 50, dtype=torch.float64)
    exact = torch.tensor(values, dtype=torch.float64)
    svd, gram = (jacobian_spectrum(linear(matrix), x, method=m).values - exact for m in ("svd", "gram"))
    assert float(svd.abs().max()) < 4 * 4 * EPS
    assert 1e-12 < float(gram.abs().max()) < (16 * EPS) ** 0.5
    assert torch.equal(
        jacobian_spectrum(linear(matrix), x).values, jacobian_spectrum(linear(matrix), x, method="svd").values
    )
    narrow = jacobian_spectrum(linear(matrix.float()), x.float())
    rounded = torch.linalg.svdvals(matrix.float().double())
    assert float((narrow.values - rounded).abs().max()) < (16 * EPS) ** 0.5 < 2.0**-24
    assert torch.equal(narrow.values, jacobian_spectrum(linear(matrix.float()), x.float(), method="gram").values)


@pytest.mark.parametrize("k", [None, 3])
def test_orthogonal_layers(k: int | None) -> None:
    """All singular values of a product of rotations are 1, in any number."""
    layers = [linear(with_spectrum([1.0] * 8, 8, 8, seed)) for seed in range(3)]
    found = jacobian_spectrum(nn.Sequential(*layers), torch.rand(4, 8, dtype=torch.float64), k=k, vectors=True)
    torch.testing.assert_close(found.values, torch.ones(4, k or 8, dtype=torch.float64), rtol=0, atol=1e-14)
    assert found.vectors is not None
    gram = found.vectors @ found.vectors.mT
    torch.testing.assert_close(gram, torch.eye(k or 8, dtype=torch.float64).expand_as(gram), rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)])
@pytest.mark.parametrize("k", [1, 4])
def test_the_largest_of_a_known_spectrum(shape: tuple[int, int], k: int) -> None:
    values = [0.8**i for i in range(20)]
    model, x = linear(with_spectrum(values, *shape)), torch.rand(3, shape[1], dtype=torch.float64)
    found = jacobian_spectrum(model, x, k=k, tolerance=1e-6, vectors=True)
    exact = torch.tensor(values[:k], dtype=torch.float64).expand(3, -1)
    assert found.residuals is not None
    assert bool((found.residuals < 1e-6).all())
    assert k < found.steps <= (20 if k == 1 else 40)  # the rank: then nothing is left; and a second look where k > 1
    # σ̂ ≤ σ but for rounding, max(shape) units of σ₁ = 1; off by at most residual² / gap, and the gaps are above 0.1.
    assert bool((found.values <= exact + max(shape) * EPS).all())
    torch.testing.assert_close(found.values, exact, rtol=0, atol=1e-11)
    # The sine of the angle of each vector is at most residual over gap, so that ‖A v‖ says the same.
    assert found.vectors is not None
    images = jacobian(model, x) @ found.vectors.mT
    torch.testing.assert_close(torch.linalg.vector_norm(images, dim=1), exact, rtol=0, atol=1e-9)


def test_residuals_are_what_they_say() -> None:
    """‖Jᵀu − σ v‖₂ with J v = σ u, before convergence; some singular value is within it of each σ̂."""
    values = torch.linspace(1, 2, 40, dtype=torch.float64).flip(0)
    matrix = with_spectrum(values.tolist(), 40, 60)
    found = largest_singular(
        lambda v: v @ matrix, lambda u: u @ matrix.T, torch.ones(1, 40, dtype=torch.float64), 3, 1e-12, 10
    )
    assert found.steps == 10
    ends = (matrix @ found.outer[0].T).T - found.values[0].unsqueeze(1) * found.inner[0]
    starts = (matrix.T @ found.inner[0].T).T - found.values[0].unsqueeze(1) * found.outer[0]
    torch.testing.assert_close(starts, torch.zeros_like(starts), rtol=0, atol=1e-13)
    torch.testing.assert_close(torch.linalg.vector_norm(ends, dim=1), found.residuals[0], rtol=1e-9, atol=1e-13)
    assert float(found.residuals.min()) > 1e-3
    distance = (values.unsqueeze(0) - found.values[0].unsqueeze(1)).abs().amin(1)
    assert bool((distance <= found.residuals[0]).all())
    assert not bool(found.exhausted)


def test_all_of_the_largest_are_all() -> None:
    """As many steps as the smaller side has dimensions leave nothing out, in float32 too, and whatever the rank."""
    model, x = relu_net(sizes=(20, 40, 30, 9)).float(), batch_of(5, 20).inputs.float()
    expected = jacobian_spectrum(model, x).values
    found = jacobian_spectrum(model, x, k=9, tolerance=1e-12)
    torch.testing.assert_close(found.values, expected, rtol=0, atol=9 * 2.0**-24 * float(expected.max()))
    low = with_spectrum([3.0, 3.0, 1.0], 6, 9)
    found = jacobian_spectrum(linear(low), torch.rand(2, 9, dtype=torch.float64), k=6, tolerance=1e-12)
    torch.testing.assert_close(found.values, torch.tensor([[3.0, 3, 1, 0, 0, 0]], dtype=torch.float64).expand(2, -1), rtol=0, atol=1e-13)  # fmt: skip
    zero = jacobian_spectrum(linear(torch.zeros(4, 5)), torch.rand(2, 5), k=2)
    assert not zero.values.any()


def test_equal_values_are_all_found() -> None:
    """Products from one start see each value once; the copies are found where the space of the start is used up."""
    matrix, x = with_spectrum([3.0, 3.0, 1.0], 8, 9), torch.rand(2, 9, dtype=torch.float64)
    found = jacobian_spectrum(linear(matrix), x, k=2)
    torch.testing.assert_close(found.values, torch.full((2, 2), 3.0, dtype=torch.float64), rtol=0, atol=1e-13)


def test_equal_values_are_found_in_float32() -> None:
    """Where the space of one start has converged, and rounding has not led out of it: a copy takes a second look."""
    for seed in range(40):
        k, sides = 2 + seed % 4, (20 + 2 * seed, 30 + seed)
        one = (
            torch.rand(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            .sort(descending=True)
            .values
        )
        falling = float(one[0]) * torch.linspace(0.99, 0.4, min(sides) - 3, dtype=torch.float64)
        for values in (one.repeat_interleave(2), torch.cat([one[:1].expand(3), falling])):
            matrix = with_spectrum(values.tolist(), *sides, seed).float()
            start = torch.randn(1, sides[1], generator=torch.Generator().manual_seed(seed))
            found = largest_singular(lambda v: v @ matrix.T, lambda u: u @ matrix, start, k, 1e-4, 100)  # noqa: B023
            expected = values.sort(descending=True).values[:k].unsqueeze(0)
            # float32 products, and residual² over the gaps
            torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-5)
            apart = found.inner @ found.inner.mT - torch.eye(k, dtype=torch.float64)
            assert float(apart.abs().max()) < 1e-3, "of equal values too the vectors are orthogonal"


def test_a_zero_jacobian_is_known_at_once() -> None:
    """Where the largest alone is asked for, a sample without a slope does not keep the others."""
    matrix = with_spectrum([0.5**i for i in range(30)], 30, 40)
    x = torch.rand(3, 40, dtype=torch.float64)
    x[1] = 0
    found = jacobian_spectrum(lambda x: (x @ matrix.T) * (x.sum(1, keepdim=True) > 0), x, k=1)
    assert found.values[:, 0].tolist() == pytest.approx([1, 0, 1], rel=1e-7)  # (1e-4)² over the gap, and to spare
    assert found.steps < 15


def test_layers_and_their_largest() -> None:
    model, x = relu_net(sizes=(20, 40, 30, 9)), batch_of(4, 20).inputs
    full = torch.linalg.svdvals(jacobian(model, x, "3"))
    torch.testing.assert_close(jacobian_spectrum(model, x, "3").values, full, rtol=0, atol=1e-13)
    torch.testing.assert_close(
        jacobian_spectrum(model, x, "3", k=2, tolerance=1e-7).values, full[:, :2], rtol=0, atol=1e-11
    )
    images = nn.Sequential(nn.Unflatten(1, (1, 4, 5)), nn.Conv2d(1, 3, 2), nn.Flatten()).double()
    shaped = x.reshape(4, 4, 5)
    vectors = jacobian_spectrum(nn.Sequential(nn.Flatten(), images), shaped, k=2, vectors=True).vectors
    assert vectors is not None
    assert vectors.shape == (4, 2, 4, 5)


def test_arguments_matter_and_bits_repeat() -> None:
    values = torch.linspace(1, 1.2, 40, dtype=torch.float64).flip(0).tolist()
    model, x = linear(with_spectrum(values, 40, 60)), torch.rand(4, 60, dtype=torch.float64)
    one = jacobian_spectrum(model, x, k=2, steps=8)
    assert torch.equal(one.values, jacobian_spectrum(model, x, k=2, steps=8).values)
    assert not torch.equal(one.values, jacobian_spectrum(model, x, k=2, steps=8, seed=1).values)
    assert one.steps == 8
    assert bool((jacobian_spectrum(model, x, k=2, steps=20).values > one.values).all())
    assert jacobian_spectrum(model, x, k=2, tolerance=0.5).steps < 8
    halves = jacobian_spectrum(model, x, k=2, steps=8, batch_size=2)  # the same starts, whatever the batch
    torch.testing.assert_close(halves.values, one.values, rtol=1e-12, atol=0)


def test_resuming(tmp_path: Path) -> None:
    model, x = relu_net(), batch_of(6).inputs
    first = jacobian_spectrum(model, x, batch_size=2, vectors=True, work=Work(tmp_path))
    calls: list[int] = []

    def counted(inputs: Tensor) -> Tensor:
        calls.append(len(inputs))
        return model(inputs)

    again = jacobian_spectrum(counted, x, batch_size=2, vectors=True, work=Work(tmp_path))
    assert calls == [1]  # to learn the number of outputs
    assert torch.equal(first.values, again.values)
    assert first.vectors is not None
    assert again.vectors is not None
    assert torch.equal(first.vectors, again.vectors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "qr"}, "method: expected one of auto, gram, svd, got 'qr'"),
        ({"k": 5}, r"k: expected at most 4 = min\(m, D\)"),
        ({"k": 3, "steps": 2}, "k: expected at most 4 .* steps = 2, got 3"),
        ({"k": 0}, "k: expected an integer >= 1"),
        ({"k": 1, "tolerance": 0.0}, "tolerance: expected a finite number > 0"),
        ({"layer": "nine"}, "layer: expected one of"),
    ],
)
def test_errors(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jacobian_spectrum(relu_net(), batch_of(2).inputs, **options)


def test_plots() -> None:
    pytest.importorskip("matplotlib")
    from pyrobust.analysis._draw_spectrum import draw_spectra

    one = jacobian_spectrum(relu_net(), batch_of(7).inputs)
    (axis,) = one.plot().axes
    assert axis.get_yscale() == "log"
    assert axis.lines[0].get_ydata() == pytest.approx(one.values.median(0).values)
    scaled = JacobianSpectrum(2 * one.values)
    (axis,) = draw_spectra({"a": one, "b": scaled}).axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a", "b"]
