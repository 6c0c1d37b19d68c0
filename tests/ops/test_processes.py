"""What needs another process: every CPU level, forked workers, and refusals at import."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from ops.table import ALL_OPS, SAMPLERS, Op, additions, check, rows_of, unit, values_for
from pyrobust.ops import native_info

TESTS = Path(__file__).parent.parent
LEVELS = ("baseline", "avx2", "avx512")
CASES = [
    (kind, d, dtype)
    for dtype, sizes in ((torch.float32, (129, 784, 3072)), (torch.float64, (129, 1500)), (torch.float16, (129, 1500)))
    for d in sizes
    for kind in ("normal", "cauchy")[: 1 + (d == 784)]
]


def run_python(code: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that finds the tests' modules."""
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(TESTS), **environment}, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip


def supported() -> tuple[str, ...]:
    """The levels of this processor: up to the one in use, unless the environment lowered it."""
    return LEVELS[: LEVELS.index(str(native_info()["cpu_level"])) + 1]


def computed_here() -> list:
    """Results of every op on every case, to be made in a process at its level."""
    results = []
    for kind, d, dtype in CASES:
        x = rows_of(kind, 3, d, dtype)
        results.append([op.run(x, values_for(op, x)) for op in ALL_OPS + SAMPLERS])
    return results


@cache
def expected(kind: str, d: int, dtype: torch.dtype) -> list[Op]:
    """The ops with their references and bounds worked out once for all levels."""
    x = rows_of(kind, 3, d, dtype)
    ready = []
    for op in ALL_OPS:
        value = values_for(op, x)
        want = op.reference(x, value)
        bound = op.bound(x, value, want)
        ready.append(replace(op, reference=lambda *_, w=want: w, bound=lambda *_, b=bound: b))
    return ready


@pytest.mark.parametrize("level", LEVELS)
def test_every_cpu_level_is_right(level, tmp_path):
    if level not in supported():
        pytest.skip(f"this processor stops at {supported()[-1]}")
    code = f"""
import torch
from ops.test_processes import computed_here
from pyrobust.ops import native_info
assert native_info()["cpu_level"] == {level!r}
torch.set_num_threads(1)
torch.save(computed_here(), {str(tmp_path / "results")!r})
"""
    done = run_python(code, PYROBUST_CPU_LEVEL=level)
    assert done.returncode == 0, done.stderr
    for (kind, d, dtype), results in zip(CASES, torch.load(tmp_path / "results"), strict=True):
        x = rows_of(kind, 3, d, dtype)
        for op, got in zip(expected(kind, d, dtype), results[: len(ALL_OPS)], strict=True):
            check(op, x, values_for(op, x), got, f"{level} {kind}")
        for op, got in zip(
            SAMPLERS, results[len(ALL_OPS) :], strict=True
        ):  # test_sampling.py says what is right; here they agree
            u = (additions(d) + 8) * unit(x) + torch.finfo(dtype).eps
            assert all(torch.allclose(a, b, rtol=u, atol=u * 1e-3) for a, b in zip(got, op.run(x, None), strict=True))


def test_an_unknown_level_is_refused_at_import():
    done = run_python("import pyrobust.ops", PYROBUST_CPU_LEVEL="sse9")
    assert done.returncode != 0
    assert "PYROBUST_CPU_LEVEL" in done.stderr
    assert "sse9" in done.stderr


FORK = """
import torch
from torch.utils.data import DataLoader, Dataset
from ops.table import ALL_OPS, rows_of, values_for

def compute(i):
    results = []
    for op in ALL_OPS:
        x = rows_of("normal", 12, 2700, torch.float32, seed=i)  # two threads for our loops, one for torch's
        results.extend(t.double().nan_to_num(7.0).reshape(-1) for t in op.run(x, values_for(op, x)))
    return torch.cat(results)

class Results(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        return compute(i)

torch.set_num_threads(2)
torch.randn(500, 500) @ torch.randn(500, 500)
here = [compute(i) for i in range(4)]
workers = DataLoader(Results(), batch_size=1, num_workers=2, multiprocessing_context="fork", timeout=60)
for a, (b,) in zip(here, workers, strict=True):
    assert torch.equal(a, b)
assert all(torch.equal(a, compute(i)) for i, a in enumerate(here))
print("equal")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_workers_finish_and_give_the_same_bits():
    done = run_python(FORK, timeout=120)
    assert done.stdout.strip() == "equal", done.stderr


THREADS = """
import threading, torch
from ops.table import ALL_OPS, rows_of, values_for
torch.set_num_threads(2)
def compute(seed):
    out = []
    for op in ALL_OPS:
        x = rows_of("normal", 12, 2700, torch.float32, seed=seed)
        out += [t.double().nan_to_num(7.0) for t in op.run(x, values_for(op, x))]
    return out
want = [compute(i) for i in range(3)]
got = [None] * 3
def work(i):
    got[i] = compute(i)
team = [threading.Thread(target=work, args=(i,)) for i in range(3)]
[t.start() for t in team]; [t.join() for t in team]
assert all(torch.equal(a, b) for w, g in zip(want, got) for a, b in zip(w, g))
print("equal")
"""


def test_python_threads_side_by_side_give_the_same_bits():
    done = run_python(THREADS, timeout=120)
    assert done.stdout.strip() == "equal", done.stderr
