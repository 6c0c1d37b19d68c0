"""What the Python functions cost beyond the native call, on a tensor too small to matter."""

from __future__ import annotations

import math

import torch

from bench.cases import SIGMA, cases
from bench.native_replay import native_call
from bench.report import Row
from bench.timing import Contender, race

TINY = (2, 3, 4, 4)
YARDSTICK = "(torch.empty_like)"


def measure(device: torch.device, *, only: str = "", rounds: int = 30, passes: int = 4) -> list[Row]:
    """µs a call of each public function (checks, allocation, launch) and of the same native call into a given output.

    The functions and their native calls take turns; minima are compared, over several passes through the whole list: a
    shared machine slows its clock for seconds at a time.
    """
    torch.manual_seed(0)
    x = torch.randn(TINY, device=device) * SIGMA
    races: dict[str, list[Contender]] = {YARDSTICK: [Contender("function", [lambda: torch.empty_like(x)])]}
    for case in cases():
        work = case.build(x) if only in case.name else None
        if work is not None and work.replays:
            races[case.name] = [
                Contender("function", [work.run], work.reset),
                Contender("native", [native_call(work.run)], work.reset),
            ]
    best: dict[str, dict[str, float]] = {name: {} for name in races}
    for _ in range(passes):
        for name, contenders in races.items():
            # Short samples: many of them fit between two interruptions.
            for which, timing in race(contenders, device, rounds=rounds, sample_s=5e-4).items():
                best[name][which] = min(best[name].get(which, math.inf), timing.minimum * 1e6)
    rows: list[Row] = []
    for name, found in best.items():
        native = found.get("native")
        rows.append({
            "op": name, "function_us": found["function"], "native_us": native,
            "overhead_us": None if native is None else found["function"] - native,
        })  # fmt: skip
    return rows
