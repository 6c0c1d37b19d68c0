"""NumPy archives: the keys, layouts and value types that are accepted."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyrobust.data.container import Data

IMAGE_CHANNELS = (1, 3)


def load_npz(path: str | Path) -> Data:
    """Read ``x_test, y_test`` (with or without ``x_train, y_train``) or ``x, y`` from an NPZ file.

    Inputs are uint8, which is divided by 255, or floats that lie in [0, 1] already. Images may be (N, H, W), which
    gets a channel dimension, (N, C, H, W), or (N, H, W, C) with 1 or 3 channels, which is transposed; features are
    (N, D). Labels are integers (N,) or (N, 1). Nothing is unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an NPZ archive, or its keys, shapes or values are not as above.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"data: no such file: {path}")
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("a single array, not an archive")
        with loaded as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"data: {path} cannot be read as an NPZ archive of plain arrays: {error}") from error
    if {"x_test", "y_test"} <= arrays.keys():
        train = _pair(arrays, "x_train", "y_train", path) if {"x_train", "y_train"} <= arrays.keys() else None
        return Data(path.stem, test=_pair(arrays, "x_test", "y_test", path), train=train)
    if {"x", "y"} <= arrays.keys():
        return Data(path.stem, test=_pair(arrays, "x", "y", path))
    found = ", ".join(sorted(arrays)) or "nothing"
    raise ValueError(f"data: {path} needs the keys x_test and y_test, or x and y; it has {found}")


def _pair(arrays: dict[str, np.ndarray], x_key: str, y_key: str, path: Path) -> tuple[Tensor, Tensor]:
    inputs, labels = _inputs(arrays[x_key], f"{path}, {x_key}"), _labels(arrays[y_key], f"{path}, {y_key}")
    if len(inputs) != len(labels):
        raise ValueError(f"data: {path} has {len(inputs)} inputs in {x_key} but {len(labels)} labels in {y_key}")
    return inputs, labels


def _inputs(array: np.ndarray, where: str) -> Tensor:
    if array.ndim not in (2, 3, 4) or array.size == 0:
        raise ValueError(f"data: {where}: expected (N, D), (N, H, W) or (N, C, H, W), got shape {array.shape}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in IMAGE_CHANNELS and array.shape[3] in IMAGE_CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array)).to(torch.float32).div_(255)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"data: {where}: expected uint8 or a floating type, got {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise ValueError(f"data: {where}: floating values must lie in [0, 1], got [{low:g}, {high:g}]")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _labels(array: np.ndarray, where: str) -> Tensor:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"data: {where}: expected integers of shape (N,), got {array.dtype} of shape {array.shape}")
    labels = torch.from_numpy(array.astype(np.int64))
    if labels.numel() and int(labels.min()) < 0:
        raise ValueError(f"data: {where}: labels must be 0 or larger, got {int(labels.min())}")
    return labels
