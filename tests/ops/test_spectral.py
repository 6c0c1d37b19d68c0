"""spectral_norm_step: against its float64 reference, the singular value decomposition, and its edges."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import UNIT
from torch import Tensor

from pyrobust import ops
from pyrobust.ops.spectral import _reference

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# One row, one column, kernels, sizes that are no multiple of a vector, and more than one tile each way (64 × 4096).
SHAPES = [(1, 1), (1, 7), (5, 1), (2, 2), (64, 3, 7, 7), (127, 129), (3, 4097), (151, 1000), (65, 8, 3, 3), (2500, 33)]


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def layers(shapes, dtype, device, seed=0) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).to(device) for s in shapes]
    us = [torch.randn(s[0], generator=generator, dtype=torch.float64).to(wide(dtype)).to(device) for s in shapes]
    return weights, us


def with_singular_values(values: Tensor, rows: int, cols: int) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix with these singular values, and its first singular vectors."""
    generator = torch.Generator().manual_seed(5)
    left = torch.linalg.qr(torch.randn(rows, len(values), generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(cols, len(values), generator=generator, dtype=torch.float64)).Q
    return left * values @ right.T, left[:, 0], right[:, 0]


def check_step(weights: list[Tensor], us: list[Tensor], step: ops.SpectralStep) -> None:
    """One step against float64, within the rounding of the arithmetic.

    A sum of Wᵀu is a chain of at most 64 products, one of Wv at most 128 (256 columns in two lanes of doubles), float64
    after that, and one rounding to store it: with ‖u‖ = 1, Wᵀu is off by 66 u ‖W‖_F and Wv by 130 u ‖W‖_F. Dividing a
    vector z by its length multiplies the relative error by two at most, and adds two roundings.
    """
    unit = UNIT[wide(weights[0].dtype)]
    sigmas, new_us, new_vs = _reference([w.double() for w in weights], [u.double() for u in us], 1, 0.0)
    us_wanted, vs_wanted = new_us.split([len(u) for u in us]), new_vs.split([w[0].numel() for w in weights])
    for w, u, sigma, u_wanted, v_wanted, got, u_got, v_got in zip(
        weights, us, sigmas, us_wanted, vs_wanted, step.sigmas, step.us, step.vs, strict=True
    ):
        matrix = w.double().flatten(1)
        size = matrix.norm().item()
        before = (matrix.T @ u.double()).norm().item() / u.double().norm().item()
        v_error = 2 * 66 * unit * size / before + 2 * unit
        y_error = size * (v_error + 130 * unit)
        context = f"{tuple(w.shape)} {w.dtype}"
        assert (v_got.double() - v_wanted).norm() <= v_error, context
        assert (u_got.double() - u_wanted).norm() <= 2 * y_error / sigma + 2 * unit, context
        assert (got.double() - sigma).abs() <= y_error + unit * sigma, context


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reference(dtype, device):
    weights, us = layers(SHAPES, dtype, device)
    check_step(weights, us, ops.spectral_norm_step(weights, us))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_addresses_off_the_vector_and_strided_weights(dtype, device):
    weights, us = layers([(33, 64), (40, 16, 3, 3)], dtype, device)
    shifted = torch.empty(33 * 64 + 1, dtype=dtype, device=device)[1:].view(33, 64).copy_(weights[0])
    last = weights[1].to(memory_format=torch.channels_last)
    step = ops.spectral_norm_step([shifted, last], us)
    aligned = ops.spectral_norm_step(weights, us)
    assert all(torch.equal(a, b) for a, b in zip((*step.us, *step.vs), (*aligned.us, *aligned.vs), strict=True))
    assert torch.equal(step.sigmas, aligned.sigmas)


def test_converges_to_the_first_singular_value_and_vectors(device):
    values = torch.tensor([3.0, 1.5, 1.2, 0.1], dtype=torch.float64)
    weights, lefts, rights = zip(*(with_singular_values(values, m, n) for m, n in ((20, 30), (70, 18))), strict=True)
    kernel = weights[1].reshape(70, 2, 3, 3)  # a kernel is the matrix C_out × (C_in kh kw)
    _, us = layers([(20,), (70,)], torch.float64, device)
    step = ops.spectral_norm_step([weights[0].to(device), kernel.to(device)], us, steps=60)
    # A step multiplies the distance from the first singular vector by (σ₂ / σ₁)² = ¼.
    for sigma, u, v, left, right in zip(step.sigmas, step.us, step.vs, lefts, rights, strict=True):
        assert sigma.item() == pytest.approx(3.0, rel=1e-14)
        u, v = u.cpu(), v.cpu()
        sign = (u @ left).sign()
        torch.testing.assert_close(u * sign, left, rtol=0, atol=1e-14)
        torch.testing.assert_close(v * sign, right, rtol=0, atol=1e-14)


def test_sigma_grows_towards_the_largest_singular_value(device):
    weights, us = layers(SHAPES, torch.float64, device)
    largest = torch.stack([torch.linalg.matrix_norm(w.flatten(1), 2) for w in weights])
    before = torch.zeros_like(largest)
    for _ in range(30):
        sigmas = ops.spectral_norm_step_(weights, us).sigmas
        assert (sigmas >= before * (1 - 1e-13)).all()
        assert (sigmas <= largest * (1 + 1e-13)).all()
        before = sigmas
    for w, u, v, sigma in zip(weights, *ops.spectral_norm_step_(weights, us)[1:], before, strict=True):
        assert u.norm().item() == pytest.approx(1, rel=1e-14)
        assert v.norm().item() == pytest.approx(1, rel=1e-14)
        assert (u @ w.flatten(1) @ v).item() >= sigma.item() * (1 - 1e-13)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_steps_are_steps(dtype, device):
    weights, us = layers(SHAPES, dtype, device)
    together = ops.spectral_norm_step(weights, us, steps=3)
    for _ in range(3):
        one = ops.spectral_norm_step_(weights, us)
    assert torch.equal(together.sigmas, one.sigmas)
    assert all(torch.equal(a, b) for a, b in zip(together.us + together.vs, one.us + one.vs, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_layer_has_the_same_bits_in_any_list(dtype, device):
    weights, us = layers(SHAPES, dtype, device)
    all_of_them = ops.spectral_norm_step(weights, us, steps=2)
    for i in range(len(SHAPES)):
        alone = ops.spectral_norm_step(weights[i : i + 1], us[i : i + 1], steps=2)
        assert torch.equal(alone.sigmas[0], all_of_them.sigmas[i])
        assert torch.equal(alone.us[0], all_of_them.us[i])
        assert torch.equal(alone.vs[0], all_of_them.vs[i])


def test_any_number_of_threads_gives_the_same_bits(threads):
    weights, us = layers([(300, 5000), (512, 64, 3, 3), (10, 20), (1, 100000)], torch.float32, "cpu")
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        results.append(ops.spectral_norm_step(weights, us, steps=2))
    for other in results[1:]:
        assert torch.equal(other.sigmas, results[0].sigmas)
        assert all(torch.equal(a, b) for a, b in zip(other.us + other.vs, results[0].us + results[0].vs, strict=True))


def test_more_layers_than_one_launch_takes(device):
    shapes = [(1 + i % 9, 1 + i % 13) for i in range(170)]
    weights, us = layers(shapes, torch.float64, device)
    check_step(weights, us, ops.spectral_norm_step(weights, us))


def test_in_place(device):
    weights, us = layers(SHAPES, torch.float32, device)
    originals, versions = [u.clone() for u in us], [u._version for u in us]
    functional = ops.spectral_norm_step(weights, us)
    assert all(torch.equal(u, o) for u, o in zip(us, originals, strict=True))
    assert [u._version for u in us] == versions
    step = ops.spectral_norm_step_(weights, us)
    assert all(a is b for a, b in zip(step.us, us, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(us, functional.us, strict=True))
    assert torch.equal(step.sigmas, functional.sigmas)
    assert all(u._version > v for u, v in zip(us, versions, strict=True))
    strided = torch.stack([originals[5], originals[5]], 1)[:, 0]
    ops.spectral_norm_step_([weights[5]], [strided])
    assert torch.equal(strided, us[5])


# ---- the derivative ----


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradient_is_u_v_transposed(dtype, device):
    weights, us = layers(SHAPES, dtype, device)
    for w in weights[1:]:
        w.requires_grad_()
    step = ops.spectral_norm_step(weights, us)
    factors = torch.arange(1, len(weights) + 1, device=device, dtype=step.sigmas.dtype)
    (step.sigmas * factors).sum().backward()
    assert weights[0].grad is None
    assert not any(t.requires_grad for t in (*step.us, *step.vs))
    for w, u, v, factor in list(zip(weights, step.us, step.vs, factors, strict=True))[1:]:
        torch.testing.assert_close(w.grad, torch.outer(factor * u, v).to(dtype).reshape(w.shape), rtol=0, atol=0)


def test_gradient_is_that_of_the_call_whatever_later_calls_do(device):
    weights, us = layers([(6, 9)], torch.float64, device)
    weights[0].requires_grad_()
    first = ops.spectral_norm_step_(weights, us)
    u, v = first.us[0].clone(), first.vs[0].clone()
    ops.spectral_norm_step_(weights, us, steps=5)
    first.sigmas.sum().backward()
    torch.testing.assert_close(weights[0].grad, torch.outer(u, v), rtol=0, atol=0)


def test_gradcheck_where_the_iteration_has_converged(device):
    # Only there u vᵀ is the whole derivative: σ is stationary in u and v at the singular vectors.
    weights, us = layers([(4, 6), (5, 2, 2, 1)], torch.float64, device)
    ops.spectral_norm_step_(weights, us, steps=2000)
    for w in weights:
        w.requires_grad_()
    assert torch.autograd.gradcheck(lambda *ws: ops.spectral_norm_step(list(ws), us, steps=300).sigmas, weights)
    ops.spectral_norm_step(weights, us).sigmas.square().sum().backward()
    for w in weights:
        exact = w.detach().flatten(1).clone().requires_grad_()
        torch.linalg.matrix_norm(exact, 2).square().backward()
        torch.testing.assert_close(w.grad.flatten(1), exact.grad, rtol=1e-10, atol=1e-10)


# ---- edges ----


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_layers_and_bad_layers_keep_to_themselves(dtype, device):
    weights, us = layers([(4, 5)] * 4, dtype, device)
    good = ops.spectral_norm_step(weights[3:], us[3:])
    weights[0].zero_()
    weights[1][2, 3] = math.nan
    weights[2][0, 0] = -math.inf
    step = ops.spectral_norm_step(weights, us, steps=2)
    assert step.sigmas[0] == 0
    assert torch.equal(step.us[0], us[0])
    assert torch.equal(step.vs[0], torch.zeros_like(step.vs[0]))
    for i in (1, 2):
        assert step.sigmas[i].isnan()
        assert step.us[i].isnan().all()
        assert step.vs[i].isnan().all()
    assert torch.equal(ops.spectral_norm_step(weights, us).sigmas[3:], good.sigmas)


def test_eps_counts_small_layers_as_zero(device):
    weights, us = layers([(4, 5)], torch.float64, device)
    length = (weights[0].T @ us[0]).norm().item()
    assert ops.spectral_norm_step(weights, us, eps=length * 1.001).sigmas[0] == 0
    assert ops.spectral_norm_step(weights, us, eps=length * 0.999).sigmas[0] > 0


@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.float32, 1e30), (torch.float32, 1e-35), (torch.float64, 1e200), (torch.float64, 1e-200)]
)
def test_huge_and_tiny_weights(dtype, scale, device):
    weights, us = layers([(20, 30)], torch.float64, device)
    wanted = ops.spectral_norm_step(weights, us)
    scaled = [(weights[0] * scale).to(dtype)]
    step = ops.spectral_norm_step(scaled, [us[0].to(dtype)], eps=0.0)
    tolerance = 2000 * UNIT[dtype]  # 1e-35 leaves float32 22 of its 24 bits
    torch.testing.assert_close(step.sigmas.double() / scale, wanted.sigmas, rtol=tolerance, atol=0)
    torch.testing.assert_close(step.us[0].double(), wanted.us[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(step.vs[0].double(), wanted.vs[0], rtol=0, atol=tolerance)


def test_bad_arguments():
    weights, us = layers([(4, 5), (3, 2)], torch.float32, "cpu")
    with pytest.raises(ValueError, match="same length"):
        ops.spectral_norm_step(weights, us[:1])
    with pytest.raises(ValueError, match="same length"):
        ops.spectral_norm_step([], [])
    with pytest.raises(ValueError, match="two lists"):
        ops.spectral_norm_step(weights[0], us[0])
    with pytest.raises(ValueError, match=r"weights\[1\]: expected a non-empty matrix"):
        ops.spectral_norm_step([weights[0], us[1]], us)
    with pytest.raises(TypeError, match=r"weights\[0\]: expected float32"):
        ops.spectral_norm_step([weights[0].int(), weights[1]], us)
    with pytest.raises(ValueError, match=r"weights\[1\]: expected torch.float32"):
        ops.spectral_norm_step([weights[0], weights[1].double()], us)
    with pytest.raises(ValueError, match=r"us\[0\]: expected torch.float32 \(4,\)"):
        ops.spectral_norm_step(weights, us[::-1])
    with pytest.raises(ValueError, match=r"us\[1\].*require grad"):
        ops.spectral_norm_step(weights, [us[0], us[1].clone().requires_grad_()])
    with pytest.raises(ValueError, match="steps"):
        ops.spectral_norm_step(weights, us, steps=0)
    with pytest.raises(ValueError, match="eps"):
        ops.spectral_norm_step(weights, us, eps=math.nan)
    with pytest.raises(ValueError, match="tensor of its own"):
        ops.spectral_norm_step_([weights[0]] * 2, [us[0]] * 2)


# ---- torch ----


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_opcheck(dtype, device):
    weights, us = layers([(4, 5), (3, 2, 3, 3)], dtype, device)
    torch.library.opcheck(torch.ops.pyrobust.spectral_norm_step.default, (weights, us, 2, 1e-12))
    for w in weights:
        w.requires_grad_()
    torch.library.opcheck(torch.ops.pyrobust.spectral_norm_step.default, (weights, us, 2, 1e-12))


def test_compile_without_a_graph_break(device):
    weights, us = layers([(4, 5), (3, 2, 3, 3)], torch.float64, device)
    for w in weights:
        w.requires_grad_()

    def penalty(ws, vectors):
        return (ops.spectral_norm_step_(ws, vectors).sigmas.square() / 2).sum()

    copies = [u.clone() for u in us]
    eager = torch.autograd.grad(penalty(weights, copies), weights)
    compiled = torch.autograd.grad(torch.compile(penalty, backend="aot_eager", fullgraph=True)(weights, us), weights)
    assert all(torch.equal(a, b) for a, b in zip(us, copies, strict=True))
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-15, atol=0)


@pytest.mark.cuda
def test_cuda_graph(cuda):
    weights, us = layers(SHAPES, torch.float32, cuda)
    starts = [u.clone() for u in us]
    wanted = ops.spectral_norm_step(weights, us)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step = ops.spectral_norm_step_(weights, us)
    torch._foreach_copy_(us, starts)
    graph.replay()
    assert torch.equal(step.sigmas, wanted.sigmas)
    assert all(torch.equal(a, b) for a, b in zip(us, wanted.us, strict=True))
