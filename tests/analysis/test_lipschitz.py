"""Lipschitz bounds: layers against their matrices, equality for linear networks, and lower below upper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust.analysis import jacobian, jacobian_spectrum, lipschitz_bounds, lipschitz_lower, lipschitz_upper
from pyrobust.data import digits
from pyrobust.models import ZCA, MeanStd, cifar_cnn, fit, small_cnn, wide_resnet
from tests.analysis.test_jacobian import conv_net, images
from tests.training.pieces import batch_of, relu_net

MAPS = [
    (nn.Conv1d(2, 3, 3, stride=2), (2, 9)),
    (nn.Conv2d(2, 4, 3, padding=1), (2, 5, 5)),
    (nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2, padding_mode="circular"), (4, 5, 5)),
    (nn.Conv2d(1, 4, 3, padding=1, stride=2, bias=False), (1, 6, 6)),
    (nn.Conv3d(1, 2, 2), (1, 3, 3, 3)),
    (nn.ConvTranspose2d(2, 2, 3, stride=2), (2, 4, 4)),
    (nn.AvgPool2d(3, stride=2), (2, 7, 7)),
    (nn.AdaptiveAvgPool2d(2), (2, 7, 7)),
]


@pytest.mark.parametrize(("layer", "shape"), MAPS)
def test_convolutions_and_averages_as_the_maps_they_are(layer: nn.Module, shape: tuple[int, ...]) -> None:
    (one,) = lipschitz_upper(layer, shape).layers
    matrix = jacobian(layer.double(), torch.zeros(1, *shape, dtype=torch.float64)).flatten(2)
    sigma = float(torch.linalg.svdvals(matrix)[0, 0])
    # Weights start in float32 and are the same in float64; 75 dimensions or fewer: the iteration ends with all of them.
    assert one.estimate == pytest.approx(sigma, rel=1e-12)
    assert one.bound == one.estimate
    layer.float()


def test_bounds_hold_before_the_iteration_has_converged() -> None:
    layer, shape = nn.Conv2d(2, 4, 3, padding=1), (2, 12, 12)
    sigma = float(torch.linalg.svdvals(jacobian(layer, torch.zeros(1, *shape)).flatten(2).double())[0, 0])
    found = [lipschitz_upper(layer, shape, steps=steps) for steps in (20, 60, 200)]
    assert all(one.estimate <= sigma * (1 + 1e-6) <= one.bound * (1 + 1e-6) for one in found)  # σ of float32 entries
    assert [one.bound for one in found] == sorted((one.bound for one in found), reverse=True)
    side, steps = 288, 60
    root = math.log(1.648 * math.sqrt(side) / 1e-9) / (2 * steps - 1)
    assert found[1].bound == pytest.approx(found[1].estimate / math.sqrt(1 - root**2), rel=1e-14)
    assert lipschitz_upper(layer, shape, steps=5).bound == math.inf
    other = lipschitz_upper(layer, shape, steps=20, seed=1)
    assert other.estimate != found[0].estimate


def test_other_layers() -> None:
    norm = nn.BatchNorm1d(3).eval()
    norm.weight.data.copy_(torch.tensor([1.0, -4, 2]))
    norm.running_var.copy_(torch.tensor([1.0, 4, 0.01]))
    expected = {
        norm: 2 / math.sqrt(0.01 + 1e-5),
        nn.BatchNorm2d(3, affine=False).eval(): 1 / math.sqrt(1 + 1e-5),
        MeanStd(0.3, [0.5, 0.25]): 4.0,
        ZCA(torch.zeros(2), torch.tensor([[3.0, 0], [0, 1]])): 3.0,
        nn.LeakyReLU(0.2): 1.0,
        nn.LeakyReLU(-3.0): 3.0,
        nn.PReLU(init=2.0): 2.0,
        nn.ELU(1.5): 1.5,
        nn.Sigmoid(): 0.25,
        nn.Dropout(0.5): 1.0,
        nn.Flatten(): 1.0,
    }
    shapes = {norm: (3,), nn.Flatten: (2, 2)}
    for layer, value in expected.items():
        shape = shapes.get(layer, (3, 2, 2) if isinstance(layer, nn.BatchNorm2d) else (2,))
        assert lipschitz_upper(layer, shape).bound == pytest.approx(value, rel=1e-6), layer


@pytest.mark.parametrize("kind", [nn.Sigmoid, nn.GELU, lambda: nn.GELU("tanh"), nn.SiLU, nn.Tanh, nn.Softplus, nn.ELU, nn.Softsign])  # fmt: skip
def test_slopes_of_activations(kind: type[nn.Module]) -> None:
    x = torch.linspace(-6, 6, 20001, dtype=torch.float64).requires_grad_()
    layer = kind()
    (slopes,) = torch.autograd.grad(layer(x).sum(), x)
    bound = lipschitz_upper(layer, (3,)).bound
    assert float(slopes.abs().max()) <= bound <= 1.005 * float(slopes.abs().max())


@pytest.mark.parametrize(
    ("pool", "windows"), [(nn.MaxPool2d(2), 1), (nn.MaxPool2d(3, stride=2), 4), (nn.MaxPool1d(3, stride=1), 3)]
)
def test_max_pools(pool: nn.Module, windows: int) -> None:
    """An entry that is the largest of all its windows moves as many outputs."""
    shape = (1, 9, 9) if isinstance(pool, nn.MaxPool2d) else (1, 9)
    x = torch.zeros(1, *shape)
    x[(..., *([4] * (len(shape) - 1)))] = 1
    bound = lipschitz_upper(pool, shape).bound
    assert bound == math.sqrt(windows)
    assert float(pool(x).norm()) == pytest.approx(bound)


def test_a_layer_that_comes_twice_counts_twice() -> None:
    layer, pool = nn.Linear(2, 2, bias=False), nn.MaxPool2d(2)
    layer.weight.data.copy_(torch.diag(torch.tensor([3.0, 1.0])))
    found = lipschitz_upper(nn.Sequential(layer, nn.ReLU(), layer), (2,))
    assert [one.name for one in found.layers] == ["0", "1", "2"]
    assert found.bound == pytest.approx(9, rel=1e-12)
    shrunk = lipschitz_upper(nn.Sequential(pool, pool, nn.Flatten(), nn.Linear(4, 2)), (1, 8, 8))
    assert len(shrunk.layers) == 4


@pytest.mark.parametrize("orthogonal", [True, False])
def test_equality_for_linear_networks(orthogonal: bool) -> None:
    """One linear layer, or orthogonal ones: the lower bound is the upper one."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(6, 6, generator=generator, dtype=torch.float64) for _ in range(3)]
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in made[: 3 if orthogonal else 1])).double()
    for layer, matrix in zip(model, made, strict=False):
        layer.weight.data.copy_(torch.linalg.qr(matrix)[0] if orthogonal else matrix)
    found = lipschitz_bounds(model, torch.rand(4, 6, dtype=torch.float64), eps=0.1, steps=2)
    bound = 1.0 if orthogonal else float(torch.linalg.svdvals(made[0])[0])
    assert found.upper.bound == pytest.approx(bound, rel=1e-13)
    assert found.lower.at_inputs.tolist() == pytest.approx([bound] * 4, rel=1e-13)
    assert found.lower.near.tolist() == pytest.approx([bound] * 4, rel=1e-13)


def test_lower_is_below_upper() -> None:
    for model, x in (
        (relu_net(batch_norm=True).eval(), batch_of(6).inputs),
        (conv_net().eval(), images(4)),
        (small_cnn(), torch.rand(4, 1, 8, 8)),
    ):
        found = lipschitz_bounds(model, x, eps=0.5, steps=10)
        assert bool((found.lower.at_inputs <= found.lower.near).all())
        assert float(found.lower.near.max()) < found.upper.bound


def test_the_steepest_points_are_where_they_should_be() -> None:
    """Inside the ball and the box, with the slope that is claimed for them."""
    model, x = relu_net(), batch_of(8).inputs
    eps = 0.6
    found = lipschitz_lower(model, x, eps=eps)
    sigma = torch.linalg.svdvals(jacobian(model, found.points))[:, 0]
    at_inputs = torch.linalg.svdvals(jacobian(model, x))[:, 0]
    torch.testing.assert_close(found.at_inputs, at_inputs, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.near, torch.maximum(sigma, at_inputs), rtol=1e-13, atol=0)
    assert bool(((found.points - x).norm(dim=1) <= eps * (1 + 1e-14)).all())
    assert float(found.points.min()) >= 0
    assert float(found.points.max()) <= 1


def test_the_ascent_finds_a_steep_place() -> None:
    """Slope 1 in |x₁| ≤ 0.3 around 0 and 10 beyond: nothing at the input says so, and the ball reaches it."""

    class Bent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            beyond = (x.abs() - 0.3).clamp_min(0).copysign(x) * 9
            return torch.stack([x[:, 0] + beyond[:, 0], 0.1 * x[:, 1]], 1)

    x = torch.zeros(20, 2, dtype=torch.float64)
    wide = lipschitz_lower(Bent(), x, eps=0.5, restarts=4, bounds=(-1.0, 1.0))
    assert wide.at_inputs.tolist() == pytest.approx([1.0] * 20, rel=1e-13)
    assert wide.near.tolist() == pytest.approx([10.0] * 20, rel=1e-13)
    boxed = lipschitz_lower(Bent(), x, eps=0.5, bounds=(-0.2, 0.2))
    assert boxed.near.tolist() == pytest.approx([1.0] * 20, rel=1e-13)
    assert lipschitz_lower(Bent(), x, eps=0.25, bounds=(-1.0, 1.0)).near.tolist() == pytest.approx(
        [1.0] * 20, rel=1e-13
    )


def test_better_than_random_points_for_twice_the_passes() -> None:
    """80 backward passes of the ascent against 16 random points, each of which takes ten for its logits."""
    pytest.importorskip("sklearn")
    data = digits()
    assert data.train is not None
    model = fit(small_cnn(), *data.train, epochs=3, batch_size=32)
    x, eps = data.test[0][:40], 0.8
    best = torch.zeros(40, dtype=torch.float64)
    for step in range(16):
        shift = ops.sample_lp_ball(x, 2.0, eps, step=step)
        best = torch.maximum(best, jacobian_spectrum(model, (x + shift).clamp(0, 1)).values[:, 0])
    found = lipschitz_lower(model, x, eps=eps).near
    assert float((found > best).double().mean()) >= 0.9
    assert float((found / best).median()) > 1.05


def test_arguments_matter_and_bits_repeat() -> None:
    model, x = relu_net(sizes=(20, 60, 60, 6)).train(), batch_of(5, 20).inputs
    random = torch.get_rng_state()
    one = lipschitz_lower(model, x, eps=0.3, steps=5)
    assert torch.equal(random, torch.get_rng_state())
    assert model.training
    assert torch.equal(one.points, lipschitz_lower(model, x, eps=0.3, steps=5).points)
    for options in ({"seed": 1}, {"eps": 0.2}, {"steps": 6}, {"restarts": 2}, {"bounds": (0.2, 0.8)}):
        assert not torch.equal(one.points, lipschitz_lower(model, x, **({"eps": 0.3, "steps": 5} | options)).points)
    assert bool((lipschitz_lower(model, x, eps=0.3, steps=5, restarts=4).near >= one.near).all())
    torch.testing.assert_close(lipschitz_lower(model, x, eps=0.3, steps=5, batch_size=2).near, one.near)


def test_errors() -> None:
    x = torch.rand(2, 3, 32, 32)
    with pytest.raises(ValueError, match=r"no Lipschitz constant is known of _Unit at '1'"):
        lipschitz_upper(wide_resnet(10, 1), (3, 32, 32))

    class Squared(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs).square()

    with pytest.raises(ValueError, match="no Lipschitz constant is known of Squared"):
        lipschitz_upper(Squared(2, 2), (2,))
    with pytest.raises(ValueError, match="no Lipschitz constant is known of LayerNorm"):
        lipschitz_upper(nn.LayerNorm(3), (3,))
    with pytest.raises(ValueError, match="steps: expected an integer >= 1"):
        lipschitz_upper(cifar_cnn(), (3, 32, 32), steps=0)
    for options, message in (
        ({"eps": 0.0}, "eps: expected a finite number > 0"),
        ({"eps": 1.0, "restarts": 0}, "restarts: expected an integer >= 1"),
        ({"eps": 1.0, "bounds": (0.5, 1.0)}, "inputs: expected values inside bounds"),
    ):
        with pytest.raises(ValueError, match=message):
            lipschitz_lower(cifar_cnn(), x, **options)


def test_plot() -> None:
    pytest.importorskip("matplotlib")
    found = lipschitz_bounds(relu_net(), batch_of(5).inputs, eps=0.1, steps=2)
    (axis,) = lipschitz_bounds(conv_net().eval(), images(), eps=0.1, steps=2, layer_steps=1).plot().axes
    assert all(math.isfinite(end) for end in axis.get_xlim()), "the bound is inf"
    (axis,) = found.plot().axes
    at_inputs, near, bound = axis.lines
    assert at_inputs.get_xdata() == pytest.approx(found.lower.at_inputs.sort().values)
    assert near.get_xdata() == pytest.approx(found.lower.near.sort().values)
    assert bound.get_xdata()[0] == pytest.approx(found.upper.bound)
    (alone,) = found.lower.plot().axes
    assert [list(line.get_xdata()) for line in alone.lines] == [list(line.get_xdata()) for line in axis.lines[:2]]
    (layers,) = found.upper.plot().axes
    shown = [layer.bound for layer in found.upper.layers if layer.bound != 1]
    assert len(shown) > 1
    assert list(layers.lines[0].get_xdata()) == pytest.approx(shown)
