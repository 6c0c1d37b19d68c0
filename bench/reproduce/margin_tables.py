"""Tables 3.1 and 3.2, figures 3.4, 3.5 and 3.7 of seed 003: margin maximisation, measured here beside the paper's numbers.

``python -m bench.reproduce.margin_tables`` trains MLP and LeNet-5 on MNIST and NIN on CIFAR-10 (NPZ files under PYROBUST_DATA),
and measures them. Trained networks are kept in bench/.cache, so that it can be interrupted.
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
from bench.reproduce.margin_claims import of_cifar, of_mnist, of_sweeps
from bench.reproduce.margin_figures import Sweep, examples, sweeps
from bench.reproduce.margin_measures import measure, rows_of
from bench.reproduce.margin_networks import (
    DEFENCES,
    NETWORKS,
    NIN_ROWS,
    Defence,
    Part,
    cifar,
    margin,
    mnist,
    on_cifar,
    on_mnist,
    whitened,
)

FIGURES = {"LeNet-5": "3.4", "MLP": "3.5"}
EPS = {"mnist": 0.2, "cifar10": 0.05}  # of FGSM
ROWS_OF_3_7 = ("baseline", "AT", "VAT", "our l2", "our l1")


@dataclass(frozen=True)
class Size:
    """How much is trained and measured.

    Attributes:
        images, epochs: of the training on MNIST.
        test, attacked: test images on which errors are measured, and the first of them on which attacks of many steps are.
        runs: seeds of every row of table 3.1.
        weights, weight_runs: the values of C in figures 3.4 and 3.5, and seeds of each.
        cifar_epochs, cifar_runs: of table 3.2; 0: it is left out.
    """

    images: int
    epochs: int
    test: int
    attacked: int
    runs: int
    weights: tuple[float, ...]
    weight_runs: int
    cifar_epochs: int = 0
    cifar_runs: int = 0


SIZES = {
    "full": Size(50_000, 100, 10_000, 10_000, 10, (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0), 3, 200, 3),
    "quick": Size(5000, 10, 5000, 200, 1, (1e-3, 1e-2, 0.1, 1.0), 1),
    "smoke": Size(200, 2, 30, 5, 1, (1e-3, 0.1), 1, 1, 1),
}


def reproduce(run: Run) -> tuple[str, Numbers]:
    size = SIZES[run.size]
    data, test = mnist(run, size.images, size.test)
    judged = partial(measure, test=test, attacked=size.attacked, eps=EPS["mnist"])
    shown: dict[str, nn.Module] = {}
    rows = {network: _defences(run, network, size, data, judged, shown) for network in NETWORKS}
    by_weight = {network: _sweep(run, network, size, data, judged) for network in FIGURES}
    nin, cifar_told = _nin(run, size) if size.cifar_runs else ({}, "")
    curves = sweeps(run, {network: (FIGURES[network], by_weight[network]) for network in FIGURES})
    pictures = examples(run, {name: shown[name] for name in ROWS_OF_3_7}, test)
    printed = margin_paper.MNIST
    at = {network: found["AT"] for network, found in rows.items()}
    stated = [*of_mnist(rows), *of_sweeps(by_weight, at), *of_cifar(nin)]
    parts = [
        "# Margin maximisation: tables 3.1 and 3.2, figures 3.4, 3.5 and 3.7 of seed 003\n",
        _size_told(run, size, len(data[0]), len(test[0])),
        *[rows_of(f"Table 3.1, {name} on MNIST", rows[name], printed[name], size.runs, 10) for name in rows],
        *(
            [rows_of("Table 3.2, NIN on CIFAR-10", nin, margin_paper.CIFAR, size.cifar_runs, 100), cifar_told]
            if nin
            else []
        ),
        f"## The paper's orderings\n\n"
        "Those that name PGD, the nearest, or the best C are not the paper's: they check the ones above them.\n\n"
        f"{claims(stated)}",
        f"## Figures\n\n![Test error and ρ of LeNet-5 and the MLP over C]({curves})\n\nFigure 3.7, the MLP: below each image its "
        f"class → what the network takes it for.\n\n![The nearest adversarial examples by DeepFool]({pictures})\n",
    ]
    figures = {name: {f"{weight:g}": runs for weight, runs in sweep.items()} for name, sweep in by_weight.items()}
    return "\n".join(parts), {"table_3_1": rows, "table_3_2": nin, "figures_3_4_3_5": figures}


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


def _nin(run: Run, size: Size) -> tuple[dict[str, Runs], str]:
    """Table 3.2, and what is to be said of it."""
    (x, y), (test_x, test_y) = cifar(run, size.test)
    x, test_x, bounds = whitened(x, test_x)
    judged = partial(measure, test=(test_x, test_y), attacked=size.attacked, eps=EPS["cifar10"], bounds=bounds)
    rows = {}
    for name, (weight, augmented) in NIN_ROWS.items():
        of_seed = partial(on_cifar, run, name, weight, augmented, (x, y), bounds, size.cifar_epochs)
        rows[name] = over_seeds(name, size.cifar_runs, of_seed, judged)
    return rows, (
        f"{len(x)} training images (all of the file but the last tenth; the thesis has 45,000), {size.cifar_epochs} epochs, "
        f"{len(test_x)} test images. Contrast normalisation and whitening come first; eps = {EPS['cifar10']} of FGSM, ρ and C are "
        f"in units of the whitened values, which lie in [{bounds[0]:.1f}, {bounds[1]:.1f}]. The thesis gives neither the rate "
        "(here 0.01) nor the weight decay of the rows without C (here 1e-4).\n"
    )


def _size_told(run: Run, size: Size, images: int, test: int) -> str:
    data = "scikit-learn's digits, enlarged; a small CNN in NIN's place" if run.size == "smoke" else "MNIST"
    told = (
        f"Size `--{run.size}`: {images} training images ({data}), {size.epochs} epochs, {size.runs} run(s) a row and "
        f"{size.weight_runs} a value of C; error and FGSM error on {test} test images, the rest on the first "
        f"{min(size.attacked, test)} of them. The paper: 50,000 images, 100 epochs, 10 runs, 10,000 test images. "
        f"At an error of 5 %, {test} images leave a standard error of {100 * (0.05 * 0.95 / test) ** 0.5:.1f} points. "
    )
    if not size.cifar_runs:
        told += "NIN on CIFAR-10 (table 3.2) would take days on two cores: it is left to `--full`. "
    return told + (
        "Each cell: paper / **ours**; columns from PGD on are ours alone.\n\n"
        "ρ is the mean of ‖r‖₂ / ‖x‖₂ over the images that are right and for which an r is found (eq. 3.20). Every point is "
        "predicted again, and what DeepFool (50 steps of at most 0.5) does not find is counted beside ρ, not in it. "
        "*Nearest* is the better of DeepFool and DDN (100 steps), image by image: where it is much smaller, DeepFool has "
        f"overestimated. FGSM and PGD (20 steps) have eps = {EPS['mnist']} on MNIST; an image that is wrong already counts as an "
        'error. "l1" is the norm of the gradient: a margin against linf perturbations. The distributions of figure 3.6 are left '
        "out.\n"
    )


def main(arguments: list[str] | None = None) -> int:
    return command("margin", (__doc__ or "").split("\n")[0], reproduce, arguments)


if __name__ == "__main__":
    sys.exit(main())
