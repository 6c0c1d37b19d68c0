"""Tables 1 and 2 and figures 1–6 of seed 002: training by robust optimisation on MNIST and CIFAR-10, paper beside ours.

The paper gives neither radii nor optimiser; they are those of its published code (mnist/train-mnist-robust-*.lua,
cifar/robust-train.lua), carried over to pixels in [0, 1].
"""

from __future__ import annotations

import sys

from bench.reproduce._common import Numbers, Run, claims, command, table
from bench.reproduce._figures import curves
from bench.reproduce._samples import TITLES, described, images, percent
from bench.reproduce.robust_optimisation_claims import judge, judge_cifar10
from bench.reproduce.robust_optimisation_collection import collect, draw_collection, single_pixels
from bench.reproduce.robust_optimisation_experiments import CHECKED, CONTROL, EXPERIMENTS, NAMES
from bench.reproduce.robust_optimisation_measures import Measured, networks


def main(arguments: list[str] | None = None) -> int:
    return command("robust-optimisation-tables", __doc__, reproduce, arguments)


def reproduce(run: Run) -> tuple[str, Numbers]:
    parts, stated, content = [_introduction(run)], [], {}
    for experiment in EXPERIMENTS:
        size = experiment.sizes[run.size]
        data = images(experiment.data, run, train=size.train)
        found, epochs = networks(run, experiment, size, data)
        attacked = data.test[0][: size.attacked], data.test[1][: size.attacked]
        wanted = round(experiment.share * len(attacked[0]))
        collection = collect(found["baseline"], attacked, experiment.radii, wanted)
        measured = Measured(experiment, data, attacked, found, epochs, collection)
        parts += [f"## {TITLES[experiment.data]}", _setting(run, measured), *_sections(run, measured)]
        stated += judge(measured)
        if experiment.data == "cifar10":
            stated += judge_cifar10(measured)
        content[experiment.data] = measured.to_json()
    parts += ["## What the paper says of them, here", claims(stated)]
    return "\n\n".join(parts), {**content, "claims": [vars(claim) for claim in stated]}


def _introduction(run: Run) -> str:
    return (
        f"# Seed 002, tables 1 and 2 and figures 1–6 ({run.size})\n\n"
        "Robust optimisation against plain training, *paper · ours*. The paper names neither the radii of its uncertainty "
        "sets nor those of its adversarial examples. The former are those of its published code, in pixels. For the latter "
        "the smallest radii are taken that make the collection as large, relative to the test set, as the paper's, with equal "
        "parts from each norm; a pixel cannot move by more than 1, so where l1 yields fewer, the other norms make up for them. "
        f"All steps stay inside [0, 1]. Not in the paper: the *{CONTROL}*, which shows how many of the examples are wrong for "
        "the baseline alone (the others share its initial weights and batches); and PGD (20 steps, random start), which would "
        "uncover a network that only hides its gradient from the fast method. The curves of the paper's figures cannot be read, "
        "so they stand here alone."
    )


def _setting(run: Run, measured: Measured) -> str:
    experiment, size = measured.experiment, measured.experiment.sizes[run.size]
    recipe = size.recipe
    radii = ", ".join(f"{norm} {radius:g}" for norm, radius in experiment.radii.items())
    kept = ", ".join(f"{100 * share:.0f} % ({norm})" for norm, share in measured.kept.items())
    return (
        f"{described(measured.data, run)}, of which the first {len(measured.attacked[1]):,} are attacked (by PGD at most "
        f"{CHECKED:,}); `{size.network}` behind a standardisation of the pixels; SGD, {recipe.epochs} epochs of batches of "
        f"{recipe.batch_size}, rate {recipe.lr:g}, weight decay {recipe.weight_decay:g}. Radii of the uncertainty sets: "
        f"{radii}; the bounds leave, on average, {kept} of such a step. {measured.collection.describe()}"
    )


def _sections(run: Run, measured: Measured) -> list[str]:
    """The table and the figures of an experiment."""
    experiment, collection = measured.experiment, measured.collection
    paper, norms, attacked = experiment.paper, list(collection.radii), len(measured.attacked[1])
    rows = []
    for name in measured.networks:
        clean, there = percent(measured.clean[name]), percent(measured.on_collection[name])
        if name in paper:
            clean, there = f"{paper[name][0]:.2f} % · {clean}", f"{paper[name][1]:.2f} % · {there}"
        by_norm = [percent(measured.on_collection[name][collection.of(norm)]) for norm in norms]
        rows.append(
            (NAMES.get(name, name), clean, there, *by_norm, percent(measured.pgd[name]) if name in measured.pgd else "")
        )
    head = ("net", "test images", "collection", *(f"its {norm} part" for norm in norms),
            f"PGD, linf {experiment.checked:g}")  # fmt: skip
    sections = [f"### Table {experiment.table}", table(head, rows)]

    def figure(number: int, caption: str) -> str:
        return f"![figure {number}]({run.path(f'figure-{number}.png').name})\n\n*Figure {number}. {caption}*"

    baseline = measured.networks["baseline"]
    if experiment.data == "mnist":
        count = single_pixels(run.path("figure-1.png"), baseline, measured.attacked)
        right = int(measured.clean["baseline"][:attacked].sum())
        sections.append(figure(1, f"{count} of the {right:,} attacked images that the baseline gets right are misclassified once a "
                                  "single pixel (circled) has changed; below each image, what the baseline sees."))  # fmt: skip
    sample = 2 if experiment.data == "mnist" else 4
    draw_collection(run.path(f"figure-{sample}.png"), baseline, collection)
    sections.append(figure(sample, "From the collection: test images and their adversarial examples by one step in the norm "
                                   "above; below each image, what the baseline sees."))  # fmt: skip
    title = TITLES.get(measured.data.name, measured.data.name)
    if experiment.data == "cifar10":
        lines = {NAMES[name]: (range(1, len(v) + 1), v) for name, v in measured.epochs.items() if name in NAMES}
        curves(run.path("figure-5.png"), title, lines, "epoch", "accuracy on test images (%)")
        sections.append(figure(5, "Accuracy on the test images after every epoch."))
    swept = {
        NAMES[name]: (
            (0.0, *experiment.sweep),
            [float(mask.mean()) for mask in (measured.clean[name][:attacked], *masks)],
        )
        for name, masks in measured.fast.items()
    }
    curves(run.path(f"figure-{experiment.curves}.png"), title, swept, "eps (linf, pixels in [0, 1])",
           "accuracy under the fast method (%)")  # fmt: skip
    sections.append(
        figure(experiment.curves, "Accuracy under the fast method, each network attacked by its own gradient.")
    )
    return sections


if __name__ == "__main__":
    sys.exit(main())
