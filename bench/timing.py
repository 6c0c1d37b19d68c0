"""The one timing helper: interleaved rounds over all contenders, warm-up, minimum and median over the rounds."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Call = Callable[[], Any]


@dataclass
class Contender:
    """Something to time.

    Attributes:
        name: unique within a race.
        calls: the same work on one or more sets of inputs, in turn; several, so that a GPU's L2 holds none of them.
        reset: run before each sample, untimed: puts back the state that the calls change.
        optional: a peer or baseline; when its warm-up raises, the race goes on and reports why.
        budget: seconds that all its samples may take; a slow contender takes part in fewer rounds, but in one at least.
    """

    name: str
    calls: Sequence[Call]
    reset: Call | None = None
    optional: bool = False
    budget: float = 10.0


@dataclass
class Timing:
    """Seconds a call: minimum and median over the rounds; or ``error``, why there are none."""

    minimum: float = float("nan")
    median: float = float("nan")
    rounds: int = 0
    repeats: int = 0
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {"skipped": self.error}
        return {"min_s": self.minimum, "median_s": self.median, "rounds": self.rounds, "repeats": self.repeats}


def race(
    contenders: Sequence[Contender],
    device: torch.device,
    *,
    rounds: int = 10,
    sample_s: float = 2e-3,
    max_repeats: int = 10_000,
    flush: torch.Tensor | None = None,
) -> dict[str, Timing]:
    """Time all contenders, a sample each a round, so that a noisy minute hits all of them alike.

    Args:
        contenders: in the order in which each round runs them.
        device: on "cuda" a sample is timed with CUDA events, on the current stream.
        rounds: samples a contender, unless its budget ends before.
        sample_s: a sample repeats its call until it lasts about this long.
        max_repeats: upper limit of that.
        flush: a tensor larger than the last-level cache, overwritten before each call; then a sample is one call.
    """
    results = {contender.name: Timing() for contender in contenders}
    repeats: dict[str, int] = {}
    limits: dict[str, int] = {}
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        try:
            once = 0.0
            for _ in range(3):  # the first call compiles and allocates; long ones are not repeated
                once = _sample(contender, device, 1, flush)
                if once > 0.5:
                    break
        except Exception as error:
            if not contender.optional:
                raise
            results[contender.name].error = _told(error)
            continue
        if once > contender.budget:  # its warm-up is all that it gets
            samples[contender.name].append(once)
            repeats[contender.name] = 1
            continue
        wanted = sample_s / max(once, 1e-9) if flush is None else 1
        repeats[contender.name] = max(1, min(max_repeats, round(wanted)))
        cost = max(once * repeats[contender.name], 1e-9)
        limits[contender.name] = max(1, int(min(rounds, contender.budget / cost)))
    for number in range(rounds):
        for contender in contenders:
            if number < limits.get(contender.name, 0):
                samples[contender.name].append(_sample(contender, device, repeats[contender.name], flush))
    for name, taken in samples.items():
        if taken:
            results[name] = Timing(min(taken), statistics.median(taken), len(taken), repeats[name])
    return results


def keep_memory() -> bool:
    """Tell glibc to keep what is freed, for the rest of the process; False where there is no glibc.

    By default it returns large blocks to the system and faults them in again, page by page. When it does so depends on all
    that was allocated before: of two loops of the same passes through a model either may take 40 % longer than the other.
    """
    mmap_max, trim_threshold = -4, -1  # of malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:200]}"


def _sample(contender: Contender, device: torch.device, repeats: int, flush: torch.Tensor | None) -> float:
    """Seconds a call, over ``repeats`` calls."""
    if contender.reset is not None:
        contender.reset()
    if flush is not None:
        flush.add_(1)
    # With several input sets their results are held, so that outputs rotate through memory as the inputs do.
    calls, held = contender.calls, [None] * len(contender.calls)
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        for i in range(repeats):
            held[i % len(calls)] = calls[i % len(calls)]()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3 / repeats
    call = calls[0]
    began = time.perf_counter_ns()
    for _ in range(repeats):
        call()
    return (time.perf_counter_ns() - began) / 1e9 / repeats
