"""A row's result is a function of that row: NaN policy, batch and thread invariance, views, empty batches, in-place twins, bad arguments."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ops.table import ALL_OPS, DTYPES, PROJECTIONS, PROXES, ROW_OPS, SAMPLERS, WIDE, Op, rows_of, values_for
from pyrobust import ops
from pyrobust.ops import PrimalDualState, SigmaZeroState, StepOptions

INF, NAN = math.inf, math.nan
EVERY = ALL_OPS + SAMPLERS
SIZES = (1, 129, 784, 3072, 20000)


def part(value, rows):
    return value[rows] if isinstance(value, Tensor) else value


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(
        bool(((u == v) | (u.isnan() & v.isnan())).all()) and u.dtype == v.dtype for u, v in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("op", EVERY, ids=str)
def test_a_row_is_the_same_in_any_batch(op, device):
    for dtype, sizes in (
        (torch.float32, SIZES),
        (torch.float64, (129, 784)),
        (torch.float16, (129, 784)),
        (torch.bfloat16, (3072,)),
    ):
        for d in sizes:
            x = rows_of("normal", 9, d, dtype, device)
            value = values_for(op, x)
            whole = op.run(x, value)
            assert same(whole, op.run(x, value)), "deterministic"
            order = torch.tensor([3, 8, 0, 5], device=device)
            assert same(tuple(t[order] for t in whole), op.run(x[order], part(value, order))), "another batch"
            for row in (0, 7):
                alone = op.run(x[row : row + 1].clone(), part(value, slice(row, row + 1)))
                assert same(tuple(t[row : row + 1] for t in whole), alone), "alone"


@pytest.mark.parametrize("op", EVERY, ids=str)
def test_a_row_is_the_same_at_any_address(op, device):
    for dtype in (torch.float32, torch.float16):
        x = rows_of("normal", 2, 1500, dtype, device)
        value = values_for(op, x)
        want = op.run(x, value)
        room = torch.empty(2 * 1500 + 16, dtype=dtype, device=device)
        for offset in (1, 3, 5):
            shifted = room[offset : offset + 3000].view(2, 1500).copy_(x)
            assert same(want, op.run(shifted, value))


@pytest.mark.parametrize("op", EVERY, ids=str)
def test_a_row_is_the_same_with_any_number_of_threads(op, threads):
    x = rows_of("normal", 21, 5000, torch.float32)
    value = values_for(op, x)
    results = []
    for n in (1, 2, 3):
        threads(n)
        results.append(op.run(x, value))
    assert same(results[0], results[1])
    assert same(results[0], results[2])


@pytest.mark.parametrize("op", EVERY, ids=str)
def test_views_are_read_as_what_they_show(op, device):
    x = rows_of("normal", 6, 127, torch.float32, device)
    value = values_for(op, x)
    want = op.run(x, value)
    wide = torch.full((12, 2 * 127), NAN, device=device)
    wide[::2, ::2] = x
    for view in (wide[::2, ::2], x.T.contiguous().T, x.flip(0).flip(0), x.unsqueeze(2).expand(6, 127, 2)[..., 1]):
        assert same(want, op.run(view, value))
    if value is not None:
        assert same(want, op.run(x, torch.stack([value, value], 1)[:, 0])), "strided values"


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ops.project_l1_ball(x, 2.0),
        lambda x: ops.project_l0_ball(x, 5),
        lambda x: ops.prox_l0_group(x, 0.5),
        lambda x: ops.prox_linf(x, 2.0),
        lambda x: ops.dual_normalize(x, 2),
        lambda x: ops.lp_norm(x, 0, "pixel"),
        lambda x: ops.project_l1_box(x, x.clamp(0, 1), 1.0),
        lambda x: ops.power_iteration_step(x, 2, x.abs())[0],
        lambda x: ops.pgd_step(x.clamp(0, 1), x, x.clamp(0.1, 0.9), 1, 0.5, 0.1),
    ],
)
def test_channels_last_and_transposed_images(call, device):
    x = rows_of("normal", 4, 3 * 8 * 6, torch.float32, device).reshape(4, 3, 8, 6)
    want = call(x)
    strange = torch.zeros(4, 3, 8, 12, device=device)[..., ::2].copy_(x)
    for view in (
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(2, 3).contiguous().transpose(2, 3),
        strange,
    ):
        assert torch.equal(want, call(view))
    assert torch.equal(want[1:2], call(x[1:2])), "one row of the batch"


@pytest.mark.parametrize("op", [o for o in ROW_OPS if "pixel" not in o.name and "group" not in o.name], ids=str)
def test_one_dimension_is_one_row(op):
    """The table's form is (N, D); the same call on a vector gives the same numbers."""
    x = rows_of("normal", 1, 129, torch.float64)
    value = None if op.scale is None else (op.scale(x) / 2).item()
    name, _, extra = op.name.partition("-")
    call = getattr(ops, name)
    if name in ("dual_normalize", "lp_norm"):
        arguments = [float(extra.split("-")[0])]
    elif name == "project_lp_sphere":
        arguments = [float(extra), value]
    elif name == "power_iteration_step":
        if "alpha" in extra:
            return
        arguments = [float(extra.split("-")[0])]
    elif name == "project_l1_box":
        return
    else:
        arguments = [value, *([extra] if extra else [])]
    row, flat = call(x, *arguments), call(x[0], *arguments)
    row, flat = (row[0], flat[0]) if isinstance(row, tuple) else (row, flat)
    assert torch.equal(row.reshape(-1), flat.reshape(-1))
    if name != "lp_norm":
        assert flat.shape == (129,)


@pytest.mark.parametrize("op", [o for o in EVERY if o.torch_op != "attack_seed"], ids=str)
@pytest.mark.parametrize("shape", [(0, 5), (0, 0), (3, 0)])
def test_empty_tensors(op, shape, device):
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.empty(shape, dtype=dtype, device=device)
        if "pixel" in op.name or "group" in op.name:
            if shape[1] == 0:
                continue
            x = torch.empty(0, 6, dtype=dtype, device=device)
        value = None if op.scale is None else torch.full((len(x),), 0.5, device=device)
        for out in op.run(x, value):
            assert len(out) == len(x)


def test_empty_images(device):
    for shape in ((0, 3, 4, 4), (2, 0, 4), (2, 3, 0), (2, 3, 0, 5)):
        x = torch.empty(shape, device=device)
        assert ops.project_l0_ball(x, 1).shape == shape
        assert ops.prox_l0_group(x, 1.0).shape == shape
        assert torch.equal(ops.lp_norm(x, 0, "pixel"), torch.zeros(shape[0], device=device))
    seed, margin = ops.attack_seed(
        torch.empty(0, 10, device=device), *(torch.empty(0, dtype=torch.int64, device=device),) * 2,
        PrimalDualState.start(torch.empty(0, 4, device=device), 1.0),
    )  # fmt: skip
    assert seed.shape == (0, 10)
    assert margin.shape == (0,)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("op", ALL_OPS, ids=str)
def test_not_a_number_and_infinity_stay_in_their_row(op, bad, device):
    """Wherever in the row; the rows beside it are as they were. NaN reaches the result, whole where the op looks at the whole row."""
    for dtype, sizes in ((torch.float32, (3, 129, 1500, 9000)), (torch.float64, (129,)), (torch.bfloat16, (129,))):
        for d in sizes:
            x = rows_of("normal", 4, d, dtype, device)
            value = None if op.scale is None else (op.scale(x.double()) * 0.3).to(WIDE[dtype])
            want = op.run(x, value)
            for place in {0, d // 2, d - 1}:
                broken = x.clone()
                broken[2, place] = bad
                got = op.run(broken, value)
                others = torch.tensor([0, 1, 3], device=device)
                assert same(tuple(t[others] for t in want), tuple(t[others] for t in got))
                if math.isnan(bad):
                    assert any(t[2].isnan().any() for t in got if t.dtype.is_floating_point)
                if op.spreads and op in PROJECTIONS + PROXES:
                    assert got[0][2].isnan().all()


@pytest.mark.parametrize("op", [o for o in PROJECTIONS + PROXES if o.scale is not None], ids=str)
def test_a_negative_or_nan_value_makes_its_row_nan(op, device):
    for d in (3, 129, 1500):
        for dtype in DTYPES:
            x = rows_of("normal", 4, d, dtype, device)
            value = op.scale(x.double()).to(WIDE[dtype]) * 0.3
            (want,) = op.run(x, value)
            for bad in (-1.0, -INF, NAN):
                broken = value.clone()
                broken[1] = bad
                (got,) = op.run(x, broken)
                assert got[1].isnan().all()
                assert torch.equal(got[[0, 2, 3]], want[[0, 2, 3]])


@pytest.mark.parametrize("p", [1, 2, INF])
def test_negative_budgets_and_radii_of_steps_and_samples(p, device):
    adv = torch.full((3, 40), 0.5, device=device)
    grad = torch.randn(3, 40, device=device)
    bad = torch.tensor([0.1, -0.1, NAN], device=device)
    for eps, step in ((bad, 0.1), (0.1, bad)):
        got = ops.pgd_step(adv, grad, adv, p, eps, step)
        assert got[0].isfinite().all()
        assert got[1:].isnan().all()
    sample = ops.sample_lp_ball(adv, p, bad)
    assert sample[0].isfinite().all()
    assert sample[1:].isnan().all()


IN_PLACE = [o for o in ALL_OPS if o.in_place is not None]


@pytest.mark.parametrize("op", IN_PLACE, ids=str)
def test_in_place_twins(op, device):
    for dtype in DTYPES:
        for d in (3, 129, 3072):
            x = rows_of("normal", 4, d, dtype, device)
            value = values_for(op, x)
            (want,) = op.run(x, value)
            y = x.clone()
            version, back = y._version, op.in_place(y, value)
            assert back.data_ptr() == y.data_ptr()
            assert back is y or back._base is not None, "the same object (a view of it in the table's pixel ops)"
            assert torch.equal(y, want)
            assert y._version > version, "autograd must see the change"
    strided = torch.zeros(4, 258, device=device)[:, ::2]
    x = rows_of("normal", 4, 129, torch.float32, device)
    strided.copy_(x)
    value = values_for(op, x)
    op.in_place(strided, value)
    assert torch.equal(strided, op.run(x, value)[0])


@pytest.mark.parametrize("op", IN_PLACE, ids=str)
def test_in_place_twins_refuse_what_requires_grad(op):
    x = rows_of("normal", 2, 6, torch.float32).requires_grad_()
    value = None if op.scale is None else 0.5
    with pytest.raises(ValueError, match=r"_: x: .*require"):
        op.in_place(x, value)
    with torch.no_grad():
        op.in_place(x, value)


def test_in_place_after_saving_for_backward_is_an_error_not_a_wrong_gradient():
    x = torch.ones(2, 3, requires_grad=True)
    y = x * 2
    z = (y * y).sum()
    with torch.no_grad():
        ops.project_l2_ball_(y, 0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_inputs_are_not_changed():
    for op in EVERY:
        x = rows_of("normal", 3, 129, torch.float32)
        before, value = x.clone(), values_for(op, x)
        op.run(x, value)
        assert torch.equal(x, before), op


X = torch.zeros(2, 3, 4)
G = torch.zeros(2, 12)
L = torch.zeros(2, dtype=torch.int64)
OPTIONS = StepOptions(0.1, 0.1)


def sparse_step(state=None, inputs=G, grad=G, adversarial=L.bool(), step_size=0.1, **options) -> SigmaZeroState:  # noqa: B008
    """A step of σ-zero; tensors of its state may be replaced by name."""
    state = state or SigmaZeroState.start(G, 0.3)
    for name in ("delta", "exp_avg", "threshold"):
        setattr(state, name, options.pop(name, getattr(state, name)))
    return ops.sigma_zero_step(state, inputs, grad, adversarial, step_size=step_size, **options)


START = PrimalDualState.start(G, 1.0)
SCALARS = {
    "radius": ["project_simplex", "project_l1_ball", "project_l2_ball", "project_linf_ball"],
    "weight": ["prox_l0", "prox_l1", "prox_l2", "prox_linf", "prox_l0_group"],
    "k": ["project_l0_ball"],
}


@pytest.mark.parametrize(
    ("argument", "name"), [(a, n + s) for a, names in SCALARS.items() for n in names for s in ("", "_")]
)
def test_bad_values_are_named(argument, name):
    call = getattr(ops, name)
    for bad in (-1.0, NAN, torch.zeros(3), torch.zeros(2, dtype=torch.int32), torch.zeros(2, device="meta")):
        with pytest.raises(ValueError, match=rf"{argument}: expected"):
            call(X.clone(), bad)
    with pytest.raises(ValueError, match=rf"{argument}: .*require grad"):
        call(X.clone(), torch.ones(2, requires_grad=True))
    for bad in ("two", None, [1.0, 2.0]):
        with pytest.raises(TypeError, match=rf"{argument}: expected"):
            call(X.clone(), bad)
    for bad in (X.long(), X.to(torch.complex64), X.bool()):
        with pytest.raises(TypeError, match="x: expected float32"):
            call(bad, 1.0)
    with pytest.raises(TypeError, match=r"x: expected a torch\.Tensor"):
        call([1.0], 1.0)
    with pytest.raises(ValueError, match="x: expected at least one dimension"):
        call(torch.tensor(1.0), 1.0)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("grouping", lambda: ops.project_l0_ball(X, 1, "channel")),
        ("x", lambda: ops.project_l0_ball(G, 1)),
        ("x", lambda: ops.prox_l0_group(G, 1.0)),
        ("by", lambda: ops.prox_l0_group(X, 1.0, "mean")),
        ("center", lambda: ops.project_l1_box(X, X[:1], 1.0)),
        ("center", lambda: ops.project_l1_box(X, X.double(), 1.0)),
        ("bounds", lambda: ops.project_l1_box(X, X, 1.0, (1.0, 0.0))),
        ("bounds", lambda: ops.project_l1_box(X, X, 1.0, (NAN, 1.0))),
        ("radius", lambda: ops.project_l1_box(X, X, -1.0)),
        ("p", lambda: ops.project_lp_sphere(X, 3)),
        ("radius", lambda: ops.project_lp_sphere(X, 2, -1.0)),
        ("p", lambda: ops.dual_normalize(X, 0.5)),
        ("p", lambda: ops.dual_normalize(X, NAN)),
        ("p", lambda: ops.dual_normalize_(X, "2")),
        ("norm", lambda: ops.lp_norm(X, 3)),
        ("norm", lambda: ops.lp_norm(X, "l3")),
        ("grouping", lambda: ops.lp_norm(X, 2, "pixel")),
        ("grouping", lambda: ops.lp_norm(X, 0, "row")),
        ("p", lambda: ops.power_iteration_step(X, 0.0)),
        ("alpha", lambda: ops.power_iteration_step(X, 2, X, 0.0)),
        ("alpha", lambda: ops.power_iteration_step(X, 2, X, NAN)),
        ("previous", lambda: ops.power_iteration_step(X, 2, alpha=1.0)),
        ("previous", lambda: ops.power_iteration_step(X, 2, X[:1])),
        ("p", lambda: ops.power_iteration_step(X, 3, X, 1.0)),
        ("p", lambda: ops.sample_lp_ball(X, 3)),
        ("radius", lambda: ops.sample_lp_ball(X, 2, -1.0)),
        ("seed", lambda: ops.sample_lp_ball(X, 2, seed=-1)),
        ("step", lambda: ops.sample_lp_ball(X, 2, step=2**32)),
        ("sample_ids", lambda: ops.sample_lp_ball(X, 2, sample_ids=torch.zeros(3, dtype=torch.int64))),
        ("sample_ids", lambda: ops.sample_lp_ball(X, 2, sample_ids=torch.zeros(2))),
        ("grad", lambda: ops.pgd_step(G, G[:1], G, 2, 1.0, 0.1)),
        ("inputs", lambda: ops.pgd_step(G, G, G.double(), 2, 1.0, 0.1)),
        ("p", lambda: ops.pgd_step(G, G, G, 3, 1.0, 0.1)),
        ("eps", lambda: ops.pgd_step(G, G, G, 2, -1.0, 0.1)),
        ("step_size", lambda: ops.pgd_step(G, G, G, 2, 1.0, NAN)),
        ("sparsity", lambda: ops.pgd_step(G, G, G, 1, 1.0, 0.1, sparsity=1.5)),
        ("sparsity", lambda: ops.pgd_step(G, G, G, 2, 1.0, 0.1, sparsity=0.5)),
        ("bounds", lambda: ops.pgd_step(G, G, G, 2, 1.0, 0.1, bounds=(0.0, INF))),
        ("norm", lambda: ops.pdpgd_step(START, G, G, L.float(), "l3", OPTIONS)),
        ("grad", lambda: ops.pdpgd_step(START, G, G[:, 1:], L.float(), "l2", OPTIONS)),
        ("margin", lambda: ops.pdpgd_step(START, G, G, L.double(), "l2", OPTIONS)),
        ("step_size", lambda: ops.pdgd_step(START, G, G, L.float(), StepOptions(0.0, 0.1))),
        ("bounds", lambda: ops.pdgd_step(START, G, G, L.float(), StepOptions(0.1, 0.1, bounds=(1.0, 1.0)))),
        ("p", lambda: ops.pdgd_step(START, G, G, L.float(), StepOptions(0.1, 0.1, normalize=0.5))),
        ("logits", lambda: ops.attack_seed(X, L, L, START)),
        ("labels", lambda: ops.attack_seed(G, L.int(), L, START)),
        ("labels", lambda: ops.attack_seed(G, L[:1], L, START)),
        ("best_class", lambda: ops.attack_seed(G, L, L.float(), START)),
        ("targets", lambda: ops.attack_seed(G, L, L, START, targets=L.int())),
        ("state", lambda: ops.attack_seed(G.double(), L, L, START)),
        ("inputs", lambda: SigmaZeroState.start(G[0], 0.3)),
        ("threshold", lambda: SigmaZeroState.start(G, 1.5)),
        ("inputs", lambda: sparse_step(inputs=G.double())),
        ("grad", lambda: sparse_step(grad=G[:1])),
        ("adversarial", lambda: sparse_step(adversarial=L)),
        ("adversarial", lambda: sparse_step(adversarial=L[:1].bool())),
        ("step_size", lambda: sparse_step(step_size=0.0)),
        ("step_size", lambda: sparse_step(step_size=NAN)),
        ("sigma", lambda: sparse_step(sigma=-1.0)),
        ("threshold_step", lambda: sparse_step(threshold_step=-0.1)),
        ("bounds", lambda: sparse_step(bounds=(1.0, 0.0))),
        ("grouping", lambda: sparse_step(grouping="channel")),
        (r"state\.delta", lambda: sparse_step(SigmaZeroState.start(G.half(), 0.3), G.half(), G.half(), delta=G.half())),
        (r"state\.threshold", lambda: sparse_step(threshold=L)),
        ("state", lambda: sparse_step(exp_avg=torch.zeros(12, 2).T)),
    ],
)
def test_bad_arguments_are_named(argument, call):
    with pytest.raises((ValueError, TypeError), match=rf"(^|: ){argument}: "):
        call()


def test_steps_refuse_what_requires_grad_and_states_they_cannot_write():
    g = G.clone().requires_grad_()
    for call in (
        lambda: ops.pgd_step_(G.clone(), g, G, 2, 1.0, 0.1),
        lambda: ops.pdpgd_step(START, g, G, L.float(), "l2", OPTIONS),
        lambda: ops.pdgd_step(START, G, g, L.float(), OPTIONS),
        lambda: sparse_step(grad=g),
    ):
        with pytest.raises(ValueError, match="require grad"):
            call()
    images = torch.rand(2, 3, 4, 4)
    state = PrimalDualState.start(images, 1.0)
    state.adv = state.adv.contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="contiguous"):
        ops.pdpgd_step_(state, images, images, torch.zeros(2), "l2", OPTIONS)
    with pytest.raises(ValueError, match=r"inputs: expected shape \(N, ...\)"):
        PrimalDualState.start(torch.rand(4), 1.0)
    with pytest.raises(ValueError, match="normalize"):
        pixel = StepOptions(0.1, 0.1, normalize=2.0, grouping="pixel")
        ops.pdpgd_step(PrimalDualState.start(images, 1.0), images, images, torch.zeros(2), "l0", pixel)


def test_strided_margins_and_labels_of_steps():
    logits = torch.randn(4, 10)
    x = torch.rand(4, 12)
    labels = torch.tensor([[1, 9], [2, 9], [3, 9], [4, 9]])[:, 0]
    start = lambda: PrimalDualState.start(x, 1.0)  # noqa: E731
    best = torch.zeros(4, dtype=torch.int64)
    a = ops.attack_seed(logits, labels, best, start())
    b = ops.attack_seed(logits, labels.clone(), best.clone(), start())
    assert same(a, b)
    margin = torch.stack([torch.tensor([1.0, -1.0, 1.0, -1.0]), torch.full((4,), NAN)], 1)[:, 0]
    one, two = (ops.pdpgd_step(start(), x, x.sin(), m, "l2", OPTIONS) for m in (margin, margin.clone()))
    assert same(one.tensors(), two.tensors())


@pytest.mark.parametrize("norm", ["pdgd", "l0", "l1", "l2", "linf"])
def test_a_copying_step_leaves_the_state_and_equals_the_step_in_place(norm):
    x = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0))
    g, margin = x.sin() - 0.4, torch.tensor([1.0, -1.0, 1.0, -1.0])
    state = PrimalDualState.start(x, 1.0)
    before = [t.clone() for t in state.tensors()]
    if norm == "pdgd":
        copy, here = ops.pdgd_step(state, x, g, margin, OPTIONS), ops.pdgd_step_
        assert all(torch.equal(a, b) for a, b in zip(before, state.tensors(), strict=True))
        assert here(state, x, g, margin, OPTIONS) is state
    else:
        copy = ops.pdpgd_step(state, x, g, margin, norm, OPTIONS)
        assert all(torch.equal(a, b) for a, b in zip(before, state.tensors(), strict=True))
        assert ops.pdpgd_step_(state, x, g, margin, norm, OPTIONS) is state
    assert same(copy.tensors(), state.tensors())
    adv = x.clone()
    assert ops.pgd_step_(adv, g, x, 2, 0.1, 0.05) is adv
    assert torch.equal(adv, ops.pgd_step(x, g, x, 2, 0.1, 0.05))


@pytest.mark.parametrize("grouping", ["value", "pixel"])
def test_a_copying_step_of_sigma_zero_leaves_the_state_and_equals_the_step_in_place(grouping):
    x = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0))
    g, adversarial = x.sin() - 0.4, torch.tensor([True, False, True, False])
    state = SigmaZeroState.start(x, 0.3)
    before = [t.clone() for t in state.tensors()]
    copy = ops.sigma_zero_step(state, x, g, adversarial, step_size=0.5, grouping=grouping)
    assert all(torch.equal(a, b) for a, b in zip(before, state.tensors(), strict=True))
    assert ops.sigma_zero_step_(state, x, g, adversarial, step_size=0.5, grouping=grouping) is state
    assert same(copy.tensors(), state.tensors())
    assert not torch.equal(state.adv, x)


def test_strided_tensors_of_a_step_of_sigma_zero():
    x = torch.rand(4, 3, 5, 2, generator=torch.Generator().manual_seed(0))
    adversarial = torch.tensor([[True, False], [False, False], [True, True], [False, True]])
    one, two = (
        ops.sigma_zero_step(SigmaZeroState.start(x, 0.3), a, a.sin() - 0.4, m, step_size=0.5, grouping="pixel")
        for a, m in (
            (x.contiguous(memory_format=torch.channels_last), adversarial[:, 0]), (x, adversarial[:, 0].clone()),
        )
    )  # fmt: skip
    assert same(one.tensors(), two.tensors())


def named(name: str) -> Op:
    return next(o for o in EVERY if o.name == name)


def test_gradients_too_small_or_too_large_for_a_reciprocal_norm(device):
    """1 / ‖g‖ of a subnormal row is beyond float32, and that of a huge row is subnormal; a zero among them must stay 0, not 0 · inf."""
    for size in (1e-44, 1e-40, 1e38):
        g = torch.full((1, 100), size, device=device)
        g[0, ::2] = 0
        for p in (1, 1.5, 2, 3, INF):
            v = ops.dual_normalize(g, p)
            assert v.isfinite().all()
            assert torch.linalg.vector_norm(v, p).item() == pytest.approx(1, rel=1e-5)
            assert not v[0, ::2].any()
        x = torch.full((1, 100), 0.5, device=device)
        moved = ops.pgd_step(x, g, x, 2, 1.0, 0.1)
        assert torch.allclose((moved - x).norm(), torch.tensor(0.1, device=device), rtol=1e-5)
        for norm in ("linf", "l2", "l1", "l0", "pdgd"):
            state, margin = PrimalDualState.start(x, 1e-6), torch.ones(1, device=device)
            options = StepOptions(0.1, 0.0, normalize={"linf": 1.0, "l2": 2.0, "pdgd": 2.0}.get(norm, INF))
            if norm == "pdgd":
                ops.pdgd_step_(state, x, g, margin, options)
            else:
                ops.pdpgd_step_(state, x, g, margin, norm, options)
            assert all(t.isfinite().all() for t in (state.adv, state.exp_avg, state.exp_avg_sq, state.distance))
            assert state.adv[0, 1::2].lt(0.5).all()
