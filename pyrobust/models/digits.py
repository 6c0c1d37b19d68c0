"""The network of the main job's default run."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pyrobust.data import digits
from pyrobust.models.cnn import small_cnn
from pyrobust.models.fitting import fit


def digits_cnn(seed: int = 0, progress: Callable[[int, int], None] | None = None) -> nn.Module:
    """`small_cnn` trained on the spot on scikit-learn's digits: a few seconds on one core, the same each time.

    Args:
        seed: of the initial weights and of the sample order.
        progress: called as ``progress(epochs_done, epochs)``.

    Returns:
        The network, in evaluation mode, on the CPU.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    data = digits()
    assert data.train is not None
    return fit(small_cnn(seed), *data.train, epochs=30, batch_size=32, seed=seed, progress=progress)
