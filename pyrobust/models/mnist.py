"""Networks for MNIST, (N, 1, 28, 28) in [0, 1] → (N, 10), as the papers describe them. All use ReLU."""

from __future__ import annotations

from torch import nn

from pyrobust.models._build import initialise, normal, seeded, truncated_normal
from pyrobust.models.normalisation import MeanStd

# Of the pixels of the training images, each over 255.
_MEAN = 0.1307


def mlp(seed: int = 0, *, width: int = 1000, inputs: int = 784) -> nn.Sequential:
    """Three hidden layers of ``width`` units: (N, …) with ``inputs`` values each → (N, 10).

    Source: seed 003, §3.5.1 (1000 units) and §4.5 (1200 units: :func:`mlp_1200`).
    """
    return seeded(
        seed,
        lambda: nn.Sequential(
            nn.Flatten(),
            nn.Linear(inputs, width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 10),
        ),
    )  # fmt: skip


def mlp_1200(seed: int = 0) -> nn.Sequential:
    """:func:`mlp` with 1200 units a layer: (N, 1, 28, 28) → (N, 10)."""
    return mlp(seed, width=1200)


def lenet5(seed: int = 0) -> nn.Sequential:
    """LeNet-5: 5×5 convolutions (6 padded to 28×28, then 16), each pooled 2×2, and dense layers of 120, 84 and 10.

    As is usual today, and in seed 003 ("rectified activation"), ReLU and max pooling stand for the sigmoid and the
    trained subsampling of 1998, every map of the second layer sees all of the first, and the output is linear.

    Source: LeCun et al. 1998; seed 003, fig. 2.3.
    """
    return seeded(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120), nn.ReLU(),
            nn.Linear(120, 84), nn.ReLU(),
            nn.Linear(84, 10),
        ),
    )  # fmt: skip


def lenet_matconvnet(seed: int = 0) -> nn.Sequential:
    """MatConvNet's LeNet: 5×5 convolutions (20, 50), each max-pooled 2×2, dense 500, ReLU, dense 10.

    It is linear but for the pooling up to the single ReLU. A first layer maps [0, 1] to [0, 255] less the mean pixel, on
    which scale its rate of learning, its weight decay and its initial weights, N(0, 0.01²), are meant (MatConvNet
    subtracts the mean image).

    Source: seed 001, "LeNet on MNIST" (corrected: the layers are those of MatConvNet's example without batch norm).
    """
    return seeded(
        seed,
        lambda: initialise(
            nn.Sequential(
                MeanStd(_MEAN, 1 / 255),
                nn.Conv2d(1, 20, 5), nn.MaxPool2d(2),
                nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(50 * 4 * 4, 500), nn.ReLU(),
                nn.Linear(500, 10),
            ),
            normal(0.01),
        ),
    )  # fmt: skip


def shaham_cnn(seed: int = 0) -> nn.Sequential:
    """The network of Shaham et al.: 5×5 convolutions (32, 64), max-pooled 3×3 and 2×2, dense layers of 200 and 10.

    The source does not say how borders and strides are chosen: here nothing is padded and the pools do not overlap, so
    that maps are 24, 8, 4 and 2 wide.

    Source: seed 002, §5.1.
    """
    return seeded(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(3),
            nn.Conv2d(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 2 * 2, 200), nn.ReLU(),
            nn.Linear(200, 10),
        ),
    )  # fmt: skip


def madry_cnn(seed: int = 0) -> nn.Sequential:
    """The network of Madry et al.: padded 5×5 convolutions (32, 64), each max-pooled 2×2, dense layers of 1024 and 10.

    Initial weights N(0, 0.1²) cut off at two standard deviations and biases 0.1, as in the published code.

    Source: Madry et al. 2018, §5 and its MNIST challenge; the MNIST models of seed 003, §5.4.
    """
    return seeded(
        seed,
        lambda: initialise(
            nn.Sequential(
                nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(64 * 7 * 7, 1024), nn.ReLU(),
                nn.Linear(1024, 10),
            ),
            truncated_normal(0.1),
            bias=0.1,
        ),
    )  # fmt: skip
