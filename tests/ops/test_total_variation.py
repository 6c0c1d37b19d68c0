"""prox_tv: by its definition (closed forms, duality gap), against its float64 reference, its derivative, its edges."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import UNIT
from torch import Tensor

from pyrobust import ops
from pyrobust.ops.total_variation import _adjoint, _differences, _length, _reference

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# Lines, single pixels, planes that fit a block's shared memory and planes that do not (4915 elements in float32).
SIZES = [(1, 1), (1, 2), (1, 9), (9, 1), (2, 2), (7, 13), (28, 28), (33, 17), (70, 71)]
both = pytest.mark.parametrize("isotropic", [True, False], ids=["isotropic", "anisotropic"])


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def images(n: int, c: int, h: int, w: int, dtype: torch.dtype, device) -> Tensor:
    """Smooth shapes with edges and noise in [0, 1]."""
    generator = torch.Generator().manual_seed(h * 1000 + w)
    y, x = torch.meshgrid(torch.arange(h) / max(h - 1, 1), torch.arange(w) / max(w - 1, 1), indexing="ij")
    phase = torch.rand(n, c, 1, 1, generator=generator, dtype=torch.float64)
    waves = 0.4 + 0.2 * torch.sin(5 * (x + phase)) * torch.cos(4 * y) + 0.2 * ((x - phase) ** 2 + y**2 < 0.3)
    noise = 0.1 * torch.rand(n, c, h, w, generator=generator, dtype=torch.float64)
    return (waves + noise).to(dtype).to(device)


def objective(u: Tensor, x: Tensor, weight: float, isotropic: bool) -> Tensor:
    """λ TV(u) + ½ ‖u − x‖² of each plane, written out on its own."""
    down = torch.nn.functional.pad(u[..., 1:, :] - u[..., :-1, :], (0, 0, 0, 1))
    right = torch.nn.functional.pad(u[..., 1:] - u[..., :-1], (0, 1))
    variation = (down**2 + right**2).sqrt() if isotropic else down.abs() + right.abs()
    return weight * variation.sum((2, 3)) + (u - x).square().sum((2, 3)) / 2


def exact(x: Tensor, weight: float, isotropic: bool) -> Tensor:
    """The prox in float64, to a duality gap of 1e-8 of the objective; the next test but one answers for it."""
    return ops.prox_tv(x.double(), weight, steps=40000, isotropic=isotropic, tolerance=1e-8)


def _dual(x: Tensor, lam: Tensor, steps: int, isotropic: int) -> Tensor:
    """A dual point by the plain, unaccelerated projected gradient with steps of ¼ (< 2 / ‖D‖²): slow, and simple."""
    g = torch.zeros(2, *x.shape, dtype=x.dtype, device=x.device)
    for _ in range(steps):
        g = g + _differences(x - _adjoint(g)) / 4.01
        g = g * (lam / _length(g, isotropic).clamp(min=lam))
    return g


def test_reference_parts_fit_together():
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    g = torch.randn(2, 3, 5, 7, generator=generator, dtype=torch.float64)
    g[0, :, -1] = g[1, :, :, -1] = 0  # what D never reaches
    torch.testing.assert_close((_differences(u) * g).sum(), (u * _adjoint(g)).sum())
    for isotropic in (True, False):
        lengths = _length(_differences(u), int(isotropic)).sum((0, 2, 3))
        torch.testing.assert_close(lengths, objective(u[:, None], u[:, None], 1.0, isotropic)[:, 0])


@both
def test_duality_gap_certifies_the_converged_result(isotropic, device):
    # With g dual feasible, F(u) − F(u*) <= F(u) − ½ ‖x‖² + ½ ‖x − Dᵀg‖²; g is the reference's, u the kernel's.
    x, weight = images(1, 2, 10, 12, torch.float64, device), 0.1
    u = exact(x, weight, isotropic)
    lam = torch.full((2, 1, 1), weight, dtype=torch.float64, device=device)
    g = _dual(x[0], lam, 6000, int(isotropic))
    assert (_length(g, int(isotropic)) <= lam * (1 + 1e-15)).all()
    dual = (x[0].square() - (x[0] - _adjoint(g)).square()).sum((1, 2)) / 2
    value = objective(u, x, weight, isotropic)[0]
    assert (value - dual <= 1.1e-8 * value).all()
    assert (value - dual >= -1e-14 * value).all()


# ---- by definition ----


@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_plateaus_move_towards_each_other(dtype, isotropic, device):
    # Columns of value a on the left (m of them) and b on the right (n): a row is a 1-D problem, which moves a by λ / m
    # and b by −λ / n, until they meet.
    m, n, a, b = 3, 5, 0.25, 0.75
    for weight in (0.25, 0.5, 100.0):
        x = torch.tensor([a] * m + [b] * n, dtype=dtype, device=device).expand(2, 1, 6, m + n).contiguous()
        left, right = a + weight / m, b - weight / n
        if left > right:
            left = right = (m * a + n * b) / (m + n)
        wanted = torch.tensor([left] * m + [right] * n, dtype=torch.float64, device=device).expand(x.shape)
        u = ops.prox_tv(x, weight, steps=20000, tolerance=1e-13, isotropic=isotropic).double()
        # ‖u − u*‖² <= gap, which float32 brings to about 1e-7 of the objective (< 2)
        tolerance = 1e-6 if dtype == torch.float64 else 5e-4
        torch.testing.assert_close(u, wanted, rtol=UNIT[dtype], atol=tolerance)


@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weight", [0.02, 0.1])
def test_objective_within_the_tolerance_of_the_least(weight, dtype, isotropic, device):
    for h, w in SIZES:
        x = images(2, 2, h, w, dtype, device)
        u = ops.prox_tv(x, weight, isotropic=isotropic)
        best = exact(x, weight, isotropic)
        least = objective(best, x.double(), weight, isotropic)
        # Rounding a pixel by δ changes the objective by at most (4 λ + |u − x|) δ, and |u − x| <= 4 λ as |g| <= λ.
        rounding = 8 * weight * h * w * (UNIT[dtype] + 8 * UNIT[wide(dtype)])
        assert (objective(u.double(), x.double(), weight, isotropic) <= least * (1 + 2e-4) + rounding).all(), (h, w)
        distance = (u.double() - best).square().sum((2, 3)).sqrt()
        pixels = math.sqrt(h * w) * (UNIT[dtype] + 8 * UNIT[wide(dtype)])
        assert (distance <= (2e-4 * least).sqrt() + pixels).all(), (h, w)


@both
def test_properties_of_a_prox(isotropic, device):
    x, y = images(2, 1, 12, 15, torch.float64, device), images(2, 1, 15, 12, torch.float64, device).mT.contiguous()
    prox = lambda z, weight=0.1: ops.prox_tv(z, weight, steps=5000, isotropic=isotropic, tolerance=1e-13)  # noqa: E731
    u, v = prox(x), prox(y)
    near = {"rtol": 0, "atol": 1e-5}
    difference = (u - v).flatten(1)
    assert ((difference * (x - y).flatten(1)).sum(1) >= difference.square().sum(1) - 1e-6).all()  # firmly nonexpansive
    torch.testing.assert_close(u.mean((2, 3)), x.mean((2, 3)))
    torch.testing.assert_close(prox(x + 3), u + 3, **near)
    torch.testing.assert_close(prox(-x), -u, **near)
    torch.testing.assert_close(prox(x.mT.contiguous()), u.mT, **near)
    torch.testing.assert_close(prox(5 * x, 0.5), 5 * u, **near)
    assert objective(u, x, 0.1, isotropic).le(objective(x, x, 0.1, isotropic)).all()


@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_of_zero_and_infinity_and_flat_planes(dtype, isotropic, device):
    x = images(3, 2, 9, 11, dtype, device)
    assert torch.equal(ops.prox_tv(x, 0.0, isotropic=isotropic), x)
    flat = torch.full_like(x, 0.3)
    assert torch.equal(ops.prox_tv(flat, 0.7, isotropic=isotropic), flat)
    assert torch.equal(ops.prox_tv(torch.zeros_like(x), 0.7, isotropic=isotropic), torch.zeros_like(x))
    mean = x.double().mean((2, 3), keepdim=True).expand(x.shape)
    u = ops.prox_tv(x, math.inf, steps=3000, isotropic=isotropic).double()
    torch.testing.assert_close(u, mean, rtol=UNIT[dtype], atol=1e-5)


# ---- against the reference ----


@both
@pytest.mark.parametrize("steps", [1, 8, 40])
def test_iterates_are_those_of_the_reference(steps, isotropic, device):
    for h, w in SIZES:
        x = images(3, 2, h, w, torch.float64, device)
        weights = torch.tensor([0.0, 0.02, 0.3], dtype=torch.float64, device=device)
        u = ops.prox_tv(x, weights, steps=steps, isotropic=isotropic, tolerance=0.0)
        wanted = _reference(x.reshape(3, -1), 0.0, weights, h, w, steps, 0.0, int(isotropic)).reshape(x.shape)
        # A step adds a few roundings of numbers below 4, which the momentum multiplies by at most the number of steps.
        torch.testing.assert_close(u, wanted, rtol=0, atol=16 * UNIT[torch.float64] * steps**2)


@both
def test_early_stop_is_that_of_the_reference(isotropic, device):
    x = images(4, 1, 20, 21, torch.float64, device)
    weights = torch.tensor([0.001, 0.01, 0.1, 1.0], dtype=torch.float64, device=device)
    for tolerance in (1e-2, 1e-4):
        u = ops.prox_tv(x, weights, isotropic=isotropic, tolerance=tolerance)
        wanted = _reference(x.reshape(4, -1), 0.0, weights, 20, 21, 1000, tolerance, int(isotropic)).reshape(x.shape)
        torch.testing.assert_close(u, wanted, rtol=0, atol=1e-9)


@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_planes_do_not_depend_on_their_batch(dtype, isotropic, device, threads):
    x = images(4, 3, 19, 23, dtype, device)
    weights = torch.tensor([0.05, 0.1, 0.02, 0.3], dtype=wide(dtype), device=device)
    u = ops.prox_tv(x, weights, isotropic=isotropic)
    for n in range(4):
        for c in range(3):
            alone = ops.prox_tv(x[n : n + 1, c : c + 1], weights[n : n + 1], isotropic=isotropic)
            assert torch.equal(alone[0, 0], u[n, c])
    threads(1)
    assert torch.equal(ops.prox_tv(x, weights, isotropic=isotropic), u)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_place_and_strided(dtype, device):
    x = images(2, 3, 10, 12, dtype, device)
    u = ops.prox_tv(x, 0.1)
    assert torch.equal(ops.prox_tv(x.to(memory_format=torch.channels_last), 0.1), u)
    assert torch.equal(ops.prox_tv(x.mT, 0.1), ops.prox_tv(x.mT.contiguous(), 0.1))
    strided, plain = x.to(memory_format=torch.channels_last).clone(), x.clone()
    for target in (strided, plain):
        assert ops.prox_tv_(target, 0.1) is target
        assert torch.equal(target, u)
    with pytest.raises(ValueError, match="require grad"):
        ops.prox_tv_(plain.requires_grad_(), 0.1)


# ---- edges ----


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bad_planes_and_weights_keep_to_themselves(dtype, device):
    x = images(3, 2, 6, 7, dtype, device)
    good = ops.prox_tv(x, 0.1)
    x[0, 1, 2, 3] = math.nan
    x[1, 0, 0, 0] = -math.inf
    u = ops.prox_tv(x, 0.1)
    assert u[0, 1].isnan().all()
    assert u[1, 0].isnan().all()
    for n, c in ((0, 0), (1, 1), (2, 0), (2, 1)):
        assert torch.equal(u[n, c], good[n, c])
    weights = torch.tensor([0.1, -0.1, math.nan], dtype=wide(dtype), device=device)
    u = ops.prox_tv(x, weights)
    assert torch.equal(u[0, 0], good[0, 0])
    assert u[1:].isnan().all()


@pytest.mark.parametrize(
    ("dtype", "power"), [(torch.float32, 100), (torch.float32, -100), (torch.float64, 900), (torch.float64, -900)]
)
def test_powers_of_two_scale_exactly(dtype, power, device):
    x = images(2, 1, 12, 9, dtype, device)
    scaled = ops.prox_tv(torch.ldexp(x, torch.tensor(power)), math.ldexp(0.125, power))
    assert torch.equal(scaled, torch.ldexp(ops.prox_tv(x, 0.125), torch.tensor(power)))


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_empty(shape, device):
    x = torch.empty(shape, device=device)
    assert ops.prox_tv(x, 0.1).shape == x.shape
    assert ops.prox_tv_(x, 0.1) is x


def test_bad_arguments():
    x = torch.zeros(2, 3, 4, 5)
    with pytest.raises(ValueError, match=r"x: expected images \(N, C, H, W\)"):
        ops.prox_tv(x[0], 0.1)
    with pytest.raises(TypeError, match="float32"):
        ops.prox_tv(x.int(), 0.1)
    with pytest.raises(ValueError, match="weight"):
        ops.prox_tv(x, -0.1)
    with pytest.raises(ValueError, match="weight"):
        ops.prox_tv(x, torch.ones(3))
    with pytest.raises(ValueError, match="steps"):
        ops.prox_tv(x, 0.1, steps=0)
    with pytest.raises(ValueError, match="tolerance"):
        ops.prox_tv(x, 0.1, tolerance=math.nan)


# ---- the derivative ----


@both
def test_gradcheck(isotropic, device):
    # On so small a plane the iterates converge linearly: 400 steps take them to the last bits.
    x = images(2, 1, 3, 4, torch.float64, device).requires_grad_()
    weights = torch.tensor([0.03, 0.2], dtype=torch.float64, device=device)
    prox = lambda z: ops.prox_tv(z, weights, steps=400, isotropic=isotropic, tolerance=0.0)  # noqa: E731
    assert torch.autograd.gradcheck(prox, x, eps=1e-6, atol=1e-6)


def test_anisotropic_gradient_is_the_mean_over_flat_patches(device):
    # u* is constant on patches, and moves with the mean of x over each.
    x = torch.tensor([[0.0, 0.1, 0.0, 1.0], [0.1, 0.0, 0.1, 0.9]], dtype=torch.float64, device=device).view(1, 1, 2, 4)
    x.requires_grad_()
    u = ops.prox_tv(x, 0.1, isotropic=False, steps=3000, tolerance=0.0)
    left, right = u.detach()[..., :3], u.detach()[..., 3:]
    assert (left.max() - left.min()).item() < 1e-9
    assert (right.max() - right.min()).item() < 1e-9
    assert (right.mean() - left.mean()).item() > 0.1
    grad = torch.arange(8, dtype=torch.float64, device=device).view(1, 1, 2, 4)
    u.backward(grad)
    wanted = torch.cat([grad[..., :3].mean().expand(1, 1, 2, 3), grad[..., 3:].mean().expand(1, 1, 2, 1)], 3)
    torch.testing.assert_close(x.grad, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradient_of_every_dtype(dtype, device):
    x = images(2, 1, 8, 9, torch.float64, device)
    grads = []
    for z in (x, x.to(dtype)):
        z = z.clone().requires_grad_()
        (ops.prox_tv(z, 0.1, steps=1000, isotropic=False, tolerance=0.0) ** 2).sum().backward()
        assert z.grad.dtype == z.dtype
        grads.append(z.grad.double())
    # The same patches; on them the gradient, 2 u* <= 2, has the rounding of x and its own, and two roundings a step.
    torch.testing.assert_close(grads[1], grads[0], rtol=0, atol=4 * UNIT[dtype] + 2 * 1000 * UNIT[wide(dtype)])


def test_gradient_of_edges(device):
    x = images(3, 1, 4, 5, torch.float64, device)
    x[2, 0, 0, 0] = math.nan
    x.requires_grad_()
    ops.prox_tv(x, torch.tensor([0.0, math.inf, 0.1], dtype=torch.float64, device=device)).sum().backward()
    torch.testing.assert_close(x.grad[:2], torch.ones_like(x[:2]))
    assert x.grad[2].isnan().all()


# ---- torch ----


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_opcheck(dtype, device):
    x = images(2, 1, 4, 5, dtype, device)
    weights = torch.full((2,), 0.1, dtype=wide(dtype), device=device)
    for args in ((0.1, None, 4, 5, 20, 0.0, 1), (0.0, weights, 4, 5, 20, 1e-4, 0)):
        torch.library.opcheck(torch.ops.pyrobust.prox_tv.default, (x, *args))
        torch.library.opcheck(torch.ops.pyrobust.prox_tv.default, (x.clone().requires_grad_(), *args))
        torch.library.opcheck(torch.ops.pyrobust.prox_tv_.default, (x.clone(), *args))
        torch.library.opcheck(torch.ops.pyrobust.prox_tv_tangent.default, (x.clone(), x, *args))


def test_compile_without_a_graph_break(device):
    x = images(2, 1, 6, 5, torch.float64, device).requires_grad_()
    smooth = lambda z: (ops.prox_tv(2 * z, 0.1) ** 2).sum()  # noqa: E731
    eager = torch.autograd.grad(smooth(x), x)
    compiled = torch.autograd.grad(torch.compile(smooth, backend="aot_eager", fullgraph=True)(x), x)
    torch.testing.assert_close(eager, compiled, rtol=1e-12, atol=0)


@pytest.mark.cuda
@pytest.mark.parametrize("size", [(28, 28), (70, 71), (224, 224)])
def test_cuda_graph_and_large_planes(size, cuda):
    x = images(2, 2, *size, torch.float32, cuda)
    weights = torch.tensor([0.02, 0.1], device=cuda)
    wanted = ops.prox_tv(x, weights)
    torch.testing.assert_close(wanted.cpu(), ops.prox_tv(x.cpu(), weights.cpu()), rtol=0, atol=2e-2)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        u = ops.prox_tv(x, weights)
    u.zero_()
    graph.replay()
    assert torch.equal(u, wanted)
