"""Wide residual networks."""

from __future__ import annotations

from torch import Tensor, nn

from pyrobust.models._build import he, initialise, seeded


class _Unit(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x)))))); where width or stride change, the sum starts from a 1×1 convolution of
    relu(bn(x))."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        same = channels == filters and stride == 1
        self.shortcut = None if same else nn.Conv2d(channels, filters, 1, stride=stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        active = self.relu1(self.norm1(inputs))
        start = inputs if self.shortcut is None else self.shortcut(active)
        return start + self.conv2(self.relu2(self.norm2(self.conv1(active))))


def wide_resnet(depth: int = 28, width: int = 10, *, seed: int = 0) -> nn.Sequential:
    """WRN-depth-width: (N, 3, 32, 32) → (N, 10).

    A 3×3 convolution (16), three stages of (depth − 4) / 6 units of two 3×3 convolutions (16, 32 and 64 times ``width``
    filters; the last two stages start with stride 2), batch norm, ReLU, the mean over the map and a linear layer. Initial
    convolutions after He et al. 2015, by fan-out.

    Args:
        depth: number of convolutions on the longest path and the linear layer, without shortcuts: 6 n + 4, n >= 1.
        width: factor of the number of filters, >= 1.
        seed: of the initial weights.

    Raises:
        ValueError: ``depth`` or ``width`` is not as above.

    Source: Zagoruyko and Komodakis 2016, table 1; seed 004, §5.1; seed 000, §6.
    """
    units, rest = divmod(depth - 4, 6)
    if units < 1 or rest:
        raise ValueError(f"depth: expected 6 n + 4 with n >= 1 (10, 16, 22, 28, 34, …), got {depth}")
    if width < 1:
        raise ValueError(f"width: expected an integer >= 1, got {width}")

    def build() -> nn.Sequential:
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
        channels = 16
        for filters, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for number in range(units):
                layers.append(_Unit(channels, filters, stride if number == 0 else 1))
                channels = filters
        initialise(nn.Sequential(*layers), he("fan_out"))
        head = nn.Linear(channels, 10)
        nn.init.zeros_(head.bias)
        return nn.Sequential(
            *layers, nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head
        )  # fmt: skip

    return seeded(seed, build)


def wrn_28_10(seed: int = 0) -> nn.Sequential:
    """:func:`wide_resnet` of depth 28 and width 10: 36.5 million parameters.

    Source: Zagoruyko and Komodakis 2016; seed 004, §5.1.
    """
    return wide_resnet(28, 10, seed=seed)


def wrn_34_10(seed: int = 0) -> nn.Sequential:
    """:func:`wide_resnet` of depth 34 and width 10: 46.2 million parameters.

    Seed 000 compares with Madry et al.'s network, which differs in details: it standardises each image, its ReLUs are
    leaky (0.1), and its shortcuts pool and pad with zeros instead of convolving.

    Source: seed 000, §6 (corrected: five units a stage, so depth 34, not 32); Madry et al. 2018, §5.
    """
    return wide_resnet(34, 10, seed=seed)
