"""``python -m bench kernels``: every row op against memory copies and plain PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench import cases as declared
from bench import environment, overhead, report
from bench.cases import Case, Work
from bench.native_replay import native_call
from bench.report import Row
from bench.timing import Contender, Timing, keep_memory, race

Shape = tuple[int, ...]
BAR_SHAPES: tuple[Shape, ...] = ((1000, 1, 28, 28), (256, 3, 32, 32), (16, 3, 224, 224))
BEYOND_CACHE: Shape = (8192, 3, 32, 32)  # 96 MiB in float32
SMOKE_SHAPES: tuple[Shape, ...] = ((16, 1, 28, 28), (4, 3, 32, 32))
GPU_PLANES = ((1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 128, 128), (3, 224, 224))
GPU_BYTES = 256 << 20

ELEMENTWISE = ("dual_normalize p=2", "dual_normalize p=inf", "prox_l1", "prox_l2", "prox_l0", "prox_l0_group")
ON_CHIP = ("project_l1_ball", "prox_linf", "dual_normalize", "pdpgd_step")


@dataclass(frozen=True)
class Settings:
    """rounds and seconds a sample of the race; ``compile``: False, or why not, as text."""

    device: torch.device
    dtype: torch.dtype
    rounds: int
    sample_s: float
    budget_s: float
    no_compile: str


def run(
    device: torch.device, *, smoke: bool, dtype: str = "float32", only: str = "", compiled: bool = True, rounds: int = 0
) -> dict[str, Any]:
    """Time, print, and return what goes into the JSON."""
    why = "--smoke" if smoke else "--no-compile" if not compiled else _inductor_problem(device)
    rounds = rounds or (2 if smoke else 10)
    kept = keep_memory()
    settings = Settings(device, getattr(torch, dtype), rounds, 2e-4 if smoke else 5e-3, 0.2 if smoke else 6.0, why)
    shapes = SMOKE_SHAPES if smoke else _shapes(device, settings.dtype)
    chosen = [case for case in declared.cases() if only in case.name]
    rows: list[Row] = []
    for shape in shapes:
        here = [_measure(case, shape, settings, cold=False) for case in chosen]
        if not smoke and device.type == "cpu" and shape in BAR_SHAPES:
            here += [_measure(case, shape, settings, cold=True) for case in chosen if case.name == "project_l1_ball"]
        rows += here
        _show(here, f"{shape[0]} × {math.prod(shape[1:])} {dtype} on {environment.processor(device)}")
    calls = overhead.measure(device, only=only, **({"rounds": 3, "passes": 1} if smoke else {}))
    report.table(
        "Eager overhead of the Python function over the native call",
        calls,
        ("op", "function_us", "native_us", "overhead_us"),
    )
    bars = _bars(rows, calls, device)
    if only:
        bars = [bar for bar in bars if bar["ok"] is not None]
    report.show_bars(bars)
    return {"memory_kept": kept, "rows": rows, "overhead": calls, "bars": bars}


def _shapes(device: torch.device, dtype: torch.dtype) -> list[Shape]:
    if device.type == "cpu":
        return [*BAR_SHAPES, BEYOND_CACHE]
    size = dtype.itemsize
    return [*BAR_SHAPES, *((-(-GPU_BYTES // (math.prod(plane) * size)), *plane) for plane in GPU_PLANES)]


def _inductor_problem(device: torch.device) -> str:
    """Why torch.compile does not work here; empty where it does."""
    try:
        torch.compile(lambda x: x.abs() + 1)(torch.ones(8, device=device))
    except Exception as error:
        return f"torch.compile fails here: {type(error).__name__}"
    return ""


def _inputs(shape: Shape, settings: Settings, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return (torch.randn(shape, device=settings.device) * declared.SIGMA).to(settings.dtype)


def _measure(case: Case, shape: Shape, settings: Settings, cold: bool) -> Row:
    """Race one op at one shape against copies and its reference."""
    device = settings.device
    size = math.prod(shape) * settings.dtype.itemsize
    sets = 1
    if device.type == "cuda":  # so that no set is still in the L2 when its turn comes again
        sets = max(1, -(-4 * environment.cache_bytes(device) // (size * case.moves)))
    tensors = [_inputs(shape, settings, seed) for seed in range(sets)]
    works = [case.build(x) for x in tensors]
    row: Row = {
        "op": case.name,
        "shape": [shape[0], math.prod(shape[1:])],
        "cache": "cold" if cold else "warm",
        "bytes": size * case.moves,
    }
    timings = race(
        _contenders(case, works, tensors, settings),
        device,
        rounds=settings.rounds,
        sample_s=settings.sample_s,
        flush=torch.zeros(environment.cache_bytes(device) // 2) if cold else None,  # float32: twice the cache
    )
    if settings.no_compile:
        timings["compile"] = Timing(error=settings.no_compile)
    if works[0].reference is None:
        timings["eager"] = timings["compile"] = Timing(error=works[0].why)
    torch.compiler.reset()
    row["times"] = {name: timing.to_json() for name, timing in timings.items()}
    best = {name: timing.minimum for name, timing in timings.items()}
    kernel = best.get("native", best["pyrobust"])
    row["gb_s"] = row["bytes"] / kernel / 1e9
    row["share"] = (row["bytes"] / kernel) / (2 * size / best["copy_"])
    row["x_copy"] = kernel / best["copy_"]
    row["function_x_copy"] = best["pyrobust"] / best["copy_"]
    row["function_x_clone"] = best["pyrobust"] / best["clone"]
    for name in ("eager", "compile", "sort"):
        row[f"{name}_x"] = best[name] / best["pyrobust"] if name in best and math.isfinite(best[name]) else None
    reasons: dict[str, list[str]] = {}
    for name, timing in timings.items():
        if timing.error:
            reasons.setdefault(timing.error, []).append(name)
    row["note"] = "; ".join(f"no {' or '.join(names)}: {reason}" for reason, names in reasons.items())
    return row


def _contenders(case: Case, works: list[Work], tensors: list[Tensor], settings: Settings) -> list[Contender]:
    copies = [torch.empty_like(x) for x in tensors]
    pairs = list(zip(copies, tensors, strict=True))
    first = works[0]

    def reset() -> None:
        for work in works:
            assert work.reset is not None
            work.reset()

    back = reset if first.reset is not None else None
    found = [
        Contender("copy_", [lambda y=y, x=x: y.copy_(x) for y, x in pairs]),
        Contender("clone", [x.clone for x in tensors]),
        Contender("pyrobust", [work.run for work in works], back),
    ]
    if (
        settings.device.type == "cpu" and first.replays
    ):  # a GPU's allocator keeps memory, so there the function itself is timed
        found.append(Contender("native", [native_call(first.run)], back))
    function = first.reference
    if function is not None:
        calls = [lambda f=function, a=work.args: f(*a) for work in works]
        found.append(Contender("eager", calls, back, optional=True, budget=settings.budget_s))
        if not settings.no_compile:
            compiled = torch.compile(function, dynamic=False)
            calls = [lambda f=compiled, a=work.args: f(*a) for work in works]
            found.append(Contender("compile", calls, back, optional=True, budget=settings.budget_s))
    if case.name == "project_l1_ball":
        rows = [(x.flatten(1), declared.l1_radius(x)) for x in tensors]
        calls = [lambda x=x, r=r: declared.sort_projection(x, r) for x, r in rows]
        found.append(Contender("sort", calls, optional=True, budget=settings.budget_s))
    return found


def _show(rows: list[Row], title: str) -> None:
    columns = {
        "op": "op", "cache": "cache", "gb_s": "GB/s", "share": "share of copy", "x_copy": "kernel/copy_",
        "function_x_copy": "function/copy_", "function_x_clone": "function/clone", "eager_x": "eager/ours",
        "compile_x": "compile/ours", "sort_x": "sort/ours",
    }  # fmt: skip
    report.table(title, [{columns[key]: row.get(key) for key in columns} for row in rows], list(columns.values()))
    report.notes(rows)


def _bars(rows: list[Row], calls: list[Row], device: torch.device) -> list[Row]:
    """The issue's table, as far as it is about kernels."""
    found: list[Row] = []

    def row_of(op: str, shape: Shape, cache: str = "warm") -> Row:
        wanted = (op, [shape[0], math.prod(shape[1:])], cache)
        return next((row for row in rows if (row["op"], row["shape"], row["cache"]) == wanted), {})

    if device.type == "cpu":
        for shape in BAR_SHAPES:
            size = f"{shape[0]}×{math.prod(shape[1:])}"
            row = row_of("project_l1_ball", shape)
            found.append(report.bar(f"project_l1_ball {size}: sort / ours", 100, row.get("sort_x"), at_least=True))
            found.append(report.bar(f"project_l1_ball {size}: ours / copy_", 5, row.get("function_x_copy")))
        for op in ELEMENTWISE:
            row = row_of(op, BEYOND_CACHE)
            found.append(report.bar(f"{op}, beyond cache: kernel / copy_", 1.6, row.get("x_copy")))
            found.append(
                report.bar(f"{op}, beyond cache: function / clone (both allocate)", 1.6, row.get("function_x_clone"))
            )
    else:
        for row in rows:
            if row["op"].startswith(ON_CHIP) and row["shape"][0] * row["shape"][1] * 4 >= GPU_BYTES:
                size = f"{row['shape'][0]}×{row['shape'][1]}"
                found.append(
                    report.bar(f"{row['op']} {size}: share of copy bandwidth", 0.8, row["share"], at_least=True)
                )
    worst = max(
        (call for call in calls if call["overhead_us"] is not None), key=lambda call: call["overhead_us"], default=None
    )
    name = f"eager overhead, worst op ({worst['op']}), µs" if worst else "eager overhead, µs"
    found.append(report.bar(name, 5, worst["overhead_us"] if worst else None))
    return found
