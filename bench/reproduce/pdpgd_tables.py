"""Tables 5.1–5.8 and figure 5.1 of seed 003, measured here: paper | ours.

``python -m bench.reproduce.pdpgd_tables`` trains the networks (hours without a GPU), attacks, and prints; JSON and PNG go to
bench/results. Weights and finished cells are kept in bench/.cache, so that it can be interrupted.
"""

from __future__ import annotations

import argparse
import functools
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import environment, report
from bench.__main__ import RESULTS
from bench.reproduce.pdpgd_attacks import NORMS, Images, columns, run
from bench.reproduce.pdpgd_cells import cell
from bench.reproduce.pdpgd_figure import draw
from bench.reproduce.pdpgd_networks import RECIPES, trained
from bench.reproduce.pdpgd_paper import MEANS, TABLES, Block, read
from bench.reproduce.pdpgd_rows import Cells, accuracies, means
from pyrobust.data import Data

FIGURE = "figure"
FIGURE_NETWORKS = TABLES["5.1"]
SMOKE = ("5.1", "5.3", "5.7", FIGURE)  # means, thresholds that are printed and not, every attack
HELD_BACK = 100  # at most: as many as are attacked, where those are fewer


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.reproduce.pdpgd_tables", description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=[*TABLES, FIGURE], metavar="TABLE",
                        help=f"5.1 … 5.8, or {FIGURE}; default: all")  # fmt: skip
    parser.add_argument("--networks", nargs="+", default=list(RECIPES), choices=RECIPES, metavar="NETWORK",
                        help=f"of {', '.join(RECIPES)}; default: all")  # fmt: skip
    parser.add_argument("--norms", nargs="+", default=list(NORMS), choices=NORMS, help="default: all")
    parser.add_argument("--restarts", nargs="+", type=int, default=[1, 10], help="of PGD, FAB and ours; default: 1 10")
    parser.add_argument(
        "--samples", type=int, default=1000, help="test images a network, from the first (default 1000)"
    )
    parser.add_argument("--epochs", type=int, default=0, help="of the training; default: by network")
    parser.add_argument("--images", type=int, default=0, help="train on the first so many (default: all)")
    parser.add_argument("--heavy", action="store_true", help="also C&W, EAD, DAA, Pixel, and PGD with restarts")
    parser.add_argument("--smoke", action="store_true", help="tiny, on digits: does it run; nothing is kept")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="write the JSON here, the PNG beside it (default: bench/results)")
    args = parser.parse_args(arguments)
    if args.smoke:
        args.samples, args.heavy = 8, True
    args.tables = args.tables or (SMOKE if args.smoke else [*TABLES, FIGURE])
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: torch sees no GPU", file=sys.stderr)
        return 2
    device = torch.device(args.device)
    out = args.out
    if out is None and not args.smoke:
        out = RESULTS / f"pdpgd-tables-{args.device}-{environment.slug(environment.processor(device))}.json"
    given = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    content = environment.describe(device, given)
    try:
        content |= reproduce(args, device, out)
    except FileNotFoundError as error:  # no data, and where it is looked for
        print(error, file=sys.stderr)
        return 2
    if out is not None:
        report.save(out, content)
        print(f"written to {out}")
    return 0


def reproduce(args: argparse.Namespace, device: torch.device, out: Path | None) -> dict[str, Any]:
    """Measure what the tables asked for need, print them, draw the figure, and return what goes into the JSON."""
    blocks, clean = read()
    tables = [table for table in TABLES if table in args.tables]
    drawn = FIGURE_NETWORKS if FIGURE in args.tables and out is not None else ()
    subjects: dict[str, tuple[nn.Module, Images]] = {}
    cells: dict[str, dict[str, Cells]] = {norm: {} for norm in args.norms}
    networks, rows = [], []
    for name in args.networks:
        wanted = [table for table in tables if name in TABLES[table]]
        if not wanted and name not in drawn:
            continue
        model, data = trained(name, device, args.epochs, args.images, args.smoke)
        images = _images(model, data, args.samples, device)
        subjects[name] = model, images
        networks.append({"network": name, "paper": clean[name], "ours": 100 * float(images.correct.mean())})
        for norm in args.norms if wanted else ():
            at_thresholds = [blocks.get((t, norm), Block(t, norm)) for t in wanted if t not in MEANS]
            thresholds = at_thresholds[0].thresholds if at_thresholds else ()
            cells[norm][name] = _measured(args, norm, model, images, thresholds)
            for block in at_thresholds:
                rows += accuracies(name, block, cells[norm][name])
    report.table("Clean accuracy (%) on the images attacked", networks, ("network", "paper", "ours"))
    correct = {name: images.correct for name, (_, images) in subjects.items()}
    for table in tables:
        for norm in args.norms if table in MEANS else ():
            here = {name: cells[norm][name] for name in TABLES[table] if name in cells[norm]}
            if here:
                rows += means(blocks.get((table, norm), Block(table, norm)), TABLES[table], here, correct)
    pictured = {name: subjects[name] for name in drawn if name in subjects}
    if pictured:
        assert out is not None
        draw(out.with_name(f"{out.stem}-figure-5.1.png"), pictured, args.smoke)
    return {"networks": networks, "rows": rows}


def _measured(
    args: argparse.Namespace, norm: str, model: nn.Module, images: Images, thresholds: tuple[float, ...]
) -> Cells:
    """Every attack of a norm, from the cache where it has been run; those within a budget where thresholds are printed."""
    cells = []
    for column in columns(norm, args.restarts):
        if (column.heavy and not args.heavy) or (column.threshold and not thresholds):
            continue
        measure = functools.partial(run, column, model, images, thresholds, args.smoke)
        made_from = {"column": asdict(column), "thresholds": thresholds if column.threshold else ()}
        cells.append((column, measure() if args.smoke else cell(made_from, model, images, measure)))
        seconds = cells[-1][1]["seconds"]
        print(f"  {norm}: {column.label} ({column.attack} {column.variant}), {seconds:.0f} s", flush=True)
    return cells


def _images(model: nn.Module, data: Data, samples: int, device: torch.device) -> Images:
    """The first test images, right or wrong, and of the following ones those that are right."""
    count = samples + min(samples, HELD_BACK)
    inputs, labels = (part[:count].to(device) for part in data.test)
    with torch.no_grad():
        right = torch.cat([model(x).argmax(1) for x in inputs.split(512)]) == labels
    later = torch.arange(len(labels), device=device) >= samples
    held_back = inputs[right & later], labels[right & later]
    return Images(inputs[:samples].contiguous(), labels[:samples], right[:samples].cpu().numpy(), held_back)


if __name__ == "__main__":
    sys.exit(main())
