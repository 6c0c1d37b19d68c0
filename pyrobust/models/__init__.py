"""Networks, input normalisation as layers, a plain trainer, and weight files that are never unpickled.

Every factory can be named on the command line: ``--model pyrobust.models:mnist_cnn``; those in `MODELS` by their name
alone.
"""

from collections.abc import Callable

from torch import nn

from pyrobust.models.cifar import croce_cnn, galloway_cnn, nin, roth_cnn, vgg
from pyrobust.models.cnn import cifar_cnn, mnist_cnn, small_cnn
from pyrobust.models.digits import digits_cnn
from pyrobust.models.dropout import with_dropout
from pyrobust.models.fitting import accuracy, fit
from pyrobust.models.linear import TwoClassLinear, digits_linear, mnist_linear
from pyrobust.models.mnist import lenet5, lenet_matconvnet, madry_cnn, mlp, mlp_1200, shaham_cnn
from pyrobust.models.normalisation import ZCA, GlobalContrast, MeanStd
from pyrobust.models.weights import load_weights, save_weights
from pyrobust.models.wide_resnet import wide_resnet, wrn_28_10, wrn_34_10

# Untrained networks by name: each factory takes ``seed``, of the initial weights, and needs no other argument.
MODELS: dict[str, Callable[..., nn.Module]] = {
    factory.__name__: factory
    for factory in (
        small_cnn, mnist_cnn, cifar_cnn, mlp, mlp_1200, lenet5, lenet_matconvnet, shaham_cnn, madry_cnn, galloway_cnn,
        roth_cnn, croce_cnn, nin, vgg, wrn_28_10, wrn_34_10, digits_linear, mnist_linear,
    )
}  # fmt: skip

__all__ = [
    "MODELS",
    "ZCA",
    "GlobalContrast",
    "MeanStd",
    "TwoClassLinear",
    "accuracy",
    "cifar_cnn",
    "croce_cnn",
    "digits_cnn",
    "digits_linear",
    "fit",
    "galloway_cnn",
    "lenet5",
    "lenet_matconvnet",
    "load_weights",
    "madry_cnn",
    "mlp",
    "mlp_1200",
    "mnist_cnn",
    "mnist_linear",
    "nin",
    "roth_cnn",
    "save_weights",
    "shaham_cnn",
    "small_cnn",
    "vgg",
    "wide_resnet",
    "with_dropout",
    "wrn_28_10",
    "wrn_34_10",
]
