"""The command ``train``: options in, a live display, a run folder out."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pyrobust._checks import norm_name
from pyrobust._commands import import_from_here, interruptible
from pyrobust.data import FlipAndShift, load
from pyrobust.evaluation.environment import describe
from pyrobust.evaluation.options import norms
from pyrobust.evaluation.store import write_json
from pyrobust.models import save_weights, with_dropout
from pyrobust.models.reference import build_model
from pyrobust.training.catalogue import DEFAULT_EPS, OBJECTIVES, make_objective, options_of
from pyrobust.training.checkpoint import CHECKPOINT
from pyrobust.training.distributed import World, process_group
from pyrobust.training.logs import History, Row
from pyrobust.training.recipe import Recipe
from pyrobust.training.trainer import OnLog, train
from pyrobust.training.validation import Validation, accuracies

WEIGHTS = "weights.safetensors"
SUMMARY = "summary.json"
DEFAULT_MODEL, DEFAULT_DATA = "small_cnn", "digits"
DEFAULT_LR, LINEAR_LR = 2e-3, 0.05  # weights of a linear model have further to go
LINEAR_MODEL, LINEAR_DATA = "digits_linear", "digits:7,3"  # of the objective for linear models of two classes


def train_command(
    objective: Annotated[str, typer.Option(help=f"What is minimised: {', '.join(OBJECTIVES)}.")] = "cross-entropy",
    norm: Annotated[
        str | None, typer.Option(help="Of the perturbations: linf, l2 or l1; default: the objective's.")
    ] = None,
    eps: Annotated[
        float | None, typer.Option(help="Their size; default where one is needed: linf 0.1, l2 0.5, l1 2.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Of the objective's inner search; default: the objective's.")
    ] = None,
    weight: Annotated[float | None, typer.Option(help="Of a penalty, beside the classification loss.")] = None,
    loss: Annotated[
        str | None, typer.Option(help="Classification loss beside a penalty: cross-entropy (default) or hinge.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Any other option of the objective, as name=value; repeatable.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"Name of a network, or package.module:factory; default: {DEFAULT_MODEL}, linear-worst-case: {LINEAR_MODEL}."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="NPZ file, name of one under $PYROBUST_DATA, or 'digits', with :A,B at the end for two of its classes; "
            f"default: {DEFAULT_DATA}, linear-worst-case: {LINEAR_DATA}."
        ),
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of every hidden dense layer's units.")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 30,
    batch_size: Annotated[int, typer.Option(help="Samples a step, over all processes.")] = 64,
    optimizer: Annotated[str, typer.Option(help="sgd, adam or adamw.")] = "adam",
    lr: Annotated[
        float | None,
        typer.Option(help=f"Initial step size; default: {DEFAULT_LR:g}, linear-worst-case: {LINEAR_LR:g}."),
    ] = None,
    momentum: Annotated[float, typer.Option(help="Of SGD; Adam's first beta.")] = 0.9,
    weight_decay: Annotated[float, typer.Option(help="Of the optimiser.")] = 0.0,
    schedule: Annotated[str, typer.Option(help="cosine, steps or constant.")] = "cosine",
    clip: Annotated[float | None, typer.Option(help="Largest l2 norm of the gradient.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of averaged weights, such as 0.999.")] = None,
    amp: Annotated[str | None, typer.Option(help="bfloat16, or float16 on a GPU.")] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Run the network through torch.compile.")] = False,
    flip: Annotated[bool, typer.Option("--flip", help="Mirror training images at random.")] = False,
    shift: Annotated[int, typer.Option(help="Move training images by up to so many pixels at random.")] = 0,
    validation: Annotated[float, typer.Option(help="Share of the training set that is held out.")] = 0.1,
    validation_norm: Annotated[
        str | None, typer.Option(help="Of the attack on the held-out and test samples; default: the objective's.")
    ] = None,
    validation_eps: Annotated[
        float | None, typer.Option(help="Its size; default: the objective's, or linf 0.1, l2 0.5, l1 2.")
    ] = None,
    validation_steps: Annotated[int, typer.Option(help="Its steps (PGD).")] = 10,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better robust validation accuracy.")
    ] = None,
    keep_best: Annotated[
        bool, typer.Option("--keep-best", help="Keep the epoch of the best robust validation accuracy, not the last.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="Default: a GPU where there is one, else the CPU.")] = None,
    seed: Annotated[int, typer.Option(help="Of the initial weights and all randomness.")] = 0,
    checkpoint_minutes: Annotated[float, typer.Option(help="Time between checkpoints.")] = 5.0,
    log_every: Annotated[int, typer.Option(help="Steps between rows of the log.")] = 50,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/NAME-OBJECTIVE-TIME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in --out.")] = False,
) -> None:
    """Train a robust network, and write its weights, logs and accuracies.

    Without options: a small network on scikit-learn's digits. Under torchrun, every process takes its share of each batch.
    """
    linear = objective == "linear-worst-case"
    model = model or (LINEAR_MODEL if linear else DEFAULT_MODEL)
    data = data or (LINEAR_DATA if linear else DEFAULT_DATA)
    if lr is None:
        lr = LINEAR_LR if linear else DEFAULT_LR
    arguments = {key: value for key, value in locals().items() if key != "linear"}
    console = Console()
    import_from_here()
    if resume and out is None:
        raise ValueError("--resume needs --out, the folder of the run")
    named = {"norm": norm and norms([norm])[0], "eps": eps, "steps": steps}
    options = {**_parsed(option), **{key: value for key, value in named.items() if value is not None}}
    budget = _budget(objective, options, validation_norm and norms([validation_norm])[0], validation_eps)
    recipe = Recipe(
        epochs=epochs, batch_size=batch_size, optimizer=optimizer, lr=lr, momentum=momentum, weight_decay=weight_decay,
        schedule=schedule, clip=clip, ema=ema, amp=amp, compile=compile, patience=patience, keep_best=keep_best, seed=seed,
        log_every=log_every, augment=FlipAndShift(flip, shift) if flip or shift else None,
        validation=Validation(share=validation, steps=validation_steps, **budget),
    )  # fmt: skip
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    folder = out or Path("runs") / f"{model.rpartition(':')[2]}-{objective}-{datetime.now():%Y%m%d-%H%M%S}"
    with process_group(target) as here:
        world = World.current()
        network = build_model(model, seed)
        network = (network if dropout is None else with_dropout(network, dropout)).to(here)
        source = load(data)
        if source.train is None:
            raise ValueError(f"--data: {data} has no training part (x_train, y_train)")
        training = source.train[0].to(here), source.train[1].to(here)
        goal = make_objective(objective, network, training, options, weight, loss)
        with _display(console if world.leads else None) as show, interruptible(folder, CHECKPOINT):
            history = train(
                network, goal, training, recipe, out=folder, resume=resume, checkpoint_minutes=checkpoint_minutes,
                on_log=show,
            )  # fmt: skip
        inputs, labels = (part.to(here) for part in source.test)
        test = accuracies(
            network, inputs, labels, torch.arange(len(inputs)), steps=validation_steps, seed=seed, **budget
        )
        if not world.leads:
            return
        save_weights(network, folder / WEIGHTS)
        summary = _summary(arguments, recipe, history, test, budget, here, world)
    write_json(folder / SUMMARY, summary)
    attack = f"PGD, {budget['norm']} {budget['eps']:g}"
    for part in ("validation", "test"):
        figures = summary[part]
        console.print(
            f"{part + ':':<12}clean {figures['clean']:.1%}, robust ({attack}) {figures['robust']:.1%}", highlight=False
        )
    console.print(f"weights: [bold]{os.fspath(folder / WEIGHTS)}[/bold]", soft_wrap=True)


def trained_on(weights: Path) -> tuple[str, str]:
    """Network and data as the summary beside the weights names them; the defaults where there is none."""
    summary = weights.with_name(SUMMARY)
    arguments = json.loads(summary.read_text())["arguments"] if summary.is_file() else {}
    return arguments.get("model", DEFAULT_MODEL), arguments.get("data", DEFAULT_DATA)


def _parsed(given: list[str] | None) -> dict[str, Any]:
    """Options written as name=value; values are JSON (numbers, true, false, null, lists), inf, or else plain text."""
    options: dict[str, Any] = {}
    for text in given or []:
        name, separator, value = text.partition("=")
        if not separator:
            raise ValueError(f"--option: expected name=value, got {text!r}")
        try:
            options[name] = math.inf if value == "inf" else json.loads(value)
        except ValueError:
            options[name] = value
    return options


def _budget(objective: str, options: dict[str, Any], norm: str | None, eps: float | None) -> dict[str, Any]:
    """Norm and eps of the attack on held-out samples: as told, else the objective's, else the default of the norm."""
    taken = options_of(objective)
    own = options.get("norm", taken["norm"].default if "norm" in taken else "linf")
    name = norm_name(own if norm is None else norm, tuple(DEFAULT_EPS))
    if eps is None and norm is None:
        eps = options.get("eps")
    return {"norm": name, "eps": DEFAULT_EPS[name] if eps is None else eps}


@contextmanager
def _display(console: Console | None) -> Iterator[OnLog]:
    """A live line: epoch, loss, the last accuracies, a bar over the steps, images a second and the time left."""
    if console is None:
        yield lambda done, total, row: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        line = bar.add_task("training", total=None, rate="")
        accuracy = ""

        def show(done: int, total: int, row: Row) -> None:
            nonlocal accuracy
            if "clean" in row:
                accuracy = f"clean {row['clean']:.1%} robust {row['robust']:.1%}"
            else:
                bar.update(line, rate=f"{row['images_per_second']:.0f} images/s")
            description = f"epoch {row['epoch']:<5.3g} loss {row['loss']:<8.4g} {accuracy}"
            bar.update(line, description=description, completed=done, total=total)

        yield show


def _summary(
    arguments: dict[str, Any], recipe: Recipe, history: History, test: dict[str, float], budget: dict[str, Any],
    device: torch.device, world: World,
) -> dict[str, Any]:  # fmt: skip
    assert recipe.validation is not None
    kept = history.epochs[history.best_epoch - 1 if recipe.keep_best and history.best_epoch else -1]
    return {
        "environment": {**describe(device), "processes": world.size},
        "arguments": {key: os.fspath(value) if isinstance(value, Path) else value for key, value in arguments.items()},
        "attack": {"name": "pgd", "steps": recipe.validation.steps, **budget},
        "validation": {"epoch": kept["epoch"], "clean": kept["clean"], "robust": kept["robust"]},
        "test": test,
        "stopped": history.stopped,
        "epochs": len(history.epochs),
        "seconds": history.seconds,
        "images_per_second": history.images_per_second,
    }
