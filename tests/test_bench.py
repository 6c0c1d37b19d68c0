"""The benchmarks run at a tiny size, and their JSON holds what they promise."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import roster, suite_roster
from bench.networks import Subject
from bench.passes import Pass, Recorded, bare_loop
from bench.strength_bars import bars, compare, uncompared

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("sklearn")

KERNELS = {
    "project_l1_ball", "project_simplex", "project_l2_ball", "project_linf_ball", "project_l0_ball", "project_l1_box",
    "prox_l1", "prox_l2", "prox_linf", "prox_l0", "prox_l0_group", "dual_normalize p=1", "dual_normalize p=2",
    "dual_normalize p=inf", "dual_normalize p=3", "lp_norm l2", "power_iteration_step", "sample_lp_ball p=2",
    "pgd_step linf", "pdgd_step", "pdpgd_step linf", "pdpgd_step l0", "attack_seed",
}  # fmt: skip
MINIMUM_NORM = {"pdpgd linf", "pdpgd l2", "pdpgd l1", "pdpgd l0", "pdgd l2"}


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The JSON of a smoke run in a process of its own, on one thread: tests share their cores."""
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "bench", *arguments, "--smoke", "--out", str(out)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert content["versions"]["torch"] == torch.__version__
    assert content["machine"]["cpu"]
    assert content["machine"]["native"]["cpu_level"]
    assert content["arguments"]["smoke"] is True
    assert all({"what", "bar", "measured", "ok"} <= bar.keys() for bar in content.get("bars", []))
    return content


def positive(*figures: float) -> bool:
    return all(math.isfinite(figure) and figure > 0 for figure in figures)


def test_kernels(tmp_path: Path) -> None:
    content = run(tmp_path, "kernels")
    rows = content["rows"]
    for shape in ([16, 784], [4, 3072]):
        assert {row["op"] for row in rows if row["shape"] == shape} >= KERNELS
    for row in rows:
        assert positive(row["gb_s"], row["share"], row["x_copy"], row["function_x_copy"], row["function_x_clone"]), row
        assert row["bytes"] % (4 * row["shape"][0] * row["shape"][1]) == 0
        for peer in ("eager", "compile"):  # measured, or with the reason
            assert "min_s" in row["times"][peer] or row["times"][peer]["skipped"], row
        if row["op"] == "project_l1_ball":
            assert positive(row["sort_x"], row["eager_x"])
    overhead = {row["op"]: row for row in content["overhead"]}
    assert overhead.keys() >= KERNELS
    assert all(positive(overhead[op]["function_us"], overhead[op]["native_us"]) for op in KERNELS)


def test_attacks(tmp_path: Path) -> None:
    content = run(tmp_path, "attacks")
    walls = {row["attack"]: row for row in content["wall"]}
    assert walls.keys() == MINIMUM_NORM | {f"adv-lib {name}" for name in MINIMUM_NORM} | {"pgd linf", "fgm linf"}
    strengths = {row["attack"]: row for row in content["strength"] if row["network"] == "digits"}
    assert strengths.keys() == MINIMUM_NORM | {f"adv-lib {name}" for name in MINIMUM_NORM}
    for row in walls.values():
        if row["attack"].startswith("adv-lib") and row["note"]:
            continue  # a missing peer says why
        assert positive(row["over_bare"], row["ms_a_step"], row["bare_ms_a_step"]), row
        assert row["forwards"] >= row["backwards"] >= row["steps"] - 1
    for row in strengths.values():
        if row["attack"].startswith("adv-lib") and row.get("note"):
            continue
        assert 0 <= row["success"] <= 1
        assert row["success"] == 0 or positive(row["mean"])
        assert row["backwards"] <= row["steps"] <= row["forwards"]


def test_suite(tmp_path: Path) -> None:
    content = run(tmp_path, "suite")
    rows = {row["attack"]: row for row in content["rows"]}
    assert rows.keys() == {entry.name for entry in (*suite_roster.FIRST_ORDER, *suite_roster.OTHERS)}
    for row in rows.values():
        assert positive(row["ms"], row["bare_ms"], row["over_bare"], row["over_bare_median"]), row
        assert row["forwards"] >= 1
        assert row["gradients"] >= 1 or not row["first_order"], row
    assert len(content["bars"]) == len(suite_roster.FIRST_ORDER)


def test_the_bare_loop_makes_the_passes_of_the_attack() -> None:
    model = torch.nn.Linear(4, 3)
    images = torch.rand(5, 4)

    point = images.repeat(2, 1).requires_grad_()

    recorded = Recorded(model)
    logits = recorded(point)
    torch.autograd.grad(logits.sum(), point, retain_graph=True)
    torch.autograd.grad(logits, point, torch.eye(3)[:, None].expand(3, 10, 3), is_grads_batched=True)
    recorded(images[:2])
    torch.autograd.grad(recorded(point).sum(), point)
    expected = [Pass(10, True, [0, 3]), Pass(2, False), Pass(10, True, [0])]
    assert recorded.passes == expected
    assert (recorded.forwards, recorded.gradients) == (22, 50)

    replayed = Recorded(model)
    bare_loop(Subject("", replayed, images, torch.zeros(5, dtype=torch.int64), ""), expected)()
    assert replayed.passes[1:] == expected  # the first call asks for the number of classes


def test_strength(tmp_path: Path) -> None:
    content = run(tmp_path, "strength", "--norms", "linf", "l0")
    assert [network["network"] for network in content["networks"]] == ["digits plain"]
    rows = {(row["norm"], row["attack"]): row for row in content["rows"]}
    expected = {(norm, row.name) for norm in ("linf", "l0") for row in roster.rows(norm)}
    assert rows.keys() == expected
    ran = [row for row in rows.values() if "success" in row]
    assert all(row["note"] for row in rows.values() if "success" not in row)  # a missing row says why
    assert {row["attack"] for row in ran} >= {"pdpgd", "fmn", "sigma_zero"}
    for row in ran:
        assert 0 <= row["success"] <= 1
        assert row["success"] == 0 or positive(row["mean"])
        assert row["forwards"] >= 1
    best = max(row["optimality"] for row in ran if row["norm"] == "linf")
    assert 0.5 < best <= 1
    assert len([line for line in content["bars"] if "spends as little" not in line["what"]]) == 5


def test_optimality_and_bars_of_known_distances() -> None:
    def row(attack: str, distances: list[float], gradients: float) -> dict[str, Any]:
        values = np.array(distances)
        share = float(np.isfinite(values).mean())
        return {"network": "n", "norm": "linf", "attack": attack, "peer": ":" in attack, "pinned": True,
                "distances": values, "gradients": gradients, "success": share}  # fmt: skip

    rows = [
        row("minimum_norm 50", [3.0, 2.0], 50),
        row("minimum_norm 1000", [1.0, 2.0], 1000),
        row("a:cheap", [2.0, 2.0], 60),
        row("a:dear", [2.0, 2.0], 1001),
        row("a:cheaper", [0.1, 0.1], 10),
        row("a:blind", [1.0, math.inf], 1001),
    ]
    by_name = {row["attack"]: row for row in rows}
    assert {peer: ratio for ratio, peer in compare(by_name)} == {"a:cheap": 1.25, "a:dear": 0.75, "a:blind": 1.0}
    assert uncompared(by_name) == ["a:cheaper"]
    told = [line for line in bars(rows) if "a:cheaper" in line["what"]]
    assert [(line["measured"], line["ok"]) for line in told] == [(None, None)]
    for norm in ("l1", "l0"):  # ours counts as its whole budget, to the percent
        for share, dear, blind in ((0.995, 0.75, 1.0), (0.985, 1.25, 3.0)):
            fewer = {n: {**row, "norm": norm, "gradients": share * row["gradients"]} for n, row in by_name.items()}
            ratios = {peer: ratio for ratio, peer in compare(fewer)}
            assert ratios == {"a:cheap": 1.25, "a:dear": dear, "a:blind": blind}
    by_name["minimum_norm 1000"]["success"] = 0.5
    assert {peer: ratio for ratio, peer in compare(by_name)}["a:dear"] == math.inf


def test_no_gpu_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "kernels", "--smoke", "--device", "cuda"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no GPU" in done.stderr
