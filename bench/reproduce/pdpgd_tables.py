"""Tables 5.1–5.8 and figure 5.1 of seed 003 (PDGD and PDPGD beside other attacks), measured here: paper / ours.

Weights and finished cells are kept in bench/.cache, so that it can be interrupted. ``--quick`` takes about four hours of one core:
a process a network (``--networks``), then one for all, which finds what they left.
"""

from __future__ import annotations

import argparse
import functools
import sys
from dataclasses import asdict

import torch
from torch import nn

from bench.reproduce._common import Numbers, Run, claims, command, table
from bench.reproduce.pdpgd_attacks import NORMS, Column, Images, columns, run
from bench.reproduce.pdpgd_cells import cell
from bench.reproduce.pdpgd_claims import nearest_of_all
from bench.reproduce.pdpgd_figure import draw
from bench.reproduce.pdpgd_networks import FULL, QUICK, QUICK_WIDTH, trained
from bench.reproduce.pdpgd_paper import MEANS, TABLES, Block, read
from bench.reproduce.pdpgd_rows import Cells, accuracies, means
from pyrobust.data import Data

FIGURE_NETWORKS = TABLES["5.1"]
SMOKE = ("5.1", "5.3", "5.7")  # means, thresholds that are printed and not, every attack
SAMPLES = {"full": 1000, "quick": 16, "smoke": 8}
HELD_BACK = 100  # at most: as many as are attacked, where those are fewer


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tables", nargs="+", choices=TABLES, metavar="TABLE", help="5.1 … 5.8; default: all")
    parser.add_argument("--networks", nargs="+", default=list(FULL), choices=FULL, metavar="NETWORK",
                        help=f"of {', '.join(FULL)}; default: all")  # fmt: skip
    parser.add_argument("--norms", nargs="+", default=list(NORMS), choices=NORMS, help="default: all")
    parser.add_argument("--restarts", nargs="+", type=int, default=[1, 10], help="of PGD, FAB and ours; default: 1 10")
    parser.add_argument(
        "--samples", type=int, help="test images a network, from the first; default: 1000, with --quick 16"
    )
    parser.add_argument("--heavy", action="store_true", help="also C&W, EAD, DAA, Pixel, and PGD with restarts")


def main(arguments: list[str] | None = None) -> int:
    return command("pdpgd", (__doc__ or "").split("\n", maxsplit=1)[0], reproduce, arguments, options)


def reproduce(call: Run) -> tuple[str, Numbers]:
    """Measure what the tables asked for need, draw the figure; the Markdown, and what goes into the JSON."""
    args, smoke = call.options, call.size == "smoke"
    samples = args.samples or SAMPLES[call.size]
    blocks, clean = read()
    tables = [name for name in TABLES if name in (args.tables or (SMOKE if smoke else TABLES))]
    subjects: dict[str, tuple[nn.Module, Images]] = {}
    cells: dict[str, dict[str, Cells]] = {norm: {} for norm in args.norms}
    networks, rows, parts = [], [], dict.fromkeys(tables, "")
    for name in args.networks:
        wanted = [table for table in tables if name in TABLES[table]]
        if not wanted and name not in FIGURE_NETWORKS:
            continue
        model, data = trained(name, call)
        images = _images(model, data, samples, call.device)
        subjects[name] = model, images
        networks.append({"network": name, "paper": clean[name], "ours": 100 * float(images.correct.mean())})
        for norm in args.norms if wanted else ():
            at_thresholds = [blocks.get((t, norm), Block(t, norm)) for t in wanted if t not in MEANS]
            thresholds = at_thresholds[0].thresholds if at_thresholds else ()
            cells[norm][name] = _measured(args, smoke, norm, model, images, thresholds)
            for block in at_thresholds:
                more, text = accuracies(name, block, cells[norm][name])
                rows += more
                parts[block.table] += text
    correct = {name: images.correct for name, (_, images) in subjects.items()}
    for number in tables:
        for norm in args.norms if number in MEANS else ():
            here = {name: cells[norm][name] for name in TABLES[number] if name in cells[norm]}
            if here:
                more, text = means(blocks.get((number, norm), Block(number, norm)), TABLES[number], here, correct)
                rows += more
                parts[number] += text
    stated = nearest_of_all(cells, correct)
    shown = [[row["network"], f"{row['paper']:.1f}", f"**{row['ours']:.1f}**"] for row in networks]
    text = [_head(call, samples), table(["clean accuracy, %", "paper", "ours"], shown)]
    text += [f"## Table {number}\n\n{part}" for number, part in parts.items() if part]
    text.append(f"## What the chapter says of its attacks\n\n{claims(stated)}")
    pictured = {name: subjects[name] for name in FIGURE_NETWORKS if name in subjects}
    if pictured:
        path = call.path("figure-5.1.png")
        draw(path, pictured, smoke)
        text.append(f"## Figure 5.1\n\n![Images and nearest adversarial examples in four norms]({path.name})\n")
    return "\n".join(text), {"networks": networks, "rows": rows, "claims": [asdict(claim) for claim in stated]}


def _head(call: Run, samples: int) -> str:
    recipes = FULL if call.size == "full" else QUICK
    described = "; ".join(
        f"{name} {recipe.epochs} epochs of {recipe.images or 'all'} images"
        + (f", {recipe.norm} ε {recipe.eps:.3g}, {recipe.steps} steps" if recipe.eps else "")
        for name, recipe in recipes.items() if name in call.options.networks
    )  # fmt: skip
    width = "" if call.size == "full" else f", on CIFAR-10 with {QUICK_WIDTH:g} of its filters"
    return (
        f"# Tables 5.1–5.8 and figure 5.1 of seed 003 ({call.size})\n\n"
        f"The first {samples} test images of each network (paper: 1000). The networks are Madry's on MNIST and that of Croce and "
        f"Hein on CIFAR-10{width}, trained here: {described}. The paper attacks the published ones. Each cell: paper / **ours**; – "
        "where a table cannot be read or nothing was measured. *thesis*: the parameters of §5.4; *default*: this library's own; "
        "*not run*: what takes `--heavy` or more `--restarts`, and B&B and DAA-1, which this library does not have. "
        "Every point is predicted again, and only what passes counts.\n"
    )


def _measured(
    args: argparse.Namespace,
    smoke: bool,
    norm: str,
    model: nn.Module,
    images: Images,
    thresholds: tuple[float, ...],
) -> Cells:
    """Every attack of a norm, from the cache where it has been run; those within a budget where thresholds are printed."""
    cells: list[tuple[Column, Numbers]] = []
    for column in columns(norm, args.restarts):
        if (column.heavy and not (args.heavy or smoke)) or (column.threshold and not thresholds):
            continue
        measure = functools.partial(run, column, model, images, thresholds, smoke)
        made_from = {"column": asdict(column), "thresholds": thresholds if column.threshold else ()}
        cells.append((column, measure() if smoke else cell(made_from, model, images, measure)))
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
