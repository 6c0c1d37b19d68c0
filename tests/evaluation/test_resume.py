"""A run killed with SIGKILL at any moment resumes to the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from processes import die_at_call, start

from pyrobust.evaluation import evaluate
from pyrobust.evaluation.store import MANIFEST
from pyrobust.models import small_cnn

from . import toy_attacks

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")

BATCHES = 5 * 3  # micro-batches of: clean predictions, two norms


def run(folder: Path, log: Path | None = None, delay: float = 0.0) -> None:
    """One start of the same run: 70 samples in micro-batches of 16, in two norms."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    data = torch.rand(70, 1, 8, 8, generator=generator), torch.randint(0, 10, (70,), generator=generator)
    model = small_cnn().eval()
    data = data[0], torch.where(torch.arange(70) % 7 == 0, data[1], model(data[0]).argmax(1))

    def slow_walk(model, inputs, labels, *, norm, steps, bounds, seed, sample_ids):
        if log is not None:
            with log.open("a") as file:
                file.write(f"{norm} {int(sample_ids[0])}\n")
        time.sleep(delay)
        return toy_attacks.walk(
            model, inputs, labels, norm=norm, steps=steps, bounds=bounds, seed=seed, sample_ids=sample_ids
        )

    evaluate(model, data, norms=["linf", "l2"], attacks=slow_walk, steps=4, batch_size=16, out=folder, resume=True)


def run_until_call(folder: Path, name: str, calls: int, before: bool) -> None:
    """Start the run and die at the given call of ``os.<name>`` by the store, right before or right after it."""
    die_at_call(name, calls, before)
    run(folder)


def finished(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.glob("batches/*/*.parquet"))}


def assert_same(folder: Path, reference: Path) -> None:
    for name in ("results.parquet", "summary.json", "curves.png", "examples.png"):
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
    assert not list(folder.rglob("*.tmp"))
    fingerprints = [json.loads((f / MANIFEST).read_text())["fingerprint"] for f in (folder, reference)]
    assert fingerprints[0] == fingerprints[1]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it should come out."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    process = start(run, folder)
    process.join(120)
    assert process.exitcode == 0
    assert len(finished(folder)) == BATCHES
    return folder


def test_killed_at_random_moments(uninterrupted: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    folder, log = tmp_path / "run", tmp_path / "log"
    kills, kept = 0, {}
    while kills < 8:
        process = start(run, folder, log, 0.03)
        # From before the run has a folder to after many of its batches.
        process.join(chance.uniform(0.0, 0.45))
        if process.exitcode == 0:
            break
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        now = finished(folder)
        assert kept.items() <= now.items()  # nothing lost, nothing written twice
        kept = now
    assert kills
    process = start(run, folder, log)
    process.join(120)
    assert process.exitcode == 0
    assert kept.items() <= finished(folder).items()
    assert_same(folder, uninterrupted)
    attacked = log.read_text().splitlines()
    assert len(set(attacked)) == 10
    assert len(attacked) <= 10 + kills  # only what a kill interrupted was begun again


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("before", [True, False])
def test_killed_around_every_kind_of_write(uninterrupted: Path, tmp_path: Path, name: str, before: bool) -> None:
    # The manifest, then a file each micro-batch, then the report's files; fsync runs twice a file.
    for calls in (1, 2, 7, 3, 5):
        process = start(run_until_call, tmp_path / "run", name, calls, before)
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
    process = start(run, tmp_path / "run")
    process.join(120)
    assert process.exitcode == 0
    assert_same(tmp_path / "run", uninterrupted)


def test_resuming_a_finished_run_only_makes_its_report_again(uninterrupted: Path) -> None:
    before = finished(uninterrupted)
    page = uninterrupted / "report.html"
    text = page.read_text()
    page.unlink()
    log = uninterrupted.parent / "log"
    process = start(run, uninterrupted, log)
    process.join(120)
    assert process.exitcode == 0
    assert page.read_text() == text
    assert finished(uninterrupted) == before
    assert not log.exists()
