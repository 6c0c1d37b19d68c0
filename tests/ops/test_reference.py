"""Every op against its float64 reference, within the rounding that table.py derives."""

from __future__ import annotations

import math

import pytest
import torch

from ops.table import ALL_OPS, DTYPES, KINDS, PROJECTIONS, PROXES, ROW_OPS, STEPS, WIDE, Op, check, rows_of, values_for
from pyrobust import ops

SMALL, MIDDLE, LARGE = (1, 2, 127, 129, 151), (784, 3072), 150528


def compare(op: Op, x: torch.Tensor, context: str) -> None:
    value = values_for(op, x)
    check(op, x, value, op.run(x, value), context)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", ALL_OPS, ids=str)
def test_small_rows_of_every_kind(op, dtype, device):
    kinds = KINDS if op in ROW_OPS else ("normal", "cauchy", "zeros", "largest", "subnormal")
    for d in SMALL:
        for kind in kinds:
            compare(op, rows_of(kind, 8, d, dtype, device), kind)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", ALL_OPS, ids=str)
def test_image_rows(op, dtype, device):
    for d in MIDDLE:
        for kind in ("normal", "cauchy", "ties", "sorted"):
            compare(op, rows_of(kind, 8, d, dtype, device), kind)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", ALL_OPS, ids=str)
def test_large_rows(op, dtype, device):
    if op in STEPS and dtype != torch.float32:
        return  # the references of the steps bisect
    x = torch.cat([rows_of("normal", 1, LARGE, dtype, device), rows_of("cauchy", 1, LARGE, dtype, device)])
    value = None if op.scale is None else (op.scale(x.double()) * 0.1).to(WIDE[dtype])
    check(op, x, value, op.run(x, value))


@pytest.mark.parametrize(
    "d", [255, 256, 257, 1023, 1024, 1025, 8191, 8193, 24577, 32768, 32784, 33000, 33023, 33024, 49153]
)
def test_l1_searches_at_the_edges_of_their_blocks(d, device):
    """Lengths at which the sample, its stride, the chunks of the sums and the teams of a GPU change."""
    for op in ROW_OPS:
        if op.name in (
            "project_simplex",
            "project_l1_ball",
            "prox_linf",
            "project_lp_sphere-1",
            "project_l0_ball-value",
        ):
            x = rows_of("normal", 2, d, torch.float32, device)
            value = (op.scale(x.double()) * 0.05).float()
            check(op, x, value, op.run(x, value))


@pytest.mark.parametrize("op", [o for o in PROJECTIONS + PROXES if o.scale is not None], ids=str)
def test_a_number_is_the_same_as_one_value_a_row(op, device):
    x = rows_of("normal", 4, 151, torch.float32, device)
    number = op.scale(x.double())[0].item() / 2
    each = torch.full((4,), number, dtype=torch.float64, device=device)
    (a,), (b,) = op.run(x, number), op.run(x, each)
    assert torch.equal(a, b)


def on_the_boundary(d: int, device: torch.device) -> torch.Tensor:
    """Rows of small integers, whose norms are exact: Σ|x| and Σx² are integers, and Σx² a square."""
    x = torch.zeros(3, d)
    x[0, :2] = torch.tensor([3.0, -4.0])[:d]
    x[1, : d // 4 * 4] = 2.0
    x[2, -1] = -7.0
    if d >= 4:
        x[1, 4 * (math.isqrt(d // 4) ** 2) :] = 0  # 4 k² twos: l2 norm 4 k
    return x.to(device)


@pytest.mark.parametrize("d", [1, 2, 127, 784, 3072])
@pytest.mark.parametrize(
    ("project", "p"), [("project_l1_ball", 1), ("project_l2_ball", 2), ("project_linf_ball", math.inf)]
)
def test_a_row_on_the_boundary_is_left_alone(project, p, d, device):
    for dtype in DTYPES:
        x = on_the_boundary(d, device).to(dtype)
        radius = torch.linalg.vector_norm(x.double(), p, dim=1)
        assert torch.equal(getattr(ops, project)(x, radius), x)
        if p != 2:  # and, scaled up or down by a power of two, still
            assert torch.equal(getattr(ops, project)(x / 1024, radius / 1024), x / 1024)
        on_sphere = radius > 0
        assert torch.equal(ops.project_lp_sphere(x, p, radius)[on_sphere], x[on_sphere])


@pytest.mark.parametrize("op", [o for o in PROJECTIONS if "sphere" not in o.name and "simplex" not in o.name], ids=str)
def test_infinite_and_zero_radius(op, device):
    for dtype in DTYPES:
        for kind in ("normal", "huge", "tiny", "zeros"):
            x = rows_of(kind, 3, 129, dtype, device)
            if op.name == "project_l1_box":
                x = x.clamp(0, 1)
            (y,) = op.run(x, math.inf)
            assert torch.allclose(y, x, rtol=0, atol=torch.finfo(dtype).eps if "box" in op.name else 0)
            (y,) = op.run(x, 0.0)
            center = op.run(torch.zeros_like(x), 0.0)[0] if "box" in op.name else torch.zeros_like(x)
            assert torch.equal(y, center)


@pytest.mark.parametrize(
    "op", [o for o in PROJECTIONS + PROXES if o.torch_op in ("project_simplex", "project_l1_ball", "project_l2_ball", "prox_l2", "prox_linf", "project_lp_sphere")], ids=str,
)  # fmt: skip
@pytest.mark.parametrize(
    ("dtype", "power"), [(torch.float64, 1000), (torch.float64, -960), (torch.float32, 110), (torch.float32, -85)]
)
def test_scaling_by_a_power_of_two_scales_the_result(op, dtype, power, device):
    """Up to the last digits: near the ends of the range the sums are formed another way. Beyond what a float64 reference could square."""
    for d in (129, 784):
        x = rows_of("normal", 4, d, dtype, device)
        value = (op.scale(x.double()) * 0.1).to(dtype)
        (plain,), (scaled,) = op.run(x, value), op.run(x * 2.0**power, value * 2.0**power)
        bound = 2 * op.bound(x, value, (plain.double(),))[0]
        assert ((scaled * 2.0**-power).double() - plain.double()).abs().sub(bound).max() <= 0


def bits16(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Every number of a 16-bit dtype, two rows."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).reshape(2, -1).to(device)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bit_numbers_convert_as_torch_converts_them(dtype, device):
    x = bits16(dtype, device)
    for weight in (0.0, 2.0**-24, 2.0**-15, 1e-3, 0.3, 17.7, 1.00048828125e38 if dtype == torch.bfloat16 else 3000.3):
        got = ops.prox_l1(x, weight)
        wide = x.float()
        want = (wide.abs() - torch.tensor(weight, device=device)).clamp(min=0).copysign(wide).to(dtype)
        want = torch.where(x.isnan(), x, want)
        same = (got.view(torch.int16) == want.view(torch.int16)) | (got.isnan() & want.isnan())
        assert same.all(), (weight, x[~same][:5], got[~same][:5], want[~same][:5])
