"""What the scripts that train networks share: the command line, networks that are kept, verified measures, Markdown."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench import environment, report
from bench.__main__ import RESULTS
from bench.networks import CACHE
from pyrobust.attacks._common import undisturbed
from pyrobust.evaluation.attacks import resolve
from pyrobust.evaluation.checks import predict, verify
from pyrobust.models import load_weights, save_weights
from pyrobust.training import Objective, Recipe, train
from pyrobust.training.logs import Row
from pyrobust.training.recipe import plain

BATCH = 250  # images attacked together
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One call of a script.

    Attributes:
        name: of the script, with which its files begin.
        size: "quick", "full" or "smoke".
        device: on which it trains and attacks.
        out: the folder of its results.
        options: of the script's own command line.
    """

    name: str
    size: str
    device: torch.device
    out: Path
    options: argparse.Namespace = field(default_factory=argparse.Namespace)

    def path(self, ending: str) -> Path:
        """A file of results, as for ``"tables.md"``."""
        return self.out / f"{self.name}-{self.size}-{ending}"


def command(
    name: str,
    text: str,
    body: Callable[[Run], tuple[str, Numbers]],
    arguments: list[str] | None,
    more: Callable[[argparse.ArgumentParser], None] | None = None,
) -> int:
    """Run a script: ``body`` returns its Markdown, and its numbers for the JSON.

    Args:
        more: adds options of the script's own.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog=f"python -m bench.reproduce.{name.replace('-', '_')}", description=text)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--quick", dest="size", action="store_const", const="quick", help="sized for 2 cores: minutes to an hour"
    )
    sizes.add_argument("--full", dest="size", action="store_const", const="full", help="the paper's size (default)")
    sizes.add_argument("--smoke", dest="size", action="store_const", const="smoke", help="tiny, on digits: does it run")
    parser.set_defaults(size="full")
    parser.add_argument("--out", type=Path, help="folder of the results (default: bench/results/reproduce)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    if more is not None:
        more(parser)
    args = parser.parse_args(arguments)
    # What --smoke writes is no result: without --out it goes where nothing is kept.
    out = args.out or (CACHE / "smoke" if args.size == "smoke" else RESULTS / "reproduce")
    run = Run(name, args.size, torch.device(args.device), out, args)
    given = {
        key: value for key, value in vars(args).items() if key != "out"
    }  # no figure depends on where it is written
    content = environment.describe(run.device, given)
    began = time.perf_counter()
    try:
        markdown, numbers = body(run)
    except FileNotFoundError as error:  # no data, and where it is looked for
        print(error, file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    run.path("tables.md").write_text(markdown)
    report.save(run.path("tables.json"), {**content, "seconds": time.perf_counter() - began, **numbers})
    print(markdown)
    print(f"written: {out / f'{name}-{run.size}-*'}")
    return 0


@dataclass
class Curve:
    """What ``measure`` says of a network after every epoch of its training, a number or a list of them: an entry of ``values`` an
    epoch."""

    measure: Callable[[nn.Module], float | list[float]]
    values: list[Any] = field(default_factory=list)


def trained(
    run: Run,
    label: str,
    model: nn.Module,
    objective: Objective,
    data: tuple[Tensor, Tensor],
    recipe: Recipe,
    curve: Curve | None = None,
) -> nn.Module:
    """The model after `train`, from bench/.cache where the same was trained before; with ``--smoke`` nothing is kept.

    The same is: layers, initial weights, objective, data, recipe, version of torch and kind of device.

    Args:
        label: what the progress is called.
        data: inputs and labels of the training set.
        curve: filled after every epoch; its values are kept with the network.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    model = model.to(run.device)
    terms = {name: [objective.weights[name], plain(term)] for name, term in objective.terms.items()}
    digest = hashlib.sha256(
        json.dumps([str(model), terms, recipe.record(), torch.__version__, run.device.type]).encode()
    )
    for tensor in (*model.state_dict().values(), *data):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    path = CACHE / "reproduce" / f"{digest.hexdigest()[:24]}.safetensors"
    values = path.with_suffix(".json")
    if path.is_file() and (curve is None or values.is_file()):
        if curve is not None:
            curve.values = json.loads(values.read_text())["values"]
        return load_weights(model, path).eval().requires_grad_(False)
    began = told = time.monotonic()

    def tell(step: int, steps: int, row: Row) -> None:
        nonlocal told
        if time.monotonic() > told + 30:
            told = time.monotonic()
            print(f"  {label}: step {step} of {steps}, loss {row['loss']:.4g}", flush=True)
        if curve is not None and "seconds" in row:  # the row of an epoch
            with undisturbed(model):
                curve.values.append(curve.measure(model))

    train(model, objective, data, recipe, on_log=tell)
    print(f"  {label}: trained in {time.monotonic() - began:.0f} s", flush=True)
    if run.size != "smoke":
        path.parent.mkdir(parents=True, exist_ok=True)
        if curve is not None:
            report.save(values, {"values": curve.values})
        save_weights(model, path)
    return model.requires_grad_(False)


def wrong(model: nn.Module, inputs: Tensor, labels: Tensor) -> np.ndarray:
    """(N,) bool: the prediction is not the label."""
    batches = zip(inputs.split(4 * BATCH), labels.split(4 * BATCH), strict=True)
    return np.concatenate([(predict(model, x)[1] != y).cpu().numpy() for x, y in batches])


def broken(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    attack: str,
    *,
    norm: str,
    eps: float,
    bounds: tuple[float, float] = (0.0, 1.0),
    **options: Any,
) -> np.ndarray:
    """(N,) bool: wrong already, or made so by a point that the evaluation's checks find within the budget."""
    parts = []
    for x, y, ids in _batches(inputs, labels):
        adv = resolve(attack).run(model, x, y, norm=norm, eps=eps, bounds=bounds, sample_ids=ids, **options)
        verdict = verify(x, adv, y, predict(model, adv)[1], norm=norm, bounds=bounds, eps=eps)
        parts.append(verdict.adversarial.numpy())
    return wrong(model, inputs, labels) | np.concatenate(parts)


def distances(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    attack: str,
    *,
    norm: str,
    bounds: tuple[float, float] = (0.0, 1.0),
    **options: Any,
) -> np.ndarray:
    """(N,) norms of the perturbations: 0 where wrong already, inf where the evaluation's checks find no adversarial point."""
    parts = []
    for x, y, ids in _batches(inputs, labels):
        adv = resolve(attack).run(model, x, y, norm=norm, bounds=bounds, sample_ids=ids, **options)
        verdict = verify(x, adv, y, predict(model, adv)[1], norm=norm, bounds=bounds)
        parts.append(verdict.norms[norm].masked_fill(~verdict.adversarial, np.inf).numpy())
    return np.where(wrong(model, inputs, labels), 0.0, np.concatenate(parts))


def _batches(inputs: Tensor, labels: Tensor) -> zip[tuple[Tensor, ...]]:
    numbers = torch.arange(len(labels), device=labels.device)
    return zip(inputs.split(BATCH), labels.split(BATCH), numbers.split(BATCH), strict=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


@dataclass(frozen=True)
class Claim:
    """An ordering that the paper states: in words, whether ours has it, and our numbers; ``why`` says what was measured of the
    reason where it has not."""

    text: str
    holds: bool
    numbers: str
    why: str = ""


def claims(stated: Sequence[Claim]) -> str:
    """A Markdown list of them, with the reasons of those that do not hold."""
    lines = [
        f"- **{'holds' if claim.holds else 'does not hold'}**: {claim.text} ({claim.numbers})"
        + (f". Why: {claim.why}." if claim.why and not claim.holds else "")
        for claim in stated
    ]
    return "\n".join(lines) + "\n"
