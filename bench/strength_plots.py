"""Accuracy over eps, a picture a norm and network."""

from __future__ import annotations

from pathlib import Path

from bench import report
from pyrobust.evaluation import metrics
from pyrobust.evaluation.plots import COLOURS, eps_label, panels, png, styled

LINES = 6


def draw(path: Path, rows: list[report.Row], title: str) -> None:
    """The best variant of each of our attacks in colour, of each peer in grey, the strongest few named; nothing without
    rows."""
    ran = [row for row in rows if "distances" in row]
    if not ran:
        return
    best: dict[str, report.Row] = {}
    for row in sorted(ran, key=lambda row: row.get("optimality") or 0.0):
        best[row["attack"].split(" ")[0]] = row
    ranked = sorted(best.values(), key=lambda row: row.get("optimality") or 0.0, reverse=True)
    # Where the strongest attack has long broken everything the weak ones alone go on.
    reach = 2 * metrics.largest_distance(ranked[0]["distances"])
    with styled():
        figure, (axis,) = panels([""], height=3.4)
        figure.set_figwidth(7.2)
        axis.set_title(title.replace(": ", "\n", 1), loc="left", fontsize=6.5)
        for peer, shades in (
            (True, ("#555555", "#777777", "#999999", "#aaaaaa", "#bbbbbb", "#cccccc")),
            (False, COLOURS),
        ):
            shown = [row for row in ranked if row["peer"] is peer][:LINES]
            for row, colour in reversed(list(zip(shown, shades, strict=False))):
                eps, accuracy = metrics.step_curve(row["distances"])
                label = f"{row['attack']} ({row.get('optimality') or 0.0:.3f})"
                line = "--" if peer else "-"
                axis.step(
                    [*eps, max(reach, eps[-1])],
                    [*(100 * accuracy), 100 * accuracy[-1]],
                    line,
                    where="post",
                    color=colour,
                    label=label,
                )
        axis.set_xlim(0, reach or 1)
        axis.set_ylim(0, 102)
        axis.set_xlabel(eps_label("l0" if title.startswith("l0") else ""))
        axis.set_ylabel("robust accuracy (%)")
        # Peers are drawn first, then ours, each from the weakest to the strongest; listed the other way round.
        handles = axis.get_legend_handles_labels()[0][::-1]
        figure.legend(
            handles=handles,
            loc="outside right center",
            fontsize=6,
            title="attack (optimality)",
            title_fontsize=6,
            frameon=False,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(figure))
