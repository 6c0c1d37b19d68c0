"""What the Python functions cost beyond the native call, on a tensor too small to matter."""

from __future__ import annotations

import torch

from bench.cases import SIGMA, cases
from bench.native_replay import native_call
from bench.report import Row
from bench.timing import Contender, race

TINY = (2, 3, 4, 4)


def measure(device: torch.device, *, only: str = "", rounds: int = 30) -> list[Row]:
    """µs a call of each public function (checks, allocation, launch) and of the same native call into a given output.

    The functions and their native calls take turns; minima are compared.
    """
    torch.manual_seed(0)
    x = torch.randn(TINY, device=device) * SIGMA
    rows: list[Row] = []
    yardstick = race([Contender("torch", [lambda: torch.empty_like(x)])], device, rounds=rounds, sample_s=5e-4)["torch"]
    rows.append(
        {"op": "(torch.empty_like)", "function_us": yardstick.minimum * 1e6, "native_us": None, "overhead_us": None}
    )
    for case in cases():
        if only not in case.name:
            continue
        work = case.build(x)
        if not work.replays:
            continue
        contenders = [
            Contender("function", [work.run], work.reset),
            Contender("native", [native_call(work.run)], work.reset),
        ]
        # Short samples: many of them fit between two interruptions.
        best = {
            name: timing.minimum * 1e6
            for name, timing in race(contenders, device, rounds=rounds, sample_s=5e-4).items()
        }
        rows.append({
            "op": case.name, "function_us": best["function"], "native_us": best["native"],
            "overhead_us": best["function"] - best["native"],
        })  # fmt: skip
    return rows
