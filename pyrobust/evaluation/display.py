"""What the terminal shows: the progress of a run, and its tables at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from pyrobust._progress import Progress
from pyrobust.evaluation import formatting
from pyrobust.evaluation.report import COLUMNS, result_rows
from pyrobust.evaluation.results import Report

if TYPE_CHECKING:
    from pyrobust.evaluation.compare import Comparison


@contextmanager
def progress_display(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A live line: what is running, a bar, samples a second since this start, and the time left."""
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        expand=True,
    )
    started = time.monotonic()
    line = bar.add_task("starting", total=None, rate="")

    def show(progress: Progress) -> None:
        if not bar.live.is_started:
            bar.start()  # only now, so that an error before the first sample leaves no empty bar
        rate = (progress.done - progress.resumed) / max(time.monotonic() - started, 1e-9)
        bar.update(
            line,
            description=f"{progress.title:<24}",
            completed=progress.done,
            total=progress.total,
            rate=f"{rate:.0f} samples/s",
        )

    try:
        yield show
    finally:
        bar.stop()


def print_report(console: Console, report: Report) -> None:
    """The result table and the warnings."""
    settings = report.manifest["settings"]
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{report.manifest['model']} on {report.manifest['data']}: clean accuracy "
        f"{formatting.percent(report.clean_accuracy)} of {settings['samples']} samples",
        title_justify="left",
        title_style="bold",
        caption="On the right: robust accuracy, with its eps below, and what the attack asked for, a sample.",
        caption_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("norm\nattack", overflow="fold")  # the one to give way where the terminal is narrow
    for name in ("success", "median\nmean", *[""] * COLUMNS, "gradients\nforwards"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result_rows(report):
        cells = [
            (f"[bold]{row['norm']}[/bold]", escape(row["attack"])),
            (row["success_rate"], ""),
            (row["median"], row["mean"]),
            *[(accuracy, eps) for eps, accuracy in row["accuracies"]],
            (row["gradients"], row["forwards"]),
        ]
        table.add_row(*[f"{upper}\n[dim]{lower}[/dim]" for upper, lower in cells])
    console.print(table)
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """A table a norm, with intervals of the differences to the first run, then the crossings and the warnings."""
    for part in comparison.norms:
        table = Table(box=box.SIMPLE_HEAD, title=part.norm, title_justify="left", title_style="bold", padding=(0, 1))
        table.add_column("")
        for name in comparison.runs:
            table.add_column(name, justify="right")
        for measure, cells in part.rows:
            shown = [f"{value}\n[dim]{escape(change)}[/dim]" if change else value for value, change in cells]
            table.add_row(measure, *shown)
        console.print(table)
        for crossing in part.crossings:
            console.print(escape(crossing), highlight=False)
    for warning in comparison.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False)
