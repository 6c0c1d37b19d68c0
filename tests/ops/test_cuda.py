"""What only a GPU shows: CUDA graphs, streams, devices, and rows that no block holds. The other tests of ops run there too, by ``device``."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ops.table import ALL_OPS, SAMPLERS, check, rows_of, values_for
from pyrobust import ops

pytestmark = pytest.mark.cuda
EVERY = ALL_OPS + SAMPLERS


@pytest.mark.parametrize("op", EVERY, ids=str)
def test_captured_in_a_cuda_graph(op, cuda):
    x = rows_of("normal", 8, 3072, torch.float32, cuda)
    value = values_for(op, x)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        op.run(x, value)  # warm up, outside the graph
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = op.run(x, value)
    for seed in (1, 2):
        x.copy_(rows_of("normal", 8, 3072, torch.float32, cuda, seed))
        graph.replay()
        torch.cuda.synchronize()
        for a, b in zip(got, op.run(x, value), strict=True):
            assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


@pytest.mark.parametrize("op", EVERY, ids=str)
def test_runs_on_the_current_stream(op, cuda):
    """The input is ready only after a long wait on the side stream; a launch on any other stream would read zeros."""
    real = rows_of("normal", 64, 3072, torch.float32, cuda)
    value = values_for(op, real)
    want = op.run(real, value)
    x = torch.zeros_like(real)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        x.copy_(real)
        got = op.run(x, value)
    side.synchronize()
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


def test_does_not_synchronise(cuda):
    x = rows_of("normal", 64, 3072, torch.float32, cuda)
    cases = [(op, values_for(op, x)) for op in EVERY]
    for op, value in cases:
        op.run(x, value)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for op, value in cases:
            op.run(x, value)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("d", [8191, 8192, 8193, 12288, 24576, 24577, 65537, 150528, 196609, 500001])
def test_every_size_of_team(d, dtype, cuda):
    """One block of few and of many items, of just the 48 KiB that are had without asking, clusters of 2 to 8 blocks, and
    the workspace beyond."""
    x = rows_of("normal", 3, d, dtype, cuda)
    for op in EVERY:
        if op not in SAMPLERS:
            value = (
                None
                if op.scale is None
                else (op.scale(x.double()) * 0.1).to(torch.float64 if dtype == torch.float64 else torch.float32)
            )
            check(op, x, value, op.run(x, value))


def test_leaves_the_current_device(cuda):
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device")
    x = rows_of("normal", 8, 3072, torch.float32, "cuda:1")
    with torch.cuda.device(0):
        y = ops.project_l1_ball(x, 1.0)
        assert torch.cuda.current_device() == 0
    assert torch.equal(y.cpu(), ops.project_l1_ball(x.to("cuda:0"), 1.0).cpu())


def test_launches_at_once(cuda):
    """Threads whose rows need different amounts of shared memory do not take it from each other."""
    rows = [rows_of("normal", 4, d, torch.float32, cuda) for d in (13000, 28000)]
    wanted = [ops.project_l1_ball(x, 1.0) for x in rows]

    def call(number: int) -> bool:
        return all(torch.equal(ops.project_l1_ball(rows[number], 1.0), wanted[number]) for _ in range(200))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(call, (0, 1)))


def test_import_leaves_the_driver_alone(cuda):
    """So that a process may fork workers that use a GPU, and name the visible devices, after it."""
    program = "import os, pyrobust.ops; os.environ['CUDA_VISIBLE_DEVICES'] = ''; import torch; print(torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_samples_are_those_of_the_cpu(cuda):
    """The same words; logarithm and cosine may differ in the last digits."""
    like = torch.empty(4, 1000)
    for p in (1, 2, float("inf")):
        a, b = ops.sample_lp_ball(like, p, seed=5), ops.sample_lp_ball(like.to(cuda), p, seed=5).cpu()
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-7)
