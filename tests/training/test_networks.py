"""The networks of the papers: number of parameters, shapes, seeds, and what their sources say of their weights."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import nn

from pyrobust import models
from pyrobust.models import MODELS, wide_resnet

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


def dense(inputs: int, units: int) -> int:
    return inputs * units + units


def conv(size: int, channels: int, filters: int) -> int:
    """With a bias."""
    return size * size * channels * filters + filters


# Written out from the papers' descriptions; batch norm has a scale and a shift a channel.
COUNTS = {
    "mlp": (MNIST, dense(784, 1000) + 2 * dense(1000, 1000) + dense(1000, 10), 2_797_010),
    "mlp_1200": (MNIST, dense(784, 1200) + 2 * dense(1200, 1200) + dense(1200, 10), 3_836_410),
    # 61 706 is LeCun's count too, but for his third layer, which sees only some of the maps.
    "lenet5": (MNIST, conv(5, 1, 6) + conv(5, 6, 16) + dense(400, 120) + dense(120, 84) + dense(84, 10), 61_706),
    "lenet_matconvnet": (MNIST, conv(5, 1, 20) + conv(5, 20, 50) + conv(4, 50, 500) + conv(1, 500, 10), 431_080),
    "shaham_cnn": (MNIST, conv(5, 1, 32) + conv(5, 32, 64) + dense(256, 200) + dense(200, 10), 105_506),
    "madry_cnn": (MNIST, conv(5, 1, 32) + conv(5, 32, 64) + dense(7 * 7 * 64, 1024) + dense(1024, 10), 3_274_634),
    # Seed 000, table 1: 6.1k, 73.7k, 102.4k, 2.6k; 184.8k in all.
    "galloway_cnn": (CIFAR, 8 * 8 * 3 * 32 + 6 * 6 * 32 * 64 + 5 * 5 * 64 * 64 + 256 * 10, 184_832),
    "roth_cnn": (
        CIFAR,
        9 * (3 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 256 * 256)
        + 2 * 2 * (64 + 128 + 256)
        + dense(4 * 4 * 256, 10),
        1_187_274,
    ),
    # The published weights are 37 045 256 bytes: 4 a parameter, and 1312 of the file's own for 20 arrays.
    "croce_cnn": (
        CIFAR,
        conv(3, 3, 96) + conv(3, 96, 96) + conv(3, 96, 192) + 4 * conv(3, 192, 192) + conv(2, 192, 384)
        + dense(4 * 4 * 384, 1200) + dense(1200, 10),
        9_260_986,
    ),
    # "0.97 M" in the literature.
    "nin": (
        CIFAR,
        conv(5, 3, 192) + conv(1, 192, 160) + conv(1, 160, 96)
        + conv(5, 96, 192) + conv(1, 192, 192) + conv(1, 192, 192)
        + conv(3, 192, 192) + conv(1, 192, 192) + conv(1, 192, 10),
        966_986,
    ),
    # The convolutions are those of VGG-16: 14 714 688.
    "vgg": (CIFAR, 14_714_688 + 2 * (2 * 64 + 2 * 128 + 3 * 256 + 6 * 512) + dense(512, 512) + 2 * 512 + dense(512, 10), 14_991_946),
    # Zagoruyko and Komodakis 2016, table 4: 36.5 M; three stages of four units.
    "wrn_28_10": (
        CIFAR,
        9 * (3 * 16 + (16 + 7 * 160) * 160 + (160 + 7 * 320) * 320 + (320 + 7 * 640) * 640)
        + 16 * 160 + 160 * 320 + 320 * 640
        + 2 * ((16 + 7 * 160) + (160 + 7 * 320) + (320 + 7 * 640) + 640)
        + dense(640, 10),
        36_479_194,
    ),
    # 46.2 M, and 184.8 k are 0.4 % of that; five units.
    "wrn_34_10": (
        CIFAR,
        9 * (3 * 16 + (16 + 9 * 160) * 160 + (160 + 9 * 320) * 320 + (320 + 9 * 640) * 640)
        + 16 * 160 + 160 * 320 + 320 * 640
        + 2 * ((16 + 9 * 160) + (160 + 9 * 320) + (320 + 9 * 640) + 640)
        + dense(640, 10),
        46_160_474,
    ),
}  # fmt: skip


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", COUNTS)
def test_count_shape_and_seed(name: str) -> None:
    shape, described, count = COUNTS[name]
    state = torch.get_rng_state()
    network = MODELS[name](0).eval()
    assert torch.equal(torch.get_rng_state(), state)
    assert parameters(network) == described == count
    inputs = torch.rand(2, *shape)
    with torch.no_grad():
        logits = network(inputs)
        assert logits.shape == (2, 10)
        # Rows do not depend on each other; another batch shape may change the order of a sum.
        torch.testing.assert_close(logits[1:], network(inputs[1:]), rtol=1e-3, atol=1e-3 * float(logits.abs().max()))
    assert same(network, MODELS[name](0))
    assert not same(network, MODELS[name](1))


def test_every_network_goes_by_its_name() -> None:
    known = {"small_cnn", "mnist_cnn", "cifar_cnn", "digits_linear", "mnist_linear"}
    assert MODELS.keys() == COUNTS.keys() | known
    for name, factory in MODELS.items():
        assert getattr(models, name) is factory
        assert "seed" in inspect.signature(factory).parameters


@pytest.mark.parametrize("name", ["mlp", "lenet5", "lenet_matconvnet", "shaham_cnn", "galloway_cnn", "roth_cnn"])
def test_networks_learn(name: str) -> None:
    """Ten random patterns are told apart after a few steps: the signal and its gradient go through all layers."""
    channels, *size = COUNTS[name][0]
    patterns = torch.rand(10, channels, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    inputs, labels = nn.functional.interpolate(patterns, size=size), torch.arange(10)
    network = MODELS[name](0)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    assert int((network(inputs).argmax(1) == labels).sum()) >= 9


def test_initial_weights_are_the_sources() -> None:
    matconvnet = dict(models.lenet_matconvnet().named_parameters())
    drawn = torch.cat([p.detach().flatten() for name, p in matconvnet.items() if "weight" in name])
    # 430 500 draws: the standard error of their deviation is 0.01 / √(2 · 430 500), about 1e-5.
    assert abs(float(drawn.std()) - 0.01) < 5e-5
    assert all(not p.any() for name, p in matconvnet.items() if "bias" in name)
    madry = dict(models.madry_cnn().named_parameters())
    assert all(float(p.detach().abs().max()) <= 0.2 for name, p in madry.items() if "weight" in name)
    assert all(torch.equal(p, torch.full_like(p, 0.1)) for name, p in madry.items() if "bias" in name)
    for weight in models.galloway_cnn().parameters():
        torch.testing.assert_close(weight.detach().flatten(1).norm(dim=1), torch.ones(len(weight)))
    first = next(models.vgg().parameters()).detach()
    # 1728 draws of deviation √(2 / (9 · 64)); five standard errors of 1 / √(2 · 1728).
    assert abs(float(first.std()) / (2 / (9 * 64)) ** 0.5 - 1) < 5 / (2 * 1728) ** 0.5


def test_matconvnets_scale() -> None:
    """Its first layer is 255 (x − mean): weights, decay and step sizes are meant for [0, 255]."""
    network = models.lenet_matconvnet()
    inputs = torch.rand(2, *MNIST)
    torch.testing.assert_close(network[0](inputs), 255 * (inputs - 0.1307), rtol=1e-5, atol=1e-4)


def test_widths_and_depths() -> None:
    assert parameters(models.mlp(width=7, inputs=64)) == dense(64, 7) + 2 * dense(7, 7) + dense(7, 10)
    narrow = models.nin(width=0.25)
    assert parameters(narrow) == (
        conv(5, 3, 48) + conv(1, 48, 40) + conv(1, 40, 24) + conv(5, 24, 48) + 2 * conv(1, 48, 48) + conv(3, 48, 48)
        + conv(1, 48, 48) + conv(1, 48, 10)
    )  # fmt: skip
    # 28,800 draws of deviation 0.05 / √0.25; five standard errors of 1 / √(2 · 28,800).
    assert abs(float(narrow[8].weight.detach().std()) / 0.1 - 1) < 5 / (2 * 28_800) ** 0.5
    assert parameters(models.croce_cnn(width=0.25)) == (
        conv(3, 3, 24) + conv(3, 24, 24) + conv(3, 24, 48) + 4 * conv(3, 48, 48) + conv(2, 48, 96)
        + dense(4 * 4 * 96, 300) + dense(300, 10)
    )  # fmt: skip
    for factory in (models.nin, models.croce_cnn):
        with pytest.raises(ValueError, match="width: expected at least one filter"):
            factory(width=0.001)
    small = wide_resnet(10, 1)
    expected = 9 * (3 * 16 + 2 * 16 * 16 + (16 + 32) * 32 + (32 + 64) * 64) + 16 * 32 + 32 * 64
    assert parameters(small) == expected + 2 * (2 * 16 + 16 + 32 + 32 + 64 + 64) + dense(64, 10)
    assert small(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    for arguments in ({"depth": 32}, {"depth": 4}, {"depth": 28, "width": 0}):
        with pytest.raises(ValueError, match="depth: expected" if "width" not in arguments else "width: expected"):
            wide_resnet(**arguments)


def test_linear_models_by_name() -> None:
    for factory, shape in ((models.digits_linear, (1, 8, 8)), (models.mnist_linear, MNIST)):
        network = factory(3)
        assert parameters(network) == math.prod(shape)
        assert network(torch.rand(5, *shape)).shape == (5, 2)
        assert torch.equal(network.weight, factory(3).weight)
        assert not torch.equal(network.weight, factory(4).weight)


def test_dropout_is_added_under_the_same_names() -> None:
    plain = models.small_cnn()
    network = models.with_dropout(plain, 0.3)
    assert same(network, plain)
    assert network.state_dict().keys() == plain.state_dict().keys()
    torch.manual_seed(0)
    inputs = torch.rand(400, 1, 8, 8)
    assert torch.equal(network.eval()(inputs), plain(inputs))
    hidden = network.train()[:7](inputs)
    active = plain[:7](inputs) > 0
    # Five standard errors of a share of 0.3 among the active units.
    assert abs(float((hidden[active] == 0).float().mean()) - 0.3) < 5 * (0.21 / int(active.sum())) ** 0.5
    torch.testing.assert_close(hidden[hidden > 0], (plain[:7](inputs) / 0.7)[hidden > 0])
    for wrong, share, message in (
        (nn.Sequential(nn.Linear(2, 2)), 0.5, "expected a torch.nn.Sequential with a ReLU"),
        (models.digits_linear(), 0.5, "expected a torch.nn.Sequential with a ReLU"),
        (plain, 1.0, "share: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            models.with_dropout(wrong, share)


def test_a_wide_unit_is_the_papers() -> None:
    """Against the formula, from the unit's own weights, in float64: identity where nothing changes, else a projection of
    the activated input."""
    network = wide_resnet(16, 1).double().eval()
    inputs = torch.rand(2, 16, 8, 8, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                values.copy_(0.5 + torch.rand(values.shape, generator=generator))

    def active(norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return (x * scale[:, None, None] + (norm.bias - norm.running_mean * scale)[:, None, None]).clamp(min=0)

    for unit, stride in ((network[1], 1), (network[3], 2)):
        first = active(unit.norm1, inputs)
        inner = active(unit.norm2, nn.functional.conv2d(first, unit.conv1.weight, stride=stride, padding=1))
        start = inputs if stride == 1 else nn.functional.conv2d(first, unit.shortcut.weight, stride=2)
        torch.testing.assert_close(unit(inputs), start + nn.functional.conv2d(inner, unit.conv2.weight, padding=1))
