"""Table 3.1, figures 3.4, 3.5 and 3.7 of seed 003: margin maximisation, measured here beside the paper's numbers.

``python -m bench.reproduce.margin_tables`` trains MLP and LeNet-5 on MNIST (mnist.npz under PYROBUST_DATA), and measures them.
Trained networks are kept in bench/.cache, so that it can be interrupted. Table 3.2: ``bench.reproduce.margin_nin``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from bench.reproduce import margin_paper
from bench.reproduce._common import Numbers, Run, claims, command
from bench.reproduce._runs import Measures, Runs, over_seeds
from bench.reproduce.margin_claims import of_mnist, of_sweeps
from bench.reproduce.margin_figures import Sweep, examples, sweeps
from bench.reproduce.margin_measures import measure, rows_of
from bench.reproduce.margin_networks import DEFENCES, NETWORKS, Defence, Part, margin, mnist, on_mnist

FIGURES = {"LeNet-5": "3.4", "MLP": "3.5"}
EPS = 0.2  # of FGSM
ROWS_OF_3_7 = ("baseline", "AT", "VAT", "our l2", "our l1")


@dataclass(frozen=True)
class Size:
    """How much is trained and measured.

    Attributes:
        images, epochs: of the training on MNIST.
        test, attacked: test images on which errors are measured, and the first of them on which attacks of many steps are.
        runs: seeds of every row of table 3.1.
        weights, weight_runs: the values of C in figures 3.4 and 3.5, and seeds of each.
    """

    images: int
    epochs: int
    test: int
    attacked: int
    runs: int
    weights: tuple[float, ...]
    weight_runs: int


SIZES = {
    "full": Size(50_000, 100, 10_000, 10_000, 10, (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0), 3),
    "quick": Size(5000, 10, 5000, 200, 1, (1e-3, 1e-2, 0.1, 1.0), 1),
    "smoke": Size(200, 2, 30, 5, 1, (1e-3, 0.1), 1),
}


def reproduce(run: Run) -> tuple[str, Numbers]:
    size = SIZES[run.size]
    data, test = mnist(run, size.images, size.test)
    judged = partial(measure, test=test, attacked=size.attacked, eps=EPS)
    shown: dict[str, nn.Module] = {}
    rows = {network: _defences(run, network, size, data, judged, shown) for network in NETWORKS}
    by_weight = {network: _sweep(run, network, size, data, judged) for network in FIGURES}
    curves = sweeps(run, {network: (FIGURES[network], by_weight[network]) for network in FIGURES})
    pictures = examples(run, {name: shown[name] for name in ROWS_OF_3_7}, test)
    figures = {name: {f"{weight:g}": runs for weight, runs in sweep.items()} for name, sweep in by_weight.items()}
    told = _size_told(run, size, len(data[0]), len(test[0]))
    return markdown(told, size, rows, by_weight, curves, pictures), {"table_3_1": rows, "figures_3_4_3_5": figures}


def markdown(
    told: str, size: Size, rows: dict[str, dict[str, Runs]], by_weight: dict[str, Sweep], curves: str, pictures: str
) -> str:
    """The document; ``curves`` and ``pictures`` are the files of the figures."""
    stated = [*of_mnist(rows, by_weight), *of_sweeps(by_weight, rows)]
    parts = [
        "# Margin maximisation: table 3.1, figures 3.4, 3.5 and 3.7 of seed 003\n",
        told,
        *[rows_of(f"Table 3.1, {name} on MNIST", rows[name], margin_paper.MNIST[name], size.runs, 10) for name in rows],
        f"## The paper's orderings\n\n"
        "Those that name PGD, the nearest, or the best C are not the paper's: they check the ones above them.\n\n"
        f"{claims(stated)}",
        f"## Figures\n\n![Test error and ρ of LeNet-5 and the MLP over C]({curves})\n\nFigure 3.7, the MLP: below each image its "
        f"class → what the network takes it for.\n\n![The nearest adversarial examples by DeepFool]({pictures})\n",
    ]
    return "\n".join(parts)


def _defences(
    run: Run,
    network: str,
    size: Size,
    data: Part,
    judged: Callable[[nn.Module], Measures],
    shown: dict[str, nn.Module],
) -> dict[str, Runs]:
    """The rows of table 3.1 for a network; the MLPs of figure 3.7 go into ``shown``."""
    rows = {}
    for name in margin_paper.MNIST[network]:

        def of_seed(seed: int, name: str = name) -> nn.Module:
            model = on_mnist(run, network, name, DEFENCES[name], data, size.epochs, seed)
            if network == "MLP" and name in ROWS_OF_3_7:
                shown.setdefault(name, model)
            return model

        rows[name] = over_seeds(f"{network} {name}", size.runs, of_seed, judged)
    return rows


def _sweep(run: Run, network: str, size: Size, data: Part, judged: Callable[[nn.Module], Measures]) -> Sweep:
    """l2 margin maximisation over C."""
    found = {}
    for weight in size.weights:
        name, defence = f"C = {weight:g}", Defence(partial(margin, weight, "l2"))
        of_seed = partial(on_mnist, run, network, name, defence, data, size.epochs)
        found[weight] = over_seeds(f"{network} {name}", size.weight_runs, of_seed, judged)
    return found


def _size_told(run: Run, size: Size, images: int, test: int) -> str:
    data = "scikit-learn's digits, enlarged" if run.size == "smoke" else "MNIST"
    return (
        f"Size `--{run.size}`: {images} training images ({data}), {size.epochs} epochs, {size.runs} run(s) a row and "
        f"{size.weight_runs} a value of C; error and FGSM error on {test} test images, the rest on the first "
        f"{min(size.attacked, test)} of them. The paper: 50,000 images, 100 epochs, 10 runs, 10,000 test images. "
        f"At an error of 5 %, {test} images leave a standard error of {100 * (0.05 * 0.95 / test) ** 0.5:.1f} points. "
        "Each cell: paper / **ours**; columns from PGD on are ours alone.\n\n"
        "ρ is the mean of ‖r‖₂ / ‖x‖₂ over the images that are right and for which an r is found (eq. 3.20). Every point is "
        "predicted again, and what DeepFool (50 steps of at most 0.5) does not find is counted beside ρ, not in it. "
        "*Nearest* is the better of DeepFool and DDN (100 steps), image by image: where it is much smaller, DeepFool has "
        f"overestimated. FGSM and PGD (20 steps) have eps = {EPS}; an image that is wrong already counts as an "
        'error. "l1" is the norm of the gradient: a margin against linf perturbations. The distributions of figure 3.6 are left '
        "out.\n"
    )


def main(arguments: list[str] | None = None) -> int:
    return command("margin", (__doc__ or "").split("\n")[0], reproduce, arguments)


if __name__ == "__main__":
    sys.exit(main())
