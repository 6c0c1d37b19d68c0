"""Find a data set by name or path."""

from __future__ import annotations

import os
from pathlib import Path

from pyrobust.data.container import Data
from pyrobust.data.digits import digits
from pyrobust.data.npz import load_npz

DATA_VARIABLE = "PYROBUST_DATA"


def load(name_or_path: str | Path) -> Data:
    """Load ``"digits"``, an NPZ file by its path, or the name of an NPZ file under ``$PYROBUST_DATA``.

    A name is letters, digits, ``-`` and ``_`` alone: ``"mnist"`` stands for ``$PYROBUST_DATA/mnist.npz``. Anything
    else is a path.

    Returns:
        Data with inputs in [0, 1].

    Raises:
        FileNotFoundError: the file does not exist, or the name is given while ``PYROBUST_DATA`` is not set.
        ValueError: the file is not as `load_npz` expects it.
    """
    name = str(name_or_path)
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
