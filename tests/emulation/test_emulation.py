"""Runs the CUDA kernels' source on the host, under AddressSanitizer + UBSan and under ThreadSanitizer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import emulation_build as builder
import pytest

pytestmark = pytest.mark.slow

MODES = {"address": "all", "thread": "quick"}
ENVIRONMENT = os.environ | {
    "ASAN_OPTIONS": "detect_leaks=0",  # leak checks need ptrace, which containers may forbid
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    def attempt(*prefix: str) -> subprocess.CompletedProcess[str]:
        command = [*prefix, str(program), *arguments]
        return subprocess.run(
            command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900
        )

    done = attempt()
    # The sanitizers of older compilers do not know the address layouts of newer kernels (vm.mmap_rnd_bits > 28).
    if "unexpected memory mapping" in done.stdout and shutil.which("setarch"):
        done = attempt("setarch", os.uname().machine, "-R")
    return done


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    missing = builder.why_not()
    if missing:
        pytest.skip(missing)
    return builder.build(tmp_path_factory.mktemp("emulation"))


@pytest.fixture(scope="module")
def results(programs: dict[str, Path]) -> dict[str, subprocess.CompletedProcess[str]]:
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(MODES, pool.map(lambda name: run(programs[name], MODES[name]), MODES), strict=True))


@pytest.mark.parametrize("sanitizer", MODES)
def test_kernels_equal_the_cpu_level_without_a_report(sanitizer, results):
    done = results[sanitizer]
    assert done.returncode == 0, done.stdout[-20000:]
    assert re.search(r"^\d+ cases, 0 failed$", done.stdout, re.MULTILINE)


def test_more_rows_than_a_grid_has_blocks_are_refused(programs):
    done = run(programs["address"], "rows")
    assert done.returncode == 0
    assert "more rows than a grid has blocks" in done.stdout


def test_every_op_is_in_the_table():
    declared = {
        name
        for header in (builder.CSRC / "ops").glob("*.h")
        for name in re.findall(r"^PR_DECLARE_OP\((\w+)", header.read_text(), re.MULTILINE)
    }
    tested = set(re.findall(r"\bOP\((\w+),", (builder.HERE / "op_table.h").read_text()))
    assert declared - tested == set()


@pytest.mark.parametrize("fault", ["none:block", "none:cluster", "none:exchange", "none:overlap"])
@pytest.mark.parametrize("sanitizer", MODES)
def test_correct_kernels_pass(sanitizer, fault, programs):
    done = run(programs[sanitizer], "fault", fault)
    assert done.returncode == 0, done.stdout
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("sanitizer", "fault", "report"),
    [
        ("thread", "first-block-barrier", "ThreadSanitizer: data race"),
        ("thread", "second-block-barrier", "ThreadSanitizer: data race"),
        ("thread", "first-cluster-barrier", "ThreadSanitizer: data race"),
        ("thread", "second-cluster-barrier", "ThreadSanitizer: data race"),
        ("thread", "shuffle-as-barrier", "ThreadSanitizer: data race"),
        ("thread", "overlapping-blocks", "ThreadSanitizer: data race"),
        ("address", "short-output", "AddressSanitizer: heap-buffer-overflow"),
        ("address", "shared-overflow", "AddressSanitizer: heap-buffer-overflow"),
        ("address", "local-overflow", "out of bounds for type 'int \\[8\\]'"),
        ("address", "early-exit", "wait for others that will not come"),
        ("address", "split-warp", "meet in different calls"),
        ("address", "unasked-shared", "more shared memory than the kernel was allowed"),
    ],
)
def test_planted_faults_are_reported(sanitizer, fault, report, programs):
    done = run(programs[sanitizer], "fault", fault)
    assert done.returncode != 0
    assert re.search(report, done.stdout), done.stdout
