"""Jacobians of logits and layers beside those that autograd finds entry by entry."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from pyrobust.analysis import jacobian, jacobian_spectrum, layer_outputs
from pyrobust.analysis.jacobian import push_forward
from pyrobust.analysis.work import Work
from tests.training.pieces import batch_of, jacobians, relu_net


def conv_net(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        ).to(dtype)  # fmt: skip


def images(count: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=dtype)


def test_jacobians_of_the_logits_entry_by_entry() -> None:
    model, x = relu_net(), batch_of(5).inputs
    # The sums of a product of matrices in another order: a few units in the last place.
    torch.testing.assert_close(jacobian(model, x), jacobians(model, x), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("layer", ["0", "1", "2", "3", "4", "5", None])
def test_jacobians_of_layers(layer: str | None) -> None:
    """The part of a Sequential up to the layer is a network of its own; in-place layers behind it change nothing."""
    model, x = conv_net().eval(), images()
    part = model if layer is None else model[: int(layer) + 1]
    found = jacobian(model, x, layer)
    expected = jacobians(nn.Sequential(part, nn.Flatten()), x)
    assert found.shape == (5, expected.shape[1], 2, 4, 4)
    torch.testing.assert_close(found.flatten(2), expected, rtol=1e-12, atol=1e-14)


def test_a_linear_network_has_its_matrix() -> None:
    weight = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    found = jacobian(lambda x: x @ weight.T, torch.rand(3, 4))
    assert torch.equal(found, weight.expand(3, 7, 4))  # products with one-hot rows are exact
    assert found.dtype == torch.float32


def test_the_forward_pass_ends_at_the_layer() -> None:
    reached: list[str] = []
    model = conv_net().eval()
    handle = model[3].register_forward_pre_hook(lambda *_: reached.append("pool"))
    layer_outputs(model, "2")(images())
    assert not reached
    layer_outputs(model)(images())
    handle.remove()
    assert reached == ["pool"]
    assert not model[2]._forward_hooks


def test_caps_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample at a time, and rows in blocks of two, give the same values and as many parts as they should."""
    module = sys.modules[jacobian.__module__]  # the function hides the module of its name
    model, x = conv_net().eval(), images()
    whole = jacobian(model, x, "0")
    sizes: list[int] = []

    class Recorded(Work):
        def map(self, name, parts, compute, size=len):  # type: ignore[no-untyped-def]
            sizes.extend(len(part) for part in parts)
            return super().map(name, parts, compute, size)

    monkeypatch.setattr(module, "CAP", 1)
    monkeypatch.setattr(module, "SEEDS", 128)  # 64 outputs: two rows a block
    torch.testing.assert_close(jacobian(model, x, "0", work=Recorded()), whole, rtol=1e-12, atol=1e-14)
    assert sizes == [1] * 5
    monkeypatch.undo()
    sizes.clear()
    jacobian(model, x, batch_size=2, work=Recorded())
    assert sizes == [2, 2, 1]


def test_the_model_is_left_as_found() -> None:
    model = conv_net().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model[0].weight.grad = torch.ones_like(model[0].weight)
    random = torch.get_rng_state()
    in_training = jacobian(model, images())
    assert model.training
    assert model[1].training
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(in_training, jacobian(model.eval(), images()))
    assert torch.equal(in_training, jacobian(model.requires_grad_(False), images()))


class Cubed(torch.autograd.Function):
    """Without a forward-mode derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * grad


class CubedOnce(Cubed):
    """Without a second derivative either."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return Cubed.backward(ctx, grad)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.block = nn.TransformerEncoderLayer(4, 2, 8, activation="gelu", batch_first=True, dropout=0.0).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x.flatten(1).unflatten(1, (-1, 4))).mean(1)


@pytest.mark.parametrize(
    "model", [Attending().eval(), lambda x: Cubed.apply(x).flatten(1)], ids=["attention", "custom"]
)
def test_products_where_an_operation_has_no_forward_mode(model) -> None:
    x = images(3)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    rows = jacobian(model, x)
    fast = torch.backends.mha.get_fastpath_enabled()
    found = push_forward(model, x, v)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    torch.testing.assert_close(found, (rows.flatten(2) @ v.flatten(1).unsqueeze(2)).squeeze(2), rtol=1e-12, atol=1e-13)
    largest = jacobian_spectrum(model, x, k=1, tolerance=1e-7).values
    torch.testing.assert_close(largest, torch.linalg.svdvals(rows.flatten(2))[:, :1], rtol=1e-10, atol=0)


def test_products_that_cannot_be_had() -> None:
    x = images(2)
    with pytest.raises(ValueError, match="model: expected forward-mode or second derivatives"):
        push_forward(lambda x: CubedOnce.apply(x).flatten(1), x, torch.ones_like(x))


def test_on_a_gpu(cuda: torch.device) -> None:
    model, x = conv_net(torch.float32), images(5, torch.float32)
    expected = jacobian(model, x, "3")
    found = jacobian(model.to(cuda), x.to(cuda), "3")
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-2, atol=1e-3)  # TF32 keeps ten bits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "nine"}, "layer: expected one of 0, 1, 2, 3, 4, 5, got 'nine'"),
        ({"layer": ""}, "layer: expected one of"),
        ({"batch_size": 0}, "batch_size: expected an integer >= 1"),
        ({"inputs": torch.full((1, 2, 4, 4), torch.nan)}, "inputs: expected finite"),
    ],
)
def test_errors(options: dict, message: str) -> None:
    inputs = options.pop("inputs", images())
    with pytest.raises(ValueError, match=message):
        jacobian(conv_net(), inputs, **options)


def test_outputs_that_cannot_be_derived() -> None:
    with pytest.raises(ValueError, match="layer: expected one of no module"):
        jacobian(lambda x: x, images(), "0")
    with pytest.raises(ValueError, match="differentiable operations"):
        jacobian(lambda x: x.detach().flatten(1), images())
    with pytest.raises(ValueError, match=r"model: expected floating outputs of shape \(1, ...\)"):
        jacobian(lambda x: x.sum(), images())
    unused = conv_net()
    unused.add_module("spare", nn.Identity())
    unused.forward = lambda x: nn.Sequential(*list(unused)[:-1])(x)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="'spare' takes no part"):
        jacobian(unused, images(), "spare")
