"""The tables in Markdown, paper / ours, and their numbers for the JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bench import report
from bench.reproduce._common import table
from bench.reproduce.pdpgd_attacks import Column
from bench.reproduce.pdpgd_paper import Block
from pyrobust.evaluation import metrics

Cells = list[tuple[Column, dict[str, Any]]]


def accuracies(network: str, block: Block, cells: Cells) -> tuple[list[report.Row], str]:
    """Robust accuracy in % at the printed thresholds; where none can be read, at round ones up to our largest norms."""
    names = block.rows or tuple(f"{at:g}" for at in _own_thresholds(block.norm, cells))
    thresholds = block.thresholds or tuple(float(name) for name in names)
    rows = []
    for column, result in cells:
        if "accuracies" in result:
            measured = result["accuracies"]
        else:
            measured = [metrics.robust_accuracy(np.array(result["distances"]), at) for at in thresholds]
        for name, value in zip(names, measured, strict=True):
            paper = block.number(column.label, name)
            rows.append(_row(block, network, column, paper, 100 * value, result, threshold=name))
    rows += _paper_alone(block, {column.label for column, _ in cells}, "threshold", network)
    title = f"{block.norm}: robust accuracy (%) of {network} at the thresholds on top"
    note = "" if block.rows else "; those of the paper cannot be read, these are round ones"
    return rows, _shown(title + note, rows, "threshold", names, 1)


def means(
    block: Block, networks: tuple[str, ...], cells: dict[str, Cells], correct: dict[str, np.ndarray]
) -> tuple[list[report.Row], str]:
    """Mean norm of the successful perturbations of images that were right, with the share of successes.

    The paper gives one number an attack; ours with any number of restarts stand beside it.
    """
    rows = []
    for network, measured in cells.items():
        for column, result in measured:
            if "distances" in result:
                distances = np.array(result["distances"])
                paper = block.number(column.family, network)
                mean = metrics.mean_distance(correct[network], distances)
                success = metrics.success_rate(correct[network], distances)
                rows.append(_row(block, network, column, paper, mean, result, success=success))
    rows += _paper_alone(block, {row["attack"].split("-")[0] for row in rows}, "network")
    shown = tuple(network for network in networks if network in cells)
    return rows, _shown(f"{block.norm}: mean norm (and share of successes, where not all)", rows, "network", shown, 3)


def _own_thresholds(norm: str, cells: Cells) -> tuple[float, ...]:
    best = np.minimum.reduce([result["distances"] for _, result in cells if "distances" in result])
    return metrics.round_thresholds(best, norm == "l0")


def _row(
    block: Block,
    network: str,
    column: Column,
    paper: float | None,
    measured: float | None,
    result: dict[str, Any],
    **place: Any,
) -> report.Row:
    spent = {key: result[key] for key in ("gradients", "forwards", "seconds")}
    return {
        "table": block.table,
        "norm": block.norm,
        "network": network,
        "attack": column.label,
        "ours": f"{column.attack} {column.variant}",
        "paper": paper,
        "measured": measured,
        **place,
        **spent,
        "step_size": result.get("step_size"),
        "commit": result.get("commit"),
    }


def _paper_alone(block: Block, have: set[str], place: str, network: str = "") -> list[report.Row]:
    """What the paper has and we have not."""
    return [
        {"table": block.table, "norm": block.norm, "network": network, "attack": attack, "ours": None, place: name,
         "paper": block.number(attack, name), "measured": None}
        for attack in block.columns if attack not in have for name in block.rows
    ]  # fmt: skip


def _shown(title: str, rows: list[report.Row], place: str, names: tuple[str, ...], digits: int) -> str:
    lines: dict[tuple[str, str | None], dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault((row["attack"], row["ours"]), {})
        measured = _number(row["measured"], digits)
        if measured != "–":
            measured = f"**{measured}**"
        if row.get("success") is not None and row["success"] < 1:
            measured += f" ({100 * row['success']:.0f} %)"
        line[row[place]] = f"{_number(row['paper'], digits)} / {measured}"
        if row.get("gradients") is not None:
            line.setdefault("gradients", f"{row['gradients']:.0f}")
    cells = [
        [attack, ours or "not run", *(line.get(name, "–") for name in (*names, "gradients"))]
        for (attack, ours), line in lines.items()
    ]
    return f"{title}\n\n{table(['attack', 'ours', *names, 'gradients'], cells)}\n"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"
