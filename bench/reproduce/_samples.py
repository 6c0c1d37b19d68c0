"""The images of a run, and what is said of samples that are right or wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.reproduce._common import Run
from pyrobust.data import Data, load

Mask = NDArray[np.bool_]
TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}  # by name of the data set; digits go by their own


def images(name: str, run: Run, *, train: int | None = None, test: int | None = None) -> Data:
    """The first so many images (None: all) of a data set, on the device; scikit-learn's digits with --smoke.

    Raises:
        FileNotFoundError: the data set is not there, or has no training part.
    """
    data = load("digits" if run.size == "smoke" else name)
    if data.train is None:
        raise FileNotFoundError(f"data: {name}.npz has no training part (x_train, y_train)")
    (x, y), (x_test, y_test) = data.train, data.test
    return Data(
        data.name,
        train=(x[:train].to(run.device), y[:train].to(run.device)),
        test=(x_test[:test].to(run.device), y_test[:test].to(run.device)),
    )


def described(data: Data, run: Run) -> str:
    """How many images there are of what, in words."""
    assert data.train is not None
    here = (
        ""
        if run.size == "smoke" or data.name != "cifar10"
        else " (of those that the file holds: CIFAR-10 has 50,000 and 10,000)"
    )
    return f"{len(data.train[0]):,} training and {len(data.test[0]):,} test images of {data.name}{here}"


def percent(share: float | Mask) -> str:
    return f"{100 * float(np.mean(share)):.2f} %" if np.size(share) else "–"


def gap(first: Mask, second: Mask) -> tuple[float, float]:
    """The mean of ``first − second`` over the samples, in percentage points, and its standard error."""
    delta = 100 * (first.astype(float) - second.astype(float))
    return float(delta.mean()), float(delta.std(ddof=1)) / len(delta) ** 0.5


def difference(first: Mask, second: Mask) -> str:
    """`gap` in words."""
    return "{:+.2f} ± {:.2f} points".format(*gap(first, second))
