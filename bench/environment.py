"""What a figure depends on: versions, machine, commit, arguments."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "pyrobust", "torch", "numpy", "scipy", "scikit-learn",
    "adv-lib", "foolbox", "torchattacks", "adversarial-robustness-toolbox", "autoattack",
)  # fmt: skip


def describe(device: torch.device, arguments: dict[str, Any]) -> dict[str, Any]:
    """Everything that belongs beside a figure, ready for JSON."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "machine": _machine(device),
        "commit": _commit(),
        "arguments": arguments,
        "load_average_at_start": os.getloadavg()[0],
    }


def processor(device: torch.device) -> str:
    """The name of the processor that computes: the GPU, or the CPU model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def cache_bytes(device: torch.device) -> int:
    """Size of the last cache before memory: the GPU's L2, the CPU's last level; 64 MiB where it cannot be read."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = [_read(path) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size.strip()[:-1]) * 1024 for size in sizes if size.strip().endswith("K")), default=64 << 20)


def _machine(device: torch.device) -> dict[str, Any]:
    from pyrobust.ops import native_info

    machine: dict[str, Any] = {
        "cpu": processor(torch.device("cpu")),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "cpu_cache_bytes": cache_bytes(torch.device("cpu")),
        "native": native_info(),
    }
    if device.type == "cuda":
        machine["gpu"] = processor(device)
        machine["gpu_cache_bytes"] = cache_bytes(device)
        machine["cuda"] = torch.version.cuda
        machine["driver"] = _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return machine


def _commit() -> str:
    commit = os.environ.get("PYROBUST_BENCH_COMMIT") or _run("git", "rev-parse", "HEAD")
    return commit + (" with local changes" if commit and _run("git", "status", "--porcelain") else "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
