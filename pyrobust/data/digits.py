"""The 1797 handwritten digits that ship inside scikit-learn, so that no download is needed."""

from __future__ import annotations

import torch

from pyrobust.data.container import Data


def digits() -> Data:
    """scikit-learn's 8×8 digits in [0, 1], shape (N, 1, 8, 8), with 1198 training and 599 test images.

    Every third image, from the first on, is a test image: the file goes through its writers in order, so both parts
    hold all of them, and the split needs no random numbers.

    Raises:
        ImportError: scikit-learn is not installed.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test part).
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("data 'digits' needs scikit-learn: pip install 'pyrobust[report]'") from error
    source = load_digits()
    inputs = torch.from_numpy(source.images).to(torch.float32).div(16).unsqueeze(1)
    labels = torch.from_numpy(source.target).to(torch.int64)
    held_out = torch.arange(len(labels)) % 3 == 0
    return Data("digits", test=(inputs[held_out], labels[held_out]), train=(inputs[~held_out], labels[~held_out]))
