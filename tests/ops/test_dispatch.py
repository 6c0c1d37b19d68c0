"""The ops as citizens of torch: derivatives, opcheck, fake tensors, torch.compile, export, autocast, vmap, and the reference path."""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ops.table import ALL_OPS, DTYPES, SAMPLERS, WIDE, Op, rows_of, values_for
from pyrobust import ops
from pyrobust.ops import _native

INF = math.inf
EVERY = ALL_OPS + SAMPLERS
DIFFERENTIABLE = [o for o in ALL_OPS if o.grad]


# ---- derivatives ----


def point(op: Op, d: int = 12, n: int = 4) -> tuple[Tensor, Tensor | None]:
    """Rows in float64 away from kinks, and values that leave some rows inside and some outside."""
    x = rows_of("normal", n, d, torch.float64, seed=5)
    if op.scale is None:
        return x, None
    return x, op.scale(x) * torch.tensor([0.2, 0.6, 0.9, 1.7], dtype=torch.float64)[:n]


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=str)
def test_first_derivatives(op):
    x, value = point(op)
    assert torch.autograd.gradcheck(lambda x: op.run(x, value), x.requires_grad_(), eps=1e-7, atol=1e-6)


SMOOTH = (
    "project_l2_ball",
    "project_lp_sphere-2",
    "prox_l2",
    "dual_normalize-1.5",
    "dual_normalize-2",
    "dual_normalize-3",
    "lp_norm-2-value",
)


@pytest.mark.parametrize("op", [o for o in DIFFERENTIABLE if o.name in SMOOTH], ids=str)
def test_second_derivatives(op):
    x, value = point(op, d=6)
    assert torch.autograd.gradgradcheck(lambda x: op.run(x, value), x.requires_grad_(), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.project_l0_ball(x, 2),
        lambda x: ops.project_l0_ball(x, 4),
        lambda x: ops.project_l0_ball(x, 20),
        lambda x: ops.project_l0_ball(x, 20, "value"),
        lambda x: ops.prox_l0_group(x, 0.4),
        lambda x: ops.prox_l0_group(x, 0.4, "max"),
    ],
)
def test_a_zero_channel_of_a_kept_pixel_passes_its_gradient(function):
    x = torch.tensor([[[2.0, 0.1, 0.0, 3.0], [0.0, 0.0, 0.0, 1.5], [1.5, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(function, x.requires_grad_(), eps=1e-7, atol=1e-6)


@pytest.mark.parametrize("p", [1, 1.5, 2, INF])
def test_the_gradient_of_a_norm_is_its_dual_direction(p):
    z = rows_of("normal", 3, 20, torch.float64).requires_grad_()
    step = ops.power_iteration_step(z, p, torch.zeros_like(z))
    assert step.direction.requires_grad is False
    assert step.change.requires_grad is False
    (gradient,) = torch.autograd.grad((step.value * torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)).sum(), z)
    want = ops.dual_normalize(z.detach(), p) * torch.tensor([[1.0], [2.0], [-3.0]], dtype=torch.float64)
    assert torch.equal(gradient, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=str)
def test_gradients_of_every_dtype(op, dtype):
    """Against float64 on the same numbers: a few roundings of the result, grad and storage, at the size of the whole gradient."""
    if op.name in ("lp_norm-inf-value", "dual_normalize-1.05", "dual_normalize-1000.0"):
        return  # ties at the maximum of rounded numbers; powers of 20 and of 1/1000 amplify the rounding of v
    if op.name == "project_l1_box" and dtype != torch.float32:
        return  # the face is read off the stored result, which may be rounded onto the box
    x = rows_of("normal", 4, 129, dtype, seed=2)
    value = None if op.scale is None else (op.scale(x.double()) * torch.tensor([0.2, 0.6, 0.9, 1.7])).to(WIDE[dtype])
    gradients = []
    for t in (x, x.double()):
        t.requires_grad_()
        (y,) = op.run(t, None if value is None else value.double())
        weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.dtype)
        gradients.append(torch.autograd.grad(y, t, weight)[0].double())
    got, want = gradients
    error = (got - want).abs().amax(1) / want.abs().amax(1).clamp(min=1e-30)
    assert error.max() < 16 * torch.finfo(dtype).eps, error


def test_counts_beyond_the_range_of_float16():
    """70000 active elements: their number is beyond 65504."""
    x = torch.ones(1, 70000, dtype=torch.float16, requires_grad=True)
    weight = torch.zeros(1, 70000, dtype=torch.float16)
    weight[0, 0] = 1
    (gradient,) = torch.autograd.grad(ops.project_l1_ball(x, 35000.0), x, weight)
    assert gradient[0, 0] == 1
    assert gradient[0, 1] == torch.tensor(-1 / 70000, dtype=torch.float16)


# ---- registration ----


class Recorder(TorchDispatchMode):
    """The calls of registered ops, with copies of their arguments as they were."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "pyrobust":
            self.calls.append((function, tuple(a.clone() if isinstance(a, Tensor) else a for a in args)))
        return function(*args, **(kwargs or {}))


def recorded(op: Op, x: Tensor, value, in_place: bool = False) -> tuple:
    with Recorder() as recorder:
        if in_place:
            op.in_place(x.clone(), value)
        else:
            op.run(x, value)
    assert len(recorder.calls) == 1, "one op, and through the dispatcher where something watches"
    return recorder.calls[0]


def one_each(operations) -> list[Op]:
    """The first variant of each registered op."""
    return list({op.torch_op: op for op in reversed(operations)}.values())[::-1]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("op", one_each(EVERY), ids=str)
def test_opcheck(op, in_place):
    if in_place and op.in_place is None:
        return
    x, value = point(op)
    x = x.float()
    function, args = recorded(op, x, value, in_place)
    torch.library.opcheck(function, args)
    if op.grad and not in_place:
        torch.library.opcheck(function, (args[0].requires_grad_(), *args[1:]))


def test_every_registered_op_is_in_the_table():
    names = {
        n.partition("::")[2].rstrip("_") for n in torch._C._dispatch_get_all_op_names() if n.startswith("pyrobust::")
    }
    others = {n for n in names if "spectral" in n or "tv" in n}  # their own test files
    assert names - others == {op.torch_op.rstrip("_") for op in EVERY}


@pytest.mark.parametrize("op", EVERY, ids=str)
def test_the_dispatcher_and_the_direct_call_agree(op):
    for dtype in DTYPES:
        x = rows_of("normal", 4, 129, dtype)
        value = values_for(op, x)
        direct = op.run(x, value)
        with Recorder():
            dispatched = op.run(x, value)
        for a, b in zip(direct, dispatched, strict=True):
            assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


@pytest.mark.parametrize("op", ALL_OPS, ids=str)
def test_the_path_of_devices_without_kernels(op):
    """The plain-PyTorch implementation, called as the dispatcher would for such a device."""
    x, value = point(op, d=129)
    function, args = recorded(op, x, value)
    native = tuple(a.clone() if isinstance(a, Tensor) else a for a in args)
    results = function(*native), function._op_dk(torch.DispatchKey.CompositeExplicitAutograd, *args)
    for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in results), strict=True):
        if a is not None:
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-12, equal_nan=True)
    for a, b in zip(native, args, strict=True):
        if isinstance(a, Tensor):
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-12), "what an op writes in place"


@pytest.mark.parametrize("op", EVERY, ids=str)
def test_fake_tensors_have_the_shapes_and_dtypes_of_real_ones(op):
    for dtype in DTYPES:
        x = rows_of("normal", 4, 129, dtype)
        value = None if op.scale is None else 0.5
        real = op.run(x, value)
        with FakeTensorMode(allow_non_fake_inputs=True):
            fake = op.run(torch.empty(4, 129, dtype=dtype), value)
        for r, f in zip(real, fake, strict=True):
            assert (r.shape, r.dtype, r.stride()) == (f.shape, f.dtype, f.stride())


# ---- transformations ----


def many(x: Tensor, radius: Tensor) -> tuple[Tensor, ...]:
    y = ops.project_l1_ball(x * 2, radius)
    z = ops.prox_linf(y + x, 0.3) + ops.project_l2_ball(x, 1.0)
    v = ops.dual_normalize(z, 1.5)
    images = v.unflatten(1, (3, -1))
    kept = ops.project_l0_ball(images, 20).flatten(1) + ops.prox_l0_group(images, 1e-4).flatten(1)
    sphere = ops.project_lp_sphere(x, 1, 2.0) + ops.project_simplex(x) + ops.project_linf_ball(x, 0.2)
    box = (
        ops.project_l1_box(x, torch.full_like(x, 0.5), 3.0)
        + ops.prox_l2(x, 0.1)
        + ops.prox_l1(x, 0.1)
        + ops.prox_l0(x, 0.01)
    )
    step = ops.power_iteration_step(x, 2, x.abs())
    noise = ops.sample_lp_ball(x, 2, radius)
    return (
        y,
        z,
        v,
        kept,
        sphere,
        box,
        step.direction,
        step.value,
        step.change,
        noise,
        ops.lp_norm(x, 2),
        ops.lp_norm(images, 0, "pixel"),
    )


def few(x: Tensor, radius: Tensor) -> tuple[Tensor, ...]:
    y = ops.project_l1_ball(x * 2, radius)
    return y, ops.dual_normalize(y - x, 2)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_without_a_graph_break(backend):
    """Equal bits from our ops; inductor may contract the arithmetic between them, so there the last digits."""
    x, radius = rows_of("normal", 4, 129, torch.float32), torch.tensor([0.5, 1.0, 5.0, 1000.0])
    torch._dynamo.reset()
    function = many if backend == "aot_eager" else few  # inductor starts a C++ compiler
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    for got, want in zip(compiled(x, radius), function(x, radius), strict=True):
        if backend == "aot_eager":
            assert torch.equal(got, want)
        assert torch.allclose(got, want, rtol=1e-5, atol=1e-6)
    loss = lambda f, t: sum(out.sum() for out in f(t, radius)[:6])  # noqa: E731
    gradients = [
        torch.autograd.grad(loss(f, t), t)[0]
        for f, t in ((f, x.clone().requires_grad_()) for f in (compiled, function))
    ]
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5)


def test_compiled_in_place_steps():
    def attack(adv: Tensor, x: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
        state = ops.PrimalDualState.start(x, 1.0)
        best = torch.zeros(4, dtype=torch.int64)
        seed, margin = ops.attack_seed(logits, best + 1, best, state)
        gradient = seed.sum(1, keepdim=True) + x.sin()
        ops.pdpgd_step_(state, x, gradient, margin, "l2", ops.StepOptions(0.1, 0.1))
        ops.pgd_step_(adv, gradient, x, 2, 0.5, 0.1)
        ops.prox_l1_(adv, 0.01)
        return adv, best, *state.tensors()

    x, logits = torch.rand(4, 129), torch.randn(4, 10)
    torch._dynamo.reset()
    compiled = torch.compile(attack, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(x.clone(), x, logits), attack(x.clone(), x, logits), strict=True):
        assert torch.equal(got, want)


def test_exported():
    class Module(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return ops.project_l1_ball(x, 1.0) + ops.dual_normalize(x, INF)

    x = rows_of("normal", 4, 129, torch.float32)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Module(), (x,), dynamic_shapes={"x": {0: batch}})
    longer = torch.cat([x, x + 1])
    assert torch.equal(program.module()(longer), Module()(longer))


@pytest.mark.parametrize("op", EVERY, ids=str)
def test_autocast_changes_nothing(op):
    x, value = point(op, d=129)
    x = x.float()
    want = op.run(x, value)
    for requires_grad in (False, op.grad):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = op.run(x.clone().requires_grad_(requires_grad), value)
        assert all(
            a.dtype == b.dtype and torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
            for a, b in zip(got, want, strict=True)
        )


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_works_row_by_row():
    x = rows_of("normal", 12, 30, torch.float32).reshape(3, 4, 30)
    for call in (
        lambda t: ops.project_l1_ball(t, 1.0),
        lambda t: ops.dual_normalize(t, 2),
        lambda t: ops.lp_norm(t, 2),
    ):
        assert torch.equal(torch.vmap(call)(x), torch.stack([call(t) for t in x]))


def test_inference_mode():
    x = rows_of("normal", 4, 30, torch.float32)
    with torch.inference_mode():
        inside = x.clone()
        assert torch.equal(ops.project_l1_ball(inside, 1.0), ops.project_l1_ball(x, 1.0))
        with contextlib.nullcontext():
            assert ops.project_l1_ball_(inside, 1.0) is inside


def test_a_gpu_that_the_kernels_do_not_run_on_is_left_to_torch_with_one_warning(monkeypatch):
    problems = ["", "no kernel image is available for execution on the device"]
    monkeypatch.setattr(_native, "HAS_CUDA_KERNELS", True)
    monkeypatch.setattr(_native, "native", SimpleNamespace(cuda_problem=problems.__getitem__))
    monkeypatch.setattr(_native, "_runs_on", functools.cache(_native._runs_on.__wrapped__))
    runs, does_not = (SimpleNamespace(is_cpu=False, is_cuda=True, device=torch.device("cuda", i)) for i in (0, 1))
    assert _native.has_kernel(runs)
    with pytest.warns(RuntimeWarning, match="do not run on cuda:1: no kernel image"):
        assert not _native.has_kernel(does_not)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not _native.has_kernel(does_not)


def test_the_native_module_tells_why_a_device_cannot_be_used():
    assert _native.native.cuda_problem(1_000_000), "no machine has so many"
    for index in range(torch.cuda.device_count() if _native.HAS_CUDA_KERNELS else 0):
        assert _native.native.cuda_problem(index) == ""
