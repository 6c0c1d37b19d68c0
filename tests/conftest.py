"""What all tests share: devices, and a deterministic hypothesis."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

from pyrobust.ops import native_info

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Of several test processes (pytest-xdist), each takes its share of the cores."""
    processes = getattr(config, "workerinput", {}).get("workercount")
    if processes:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def _why_no_cuda() -> str:
    """Why the kernels cannot run on a GPU here; "" where they can."""
    if not native_info()["cuda_built"]:
        return f"the native module has no CUDA kernels: {native_info()['cuda_note']}"
    return "" if torch.cuda.is_available() else "torch sees no CUDA device"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device that the kernels run on."""
    if request.param == "cuda" and _why_no_cuda():
        pytest.skip(_why_no_cuda())
    return torch.device(request.param)


@pytest.fixture
def cuda() -> torch.device:
    """A CUDA device, or the test is skipped."""
    if _why_no_cuda():
        pytest.skip(_why_no_cuda())
    return torch.device("cuda")


@pytest.fixture
def threads():
    """Set the number of torch's threads; it is put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread():
    """One thread of torch: where batches are tiny, threads that wait for each other would be most of the time, and where
    results are compared with those of other processes, another number may give other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
