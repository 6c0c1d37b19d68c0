"""Activation patterns: networks of two neurons by hand, cells against bisection and against the bends themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrobust.analysis._pieces import Pattern
from pyrobust.analysis.activations import cell_sizes, shared_activations
from pyrobust.analysis.linearity import random_directions

INF = torch.inf


def _two_neurons() -> nn.Sequential:
    """relu(x₁ − 1) and relu(x₂ + ½), and a sum of them."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[0].bias.copy_(torch.tensor([-1.0, 0.5]))
    return model


def _rows(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_two_neurons() -> None:
    x = torch.zeros(4, 2, dtype=torch.float64)
    v = _rows((1, 0), (0, -1), (0, 1), (3, -4))
    sizes = cell_sizes(_two_neurons(), x, {"v": v}).sizes["v"]
    # The last line reaches x₂ = −½ at t = ½ / 0.8, before x₁ = 1 at t = 1 / 0.6.
    torch.testing.assert_close(sizes, _rows((1, 0.5, INF, 0.625))[0], rtol=1e-15, atol=0)
    found = shared_activations(_two_neurons(), x, {"v": v}, distances=[0, 0.5, 0.7, 2])
    assert found.units == 2
    assert found.shared["v"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 0.5, 1, 0.5], [0.5, 0.5, 1, 0]]


def test_on_the_edge_of_a_cell() -> None:
    """Where x lies on an edge, the cell is the one that the line enters, on either side."""
    x = _rows((1, 0), (1, 0), (1, 0))
    v = _rows((1, 0), (-1, 0), (-0.6, -0.8))
    sizes = cell_sizes(_two_neurons(), x, {"v": v}).sizes["v"]
    torch.testing.assert_close(sizes, _rows((INF, INF, 0.625))[0], rtol=1e-15, atol=0)
    second = nn.Sequential(_two_neurons()[:2], nn.Linear(2, 2), nn.ReLU()).double()
    with torch.no_grad():
        second[1].weight.copy_(torch.eye(2))
        second[1].bias.copy_(torch.tensor([-3.0, 9.0]))
    # From x₁ = 1 upwards the first neuron has slope 1, though autograd's is 0 there: the second layer bends at x₁ = 4.
    assert cell_sizes(second, x[:1], {"v": v[:1]}).sizes["v"].item() == 3


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "relu6": nn.ReLU6,
    "leaky": lambda: nn.LeakyReLU(0.3),
    "prelu": nn.PReLU,
    "prelu by channel": lambda: nn.PReLU(5, init=0.1),
    "rrelu": nn.RReLU,
    "hardtanh": lambda: nn.Hardtanh(-0.2, 0.1),
    "hardsigmoid": nn.Hardsigmoid,
    "threshold": lambda: nn.Threshold(0.1, 0.1),
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "torch.relu_": lambda x: torch.relu_(x.clone()),
    "method": lambda x: x.relu(),
    "F.relu6": F.relu6,
    "F.leaky_relu_": lambda x: F.leaky_relu_(x.clone(), 0.2),
    "clamp": lambda x: x.clamp(min=0),
    "torch.clamp": lambda x: torch.clamp(x, -0.1, 0.2),
    "clip": lambda x: x.clip(max=0.1),
    "clamp_min": lambda x: x.clamp_min(0.0),
    "clamp_max": lambda x: x.clamp_max(0.0),
    "rrelu": F.rrelu,
}


class _Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _pieces(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad(), Pattern() as pattern:
        model(x)
    return torch.cat([piece.flatten(1) for piece in pattern.pieces], 1)


def _bisected(model: nn.Module, x: Tensor, v: Tensor, high: float) -> Tensor:
    """The largest t ≤ high with the same pieces, by 60 halvings: a cell is convex."""
    base = _pieces(model, x)
    low, high = x.new_zeros(len(x)), x.new_full((len(x),), high)
    for _ in range(60):
        middle = (low + high) / 2
        same = (_pieces(model, x + middle.reshape(-1, *[1] * (x.ndim - 1)) * v) == base).all(1)
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    return low


@pytest.mark.parametrize("name", [*ACTIVATIONS, *FUNCTIONS])
def test_every_activation_against_bisection(name: str) -> None:
    activation = ACTIVATIONS[name]() if name in ACTIVATIONS else _Calls(FUNCTIONS[name])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), activation, nn.Conv2d(5, 5, 3), copy.deepcopy(activation), nn.Flatten(),
            nn.Linear(20, 3),
        )  # fmt: skip
    model = model.double().eval()
    x = torch.rand(6, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    v = random_directions(x)
    sizes = cell_sizes(model, x, {"v": v}).sizes["v"]
    high = 2 * float(sizes[sizes.isfinite()].max())
    # Pre-activations of order 1 are rounded to 1e-15; of 180 units, the steepest decides, whose slope is above 1e-3 here.
    torch.testing.assert_close(sizes.clamp_max(high), _bisected(model, x, v, high), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool1d(2),
        nn.MaxPool1d(3, stride=2, padding=1),
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        nn.MaxPool2d((2, 3), stride=(1, 2), dilation=(2, 1)),
        nn.MaxPool3d(2, ceil_mode=True),
        _Calls(lambda x: F.max_pool2d(x, 2, 1)),
        _Calls(lambda x: torch.max_pool2d(x, 3)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("tied", [False, True])
def test_pooling_bends_where_its_cell_ends(pool: nn.Module, tied: bool) -> None:
    """A sum of max poolings is convex along the line: linear on [0, t], and above that line beyond."""
    dims = {"1": 1, "3": 3}.get(type(pool).__name__[-2], 2)
    x = torch.rand(5, 2, *[7] * dims, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if tied:
        x = (2 * x).round() / 2  # equal values in most windows, of which the direction chooses

    def total(x: Tensor) -> Tensor:
        return pool(x).flatten(1).sum(1)

    v = random_directions(x)
    model = nn.Sequential(pool, nn.Flatten())
    sizes = cell_sizes(model, x, {"v": v}).sizes["v"]
    assert bool((sizes > 0).all())
    ends = sizes.isfinite()
    assert int(ends.sum()) >= 4
    step = sizes.where(ends, 1.0).reshape(-1, *[1] * (x.ndim - 1)) * v
    start, half, inside, beyond = (total(x + share * step) for share in (0.0, 0.5, 0.999, 1.5))
    line = lambda share: start + share / 0.5 * (half - start)  # noqa: E731
    rounding = 1e-12 * start.abs()  # sums of fewer than 1000 values below 2
    assert bool(((inside - line(0.999)).abs() <= rounding).all())
    assert bool((beyond - line(1.5) > 1e3 * rounding)[ends].all())


def test_shared_activations_against_hooks() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 3)).double()
    x = torch.rand(9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    v = random_directions(x)

    def bits(x: Tensor) -> Tensor:
        first = model[0](x)
        return torch.cat((first, model[2](first.relu())), 1) >= 0

    found = shared_activations(model, x, {"v": v, "back": -v}, distances=[0, 0.1, 1], batch_size=4)
    assert found.units == 50
    for name, sign in (("v", 1), ("back", -1)):
        for i, t in enumerate((0, 0.1, 1)):
            expected = (bits(x) == bits(x + sign * t * v)).double().mean(1)
            torch.testing.assert_close(found.shared[name][i], expected, rtol=1e-15, atol=0)


def test_without_activations() -> None:
    x = torch.rand(3, 4)
    assert cell_sizes(nn.Linear(4, 2), x, {"v": random_directions(x)}).sizes["v"].tolist() == [INF] * 3
    with pytest.raises(ValueError, match="got none: there is no pattern"):
        shared_activations(nn.Linear(4, 2), x, {"v": random_directions(x)}, distances=[1])


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.GELU(), r"got gelu in module '1\.0'"),
        (nn.Sigmoid(), r"got sigmoid in module '1\.0'"),
        (nn.Softmax(1), r"got softmax in module '1\.0'"),
        (nn.LayerNorm(4), r"got layer_norm in module '1\.0'"),
        (_Calls(torch.tanh), r"got tanh in module '1\.0'"),
        (nn.AdaptiveMaxPool1d(2), r"got adaptive_max_pool1d in module '1\.0'"),
        (_Calls(lambda x: F.hardsigmoid(x) * x), r"got mul by a value that depends on the inputs in module '1\.0'"),
        (_Calls(lambda x: torch.einsum("ni,nj->nj", x, x)), "got einsum by a value"),
        (_Calls(lambda x: torch.einsum("ni,nj->nj", [x, x])), "got einsum by a value"),
        (_Calls(lambda x: (x.unsqueeze(2) @ x.unsqueeze(1)).flatten(1)), "got matmul by a value"),
        (_Calls(lambda x: torch.ones(4) / x), r"got (true)?div"),
        (_Calls(lambda x: 1 / x), r"got (rtruediv|rdiv|reciprocal)"),
        (_Calls(lambda x: torch.where(x > 0, x, 0.1 * x)), "got gt"),
        (_Calls(torch.log1p), "got log1p"),
        (_Calls(lambda x: 2**x), "got rpow"),
    ],
    ids=repr,
)
def test_where_patterns_do_not_apply(module: nn.Module, message: str) -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Sequential(module)), torch.rand(3, 4)
    for call in (cell_sizes, lambda *args: shared_activations(*args, distances=[1])):
        with pytest.raises(ValueError, match=message):
            call(model, x, {"v": random_directions(x)})
    assert not model[1][0]._forward_pre_hooks, "hooks are gone"
    with pytest.raises(ValueError, match="got tanh: patterns"):
        cell_sizes(lambda x: torch.tanh(x), x, {"v": random_directions(x)})


def test_a_function_of_the_weights_alone_is_no_activation() -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    x = torch.rand(2, 4)
    v = random_directions(x)
    sizes = cell_sizes(lambda x: F.relu(x @ weight.tanh().T), x, {"v": v}).sizes["v"]
    assert torch.equal(
        sizes, cell_sizes(nn.Sequential(_Calls(lambda x: x @ weight.tanh().T), nn.ReLU()), x, {"v": v}).sizes["v"]
    )


def test_an_activation_of_the_weights_is_no_unit() -> None:
    """Neither a clamped scalar nor a clamped row counts, whatever their shapes."""
    layer, x = nn.Linear(4, 5), torch.rand(6, 4)
    scale, row = torch.tensor(3.0), torch.ones(1, 5)
    v = {"v": random_directions(x)}
    plain = shared_activations(nn.Sequential(layer, nn.ReLU()), x, v, distances=[0.5, 3])
    mixed = _Calls(lambda x: scale.clamp(max=2) * F.relu(layer(x)) * row.clamp(min=0.5))
    found = shared_activations(mixed, x, v, distances=[0.5, 3])
    assert found.units == plain.units == 5
    assert torch.equal(found.shared["v"], plain.shared["v"])
    assert float(plain.shared["v"].min()) < 1


def test_arguments_by_name() -> None:
    layer, x = nn.Linear(4, 5), torch.rand(6, 4)
    v = {"v": random_directions(x)}
    for one, other in (
        (lambda x: F.relu(layer(x)), lambda x: F.relu(input=layer(x))),
        (lambda x: layer(x).clamp(0, 1), lambda x: torch.clamp(input=layer(x), min=0, max=1)),
    ):
        assert torch.equal(cell_sizes(one, x, v).sizes["v"], cell_sizes(other, x, v).sizes["v"])
        first, second = (shared_activations(model, x, v, distances=[1]).shared["v"] for model in (one, other))
        assert torch.equal(first, second)


def test_left_as_found_and_repeatable() -> None:
    model = nn.Sequential(_two_neurons(), nn.Dropout(0.5), nn.BatchNorm1d(2), nn.ReLU()).double().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.rand(7, 2, dtype=torch.float64)
    kept, directions = x.clone(), {"v": random_directions(x)}
    one, two = cell_sizes(model, x, directions), cell_sizes(model, x, directions, batch_size=2)
    assert torch.equal(one.sizes["v"], two.sizes["v"])
    first, second = (shared_activations(model, x, directions, distances=[0.5], batch_size=n) for n in (128, 3))
    assert torch.equal(first.shared["v"], second.shared["v"])
    assert torch.equal(x, kept)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_single_precision_agrees_with_double() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3), nn.ReLU())
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    v = random_directions(x)
    single = cell_sizes(model, x, {"v": v}).sizes["v"]
    double = cell_sizes(model.double(), x.double(), {"v": v.double()}).sizes["v"]
    assert single.dtype == torch.float32
    # Gaps of order 1 are rounded by 1e-7 and divided by slopes that are not far below 1.
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-5)


def test_plots() -> None:
    pytest.importorskip("matplotlib")
    x = torch.rand(5, 2, dtype=torch.float64)
    directions = {"one": random_directions(x), "two": random_directions(x, seed=1)}
    (axis,) = shared_activations(_two_neurons(), x, directions, distances=[0, 1, 2]).plot().axes
    assert [line.get_label() for line in axis.lines] == ["one", "two"]
    (axis,) = cell_sizes(_two_neurons(), x, directions).plot().axes
    assert axis.get_xscale() == "log"
    assert len(axis.lines) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"directions": {}}, "directions: expected at least one"),
        ({"directions": {"v": torch.zeros(3, 2, dtype=torch.float64)}}, "directions: expected rows of 'v'"),
        ({"distances": [-1]}, "distances: expected"),
        ({"batch_size": 0}, "batch_size: expected"),
    ],
)
def test_errors(changed: dict[str, object], message: str) -> None:
    x = torch.rand(3, 2, dtype=torch.float64)
    call = {"inputs": x, "directions": {"v": random_directions(x)}, "distances": [1.0]} | changed
    with pytest.raises(ValueError, match=message):
        shared_activations(_two_neurons(), **call)
    if "distances" not in changed:
        del call["distances"]
        with pytest.raises(ValueError, match=message):
            cell_sizes(_two_neurons(), **call)
