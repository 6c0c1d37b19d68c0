"""What every command ``analyse …`` does: shared options in, a live display, a folder with a page out."""

from __future__ import annotations

import hashlib
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table as Grid
from torch import nn

from pyrobust._checks import check_inputs, check_labels
from pyrobust._commands import built, import_from_here, interruptible, one_thread, trained
from pyrobust._progress import Progress
from pyrobust.analysis.jacobian import layer_outputs
from pyrobust.analysis.page import Section, Table, write_page
from pyrobust.analysis.session import Session
from pyrobust.analysis.work import PARTS, Work
from pyrobust.data import Data, load
from pyrobust.evaluation.environment import describe
from pyrobust.evaluation.formatting import date
from pyrobust.evaluation.store import MANIFEST, Store, check_folder
from pyrobust.evaluation.subject import device_of, hash_model, hash_tensors
from pyrobust.models import small_cnn
from pyrobust.training.console import trained_on

Sections = Callable[..., list[Section]]

app = typer.Typer(
    name="analyse",
    help="Answer why a network is, or is not, robust: numbers (JSON), pictures (PNG) and one HTML page.",
    rich_markup_mode=None,
)


def common(
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of a network or package.module:factory; default: a small one trained on digits, or with --weights of "
            "`pyrobust train` the one it trained."
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights for it: safetensors, or a state dict saved by torch.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="NPZ file, name of one under $PYROBUST_DATA, or 'digits', with :A,B at the end for two of its classes; default: "
            "those that the network was trained on."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="Analyse the first so many of the test part.")] = 100,
    batch_size: Annotated[int, typer.Option(help="Samples a batch.")] = 128,
    device: Annotated[str | None, typer.Option(help="Default: a GPU where there is one, else the CPU.")] = None,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the analysis; default: runs/WHAT-NAME-TIME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the analysis in --out.")] = False,
) -> dict[str, Any]:
    """The options of every command, checked as far as they can be without the model."""
    given = dict(locals())
    if resume and out is None:
        raise ValueError("--resume needs --out, the folder of the analysis")
    for name, value in (("--samples", samples), ("--batch-size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if seed < 0:
        raise ValueError(f"--seed: expected at least 0, got {seed}")
    if weights is not None and model is None:
        given["model"], trained_data = trained_on(weights)
        given["data"] = data or trained_data
    return given


def command(
    what: str, sections: Callable[..., Sections], needs_model: bool = True,
    files: Callable[[Mapping[str, Any]], Sequence[Path]] = lambda options: (),
) -> None:  # fmt: skip
    """Add a command.

    Args:
        what: its name.
        sections: a function of the command's own options, whose docstring is the help; it returns the function that makes
            sections from a session.
        needs_model: False: it works on the data alone, its training part included, and takes no model.
        files: from its own options to the files that they name: a run is not resumed once one of them has changed.
    """
    own = list(inspect.signature(sections, eval_str=True).parameters.values())
    shared = [
        parameter
        for parameter in inspect.signature(common, eval_str=True).parameters.values()
        if needs_model or parameter.name not in ("model", "weights")
    ]

    def run(**given: Any) -> None:
        options = {parameter.name: given[parameter.name] for parameter in own}
        shared_options = common(**{parameter.name: given[parameter.name] for parameter in shared})
        _analyse(what, sections(**options), options, needs_model, files(options), **shared_options)

    run.__doc__ = sections.__doc__
    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    app.command(what)(run)


def _analyse(
    what: str, sections: Sections, options: Mapping[str, Any], needs_model: bool, files: Sequence[Path], samples: int,
    batch_size: int, device: str | None, seed: int, out: Path | None, resume: bool, model: str | None = None,
    weights: Path | None = None, data: str | None = None,
) -> None:  # fmt: skip
    console = Console()
    import_from_here()
    source = load(data or "digits")
    name = (model or "digits CNN").rpartition(":")[2] if needs_model else ""
    parts = [what, *name.split(), source.name, f"{datetime.now():%Y%m%d-%H%M%S}"]
    folder = out or Path("runs") / "-".join(parts)
    check_folder(folder, resume)
    target = device_of(nn.Identity(), device or ("cuda" if torch.cuda.is_available() else "cpu"))
    inputs, labels = (part[:samples].to(target) for part in source.test)
    check_inputs(inputs, (0.0, 1.0))
    check_labels(labels, inputs)
    used = [("inputs", inputs), ("labels", labels)]
    if not needs_model and source.train is not None:
        used += zip(("train inputs", "train labels"), source.train, strict=True)
    on_digits = needs_model and model is None and source.name == "digits"
    if on_digits:
        layer_outputs(small_cnn(), options.get("layer"))  # has it such a layer? Training takes seconds
    try:
        with interruptible(folder, MANIFEST), one_thread(on_digits):
            network = _network(model, weights, seed, console, source) if needs_model else nn.Identity()
            network.to(target)
            settings = {
                "analysis": what,
                "options": {key: str(value) for key, value in options.items() if value is not None},
                "files_sha256": [hashlib.sha256(file.read_bytes()).hexdigest() for file in files],
                "model_sha256": hash_model(network),
                "data_sha256": hash_tensors(used),
                "samples": len(labels),
                "batch_size": batch_size,
                "seed": seed,
            }
            kept = Store.open(folder, _manifest(settings, target), resume).manifest
            with _display(console) as progress:
                work = Work(folder, progress)
                made = sections(Session(network, name, source, inputs, labels, target, seed, batch_size, work))
            heading = f"{what.capitalize()}: " + (f"{name} on {source.name}" if needs_model else source.name)
            subtitle = f"pyrobust {kept['environment']['pyrobust']} · {date(kept['started'])}"
            rows = _setting_rows(kept, name, source.name)
            page = write_page(folder, heading, made, rows, kept["environment"], subtitle)
    except ValueError:
        if not (folder / PARTS).exists():  # so that the corrected command may use the folder
            (folder / MANIFEST).unlink(missing_ok=True)
        raise
    for section in made:
        if section.table is not None:
            _print_table(console, section.title, section.table)
    console.print(f"page: [bold]{os.fspath(page)}[/bold]", soft_wrap=True)


def _manifest(settings: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        "settings": settings,
        "environment": describe(device),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _print_table(console: Console, title: str, table: Table) -> None:
    shown = Grid(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left", title_style="bold", show_edge=False)
    for number, column in enumerate(table.columns):
        shown.add_column(escape(column), justify="right" if number else "left", no_wrap=not number)  # names stay whole
    for row in table.rows:
        shown.add_row(*map(escape, row))
    console.print(shown)


def _setting_rows(manifest: Mapping[str, Any], model: str, data: str) -> list[tuple[str, str]]:
    """Everything that is needed to repeat the analysis, as (name, value)."""
    settings = manifest["settings"]
    return [
        *([("model", f"{model}, weights and structure SHA-256 {settings['model_sha256'][:16]}")] if model else []),
        ("data", f"{data}, SHA-256 {settings['data_sha256'][:16]}"),
        ("samples", str(settings["samples"])),
        ("batch size", str(settings["batch_size"])),
        *((key.replace("_", " "), value) for key, value in settings["options"].items()),
        ("seed", str(settings["seed"])),
        ("started", manifest["started"]),
        ("command", shlex.join(manifest["command"])),
        ("fingerprint", manifest["fingerprint"][:16]),
    ]


def _network(reference: str | None, weights: Path | None, seed: int, console: Console, source: Data) -> nn.Module:
    if reference is not None:
        return built(reference, weights, seed)
    if source.name != "digits":
        raise ValueError(f"--model is missing: the default network is for digits, not for {source.name}")
    return trained(seed, console)


@contextmanager
def _display(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A live line a computation: a bar over its units, and the time left."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    lines = {}
    with Bar(*columns, console=console, transient=True) as bar:

        def show(progress: Progress) -> None:
            if progress.title not in lines:
                lines[progress.title] = bar.add_task(progress.title, total=progress.total)
            bar.update(lines[progress.title], completed=progress.done)

        yield show
