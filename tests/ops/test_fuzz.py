"""Projections and proxes on what hypothesis makes up: any shape, any numbers of the dtype, any radius."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.table import DTYPES, POWERS, PROJECTIONS, PROXES, STEPS, WIDE, check

# Up to a sixteenth of the range: then sums of two such numbers, and pixel norms, are finite.
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, 1 / 3, 1e-3, -1e-3, 255.0, 1e-8, 3e4, 2.0**-24, 1e-38, 1e-45, 1e30, -1e30)


@st.composite
def rows(draw: st.DrawFn) -> torch.Tensor:
    """A small tensor (N, D) of any dtype, of numbers from all over its range or from a few that tie."""
    dtype = draw(st.sampled_from(DTYPES))
    n, d = draw(st.integers(1, 3)), draw(st.one_of(st.integers(1, 12), st.integers(100, 400)))
    top = torch.finfo(dtype).max / 16 if dtype != torch.float64 else 1e150
    anything = st.floats(-top, top, width=64)
    number = draw(
        st.sampled_from([anything, st.floats(-4, 4), st.sampled_from(SPECIAL).map(lambda v: max(-top, min(top, v)))])
    )
    if d > 12:  # long rows by a few drawn numbers, placed by a drawn seed
        few = torch.tensor(draw(st.lists(number, min_size=2, max_size=8)), dtype=torch.float64)
        place = torch.randint(len(few), (n, d), generator=torch.Generator().manual_seed(draw(st.integers(0, 2**31))))
        x = few[place]
    else:
        x = torch.tensor(draw(st.lists(number, min_size=n * d, max_size=n * d)), dtype=torch.float64).reshape(n, d)
    x = x.clamp(-top, top)
    if dtype == torch.float64:  # the reference squares: below 1e-150 it would lose them
        x = torch.where(x.abs() < 1e-140, 0.0, x)
    return x.to(dtype)


@settings(max_examples=40)
@given(
    rows(),
    st.lists(
        st.sampled_from([0.0, 1e-30, 1e-7, 1e-3, 0.1, 0.5, 0.9, 1 - 1e-7, 1.0, 1 + 1e-7, 2.0, 1e6]),
        min_size=3,
        max_size=3,
    ),
)
def test_any_row_and_radius(x, shares):
    for op in PROJECTIONS + PROXES:
        scale = op.scale(x.double())
        share = torch.tensor(shares[: len(x)], dtype=torch.float64)
        wide = WIDE[x.dtype]
        value = (scale * share).clamp(max=torch.finfo(wide).max / 4).to(wide)
        if op.torch_op == "project_lp_sphere":  # tiny spheres in huge rows: the reference's r / ‖x‖ leaves float64
            value = value.clamp(min=1e-100) if wide == torch.float64 else value
        check(op, x, value, op.run(x, value))


@settings(max_examples=25)
@given(rows())
def test_steps_on_any_gradient(x):
    for op in (*POWERS[:5], *STEPS[:4]):
        value = None if op.scale is None else op.scale(x.double()).to(WIDE[x.dtype])
        check(op, x, value, op.run(x, value))


@settings(max_examples=60)
@given(st.lists(st.floats(width=32), min_size=1, max_size=40), st.floats(0, math.inf, allow_nan=False, width=32))
def test_any_floats_at_all_end_and_stay_feasible_or_nan(numbers, radius):
    """With NaN, ±Inf and the whole range: every call returns; a result is feasible, or its row is NaN."""
    x = torch.tensor([numbers])
    for op in PROJECTIONS + PROXES:
        (y,) = op.run(x, radius)
        assert y.shape == x.shape
        if op.torch_op in ("project_l1_ball", "project_l2_ball", "project_linf_ball") and not y.isnan().any():
            p = {"project_l1_ball": 1, "project_l2_ball": 2, "project_linf_ball": math.inf}[op.torch_op]
            size = torch.linalg.vector_norm(y.double(), p).item()
            # as table.by_threshold, a + 6 ≤ 24 for 40 elements: of the radius, and of the largest magnitude an element
            level = 2 * (24 * 2.0**-24) ** 2 * x.abs().max().item() if p == 1 else 0.0
            assert size <= radius * (1 + 64 * 2.0**-24) + len(numbers) * (level + 1e-44)
