"""Small networks, a plain trainer for them, and weight files that are never unpickled.

Every factory can be named on the command line: ``--model pyrobust.models:mnist_cnn``.
"""

from pyrobust.models.cnn import cifar_cnn, mnist_cnn, small_cnn
from pyrobust.models.digits import digits_cnn
from pyrobust.models.fitting import accuracy, fit
from pyrobust.models.weights import load_weights, save_weights

__all__ = [
    "accuracy",
    "cifar_cnn",
    "digits_cnn",
    "fit",
    "load_weights",
    "mnist_cnn",
    "save_weights",
    "small_cnn",
]
