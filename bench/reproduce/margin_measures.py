"""What seed 003, chapter 3, measures of a network, and the rows of its tables: "paper / ours", then what is ours alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from bench.reproduce._common import broken, distances, table, wrong
from bench.reproduce._runs import Measures, Runs, number, relative


def measure(
    model: nn.Module,
    test: tuple[Tensor, Tensor],
    attacked: int,
    eps: float,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Measures:
    """Error and FGSM error on all test images, the rest on the first ``attacked``.

    ρ of eq. 3.20 is over images that are right; r by DeepFool with 50 steps of at most 0.5, as §3.5 has it, and for "nearest"
    by the better of that and DDN with 100 steps, image by image. PGD takes 20 steps within the budget of FGSM.
    """
    x, y = (part[:attacked] for part in test)
    deepfool = distances(model, x, y, "deepfool", norm="l2", steps=50, max_step=0.5, bounds=bounds)
    ddn = distances(model, x, y, "ddn", norm="l2", steps=100, bounds=bounds)
    fgsm = broken(model, *test, "fgm", norm="linf", eps=eps, bounds=bounds)
    pgd = broken(
        model, x, y, "pgd", norm="linf", eps=eps, steps=20, step_size=eps / 8, random_start=True, bounds=bounds
    )
    lengths = torch.linalg.vector_norm(x.double().flatten(1), dim=1).cpu().numpy()
    right = ~wrong(model, x, y)
    return {
        "error": 100 * float(wrong(model, *test).mean()),
        "fgsm": 100 * float(fgsm.mean()),
        "rho": relative(deepfool, lengths, right),
        "pgd": 100 * float(pgd.mean()),
        "found": 100 * float(np.isfinite(deepfool[right]).mean()) if right.any() else float("nan"),
        "nearest": relative(np.minimum(deepfool, ddn), lengths, right),
    }


def rows_of(
    title: str, rows: Mapping[str, Runs], printed: Mapping[str, tuple[str, str, str]], seeds: int, scale: int
) -> str:
    """A table in Markdown.

    Args:
        printed: the paper's error, FGSM error and ρ by row.
        seeds: trainings a row; those that diverged are told.
        scale: in units of 1 / scale are the printed ρ.
    """
    rho = f"{scale} ρ_adv"
    head = ["", "error %", "FGSM error %", rho, "PGD error %", "DeepFool finds %", f"{rho}, nearest"]
    lines = []
    for name, runs in rows.items():
        lost = f" ({seeds - len(runs)} of {seeds} diverged)" if len(runs) < seeds else ""
        own = number(runs, "error", 2), number(runs, "fgsm", 2), number(runs, "rho", 2, scale)
        both = [f"{paper} / **{ours}**" for paper, ours in zip(printed[name], own, strict=True)]
        alone = [number(runs, "pgd", 1), number(runs, "found", 1), number(runs, "nearest", 2, scale)]
        lines.append([name + lost, *both, *alone])
    return f"## {title}\n\n{table(head, lines)}"
