"""The commands ``evaluate`` and ``compare``: options in, a live display and tables out."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

import pyrobust
from pyrobust._commands import built, import_from_here, interruptible, one_thread, trained
from pyrobust.analysis.console import app as analyse
from pyrobust.cli import print_info
from pyrobust.evaluation import display, options
from pyrobust.evaluation.compare import compare_runs
from pyrobust.evaluation.report import REPORT
from pyrobust.evaluation.runner import evaluate
from pyrobust.evaluation.store import MANIFEST, check_folder
from pyrobust.models import save_weights
from pyrobust.training.console import train_command, trained_on

WEIGHTS = "model.safetensors"

app = typer.Typer(
    name="pyrobust",
    help="Measure and improve the adversarial robustness of PyTorch classifiers.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def run(arguments: list[str]) -> int:
    """Run a command; returns the exit status. Wrong usage is told in one line; other errors are the caller's."""
    try:
        return app(args=arguments or ["--help"], prog_name="pyrobust", standalone_mode=False) or 0
    except typer.Abort as stop:
        raise KeyboardInterrupt from stop
    except Exception as error:
        # typer's usage errors come from click or, in newer versions, from its own copy of it: known by their method.
        if not hasattr(error, "format_message"):
            raise
        print(f"error: {error.format_message()} (see pyrobust --help)", file=sys.stderr)
        return 2


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pyrobust {pyrobust.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def info() -> None:
    """Print versions, how the native core was built, and the devices it sees."""
    print_info()


app.command("train")(train_command)
app.add_typer(analyse)


@app.command("evaluate")
def evaluate_command(
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of a network or package.module:factory; default: one trained on digits, or with --weights of "
            "`pyrobust train` the one it trained."
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights for it: safetensors, or a state dict saved by torch.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="NPZ file, name of one under $PYROBUST_DATA, or 'digits', with :A,B at the end for two of its classes; "
            "default: those that the network was trained on."
        ),
    ] = None,
    norm: Annotated[
        list[str] | None, typer.Option(help="linf, l2, l1 or l0; repeat it or separate by commas. Default: all.")
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="Name, module:function, or a peer's, as foolbox:LinfPGD; 'l2=NAME' for one norm; repeatable. "
            "Default: minimum-norm ones."
        ),
    ] = None,
    eps: Annotated[
        list[str] | None,
        typer.Option(help="Budgets, also the table's thresholds: 0.01,0.02; with several norms linf=0.01,0.02."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of each attack; default: its own.")] = None,
    budget: Annotated[
        int | None, typer.Option(help="Gradients a sample, of attacks that take it (minimum_norm); default: its own.")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Evaluate the first so many; default: all.")] = None,
    batch_size: Annotated[int, typer.Option(help="Samples a batch.")] = 128,
    device: Annotated[str | None, typer.Option(help="Default: a GPU where there is one, else the CPU.")] = None,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
    bounds: Annotated[str, typer.Option(help="Smallest and largest valid input value.")] = "0,1",
    check_masking: Annotated[
        int,
        typer.Option(
            help="Also attack the first so many samples without gradients, and warn where that does better; 64 tell "
            "much. Costs about 7000 (one norm) or 16000 (all four) predictions a sample."
        ),
    ] = 0,
    substitute: Annotated[
        str | None,
        typer.Option(help="For --check-masking: another network, as --model; what fools it is tried on the model."),
    ] = None,
    substitute_weights: Annotated[Path | None, typer.Option(help="Its weights, as --weights.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/NAME-TIME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Attack a network, verify what the attacks return, and write a robustness report.

    Without options it evaluates a small network, trained on the spot on scikit-learn's digits.
    """
    console = Console()
    import_from_here()
    if resume and out is None:
        raise ValueError("--resume needs --out, the folder of the run")
    if model is None and weights is not None:
        model, trained_data = trained_on(weights)
        data = data or trained_data
    if model is None and data is not None:
        raise ValueError("--model is missing: --data belongs to a model")
    if model is not None and data is None:
        raise ValueError("--data is missing: which data is the model to be evaluated on?")
    if substitute_weights is not None and substitute is None:
        raise ValueError("--substitute-weights: needs --substitute")
    norms = options.norms(norm)
    attacks = options.attacks(attack, norms)
    budgets = options.eps(eps)
    box = options.floats(bounds, "bounds")
    if len(box) != 2:
        raise ValueError(f"--bounds: expected two numbers such as 0,1, got {bounds!r}")
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name = "digits CNN" if model is None else model.rpartition(":")[2]
    folder = out or Path("runs") / f"{name.replace(' ', '-')}-{datetime.now():%Y%m%d-%H%M%S}"
    check_folder(folder, resume)
    with interruptible(folder, MANIFEST), one_thread(model is None):
        network = trained(seed, console) if model is None else built(model, weights, seed)
        other = None if substitute is None else built(substitute, substitute_weights, seed)
        with display.progress_display(console) as progress:
            report = evaluate(
                network.to(target),
                data or "digits",
                norms=norms,
                attacks=attacks,
                steps=steps,
                budget=budget,
                check_masking=check_masking,
                substitute=None if other is None else other.to(target),
                eps=budgets,
                samples=samples,
                batch_size=batch_size,
                device=target,
                seed=seed,
                bounds=(box[0], box[1]),
                out=folder,
                resume=resume,
                progress=progress,
                name=name,
            )
    if model is None:
        save_weights(network, folder / WEIGHTS)
    display.print_report(console, report)
    console.print(f"report: [bold]{os.fspath(folder / REPORT)}[/bold]", soft_wrap=True)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of two or more finished runs on the same data.")],
    out: Annotated[Path, typer.Option(help="Folder for the comparison.")] = Path("comparison"),
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples.")] = 2000,
    confidence: Annotated[float, typer.Option(help="Of the intervals, between 0 and 1.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Overlay the curves of runs, with paired bootstrap intervals and the crossings between them."""
    console = Console()
    comparison = compare_runs(runs, resamples=resamples, confidence=confidence, seed=seed)
    path = comparison.save(out)
    display.print_comparison(console, comparison)
    console.print(f"comparison: [bold]{os.fspath(path)}[/bold]", soft_wrap=True)
