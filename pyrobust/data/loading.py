"""Find a data set by name or path."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pyrobust.data.container import Data
from pyrobust.data.digits import digits
from pyrobust.data.npz import load_npz

DATA_VARIABLE = "PYROBUST_DATA"


def load(name_or_path: str | Path) -> Data:
    """Load ``"digits"``, an NPZ file by its path, or the name of an NPZ file under ``$PYROBUST_DATA``.

    A name is letters, digits, ``-`` and ``_`` alone: ``"mnist"`` stands for ``$PYROBUST_DATA/mnist.npz``. Anything
    else is a path. ``:A,B`` at the end keeps two classes: ``"mnist:7,3"`` has sevens, labelled 0, and threes, labelled 1
    (see `Data.pair`).

    Returns:
        Data with inputs in [0, 1].

    Raises:
        FileNotFoundError: the file does not exist, or the name is given while ``PYROBUST_DATA`` is not set.
        ValueError: the file is not as `load_npz` expects it, or has not the two classes.
    """
    name = str(name_or_path)
    if two := re.fullmatch(r"(.+):(\d+),(\d+)", name):
        return load(two[1]).pair(int(two[2]), int(two[3]))
    if name == "digits":
        return digits()
    if not name.replace("-", "").replace("_", "").isalnum():
        return load_npz(name)
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        raise FileNotFoundError(
            f"data: {name!r} is neither 'digits' nor a path, and {DATA_VARIABLE} (the folder of {name}.npz) is not set"
        )
    return load_npz(Path(folder) / f"{name}.npz")
