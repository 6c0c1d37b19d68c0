"""Data sets as tensors, scikit-learn's digits and NPZ files, and the augmentation of training images."""

from pyrobust.data.augmentation import FlipAndShift
from pyrobust.data.container import Data
from pyrobust.data.digits import digits
from pyrobust.data.loading import load
from pyrobust.data.npz import load_npz

__all__ = ["Data", "FlipAndShift", "digits", "load", "load_npz"]
