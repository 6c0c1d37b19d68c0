"""Spectral norms, input gradients and Jacobians as penalties; and what all penalties on the Jacobian share."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrobust.attacks import pgd
from pyrobust.data import digits
from pyrobust.models import accuracy, small_cnn
from pyrobust.training import (
    AdversarialTraining,
    Batch,
    CrossEntropy,
    InputGradient,
    JacobianFrobenius,
    LogitDistance,
    Objective,
    OperatorNorm,
    SpectralNorm,
    Term,
    interpolation,
)
from pyrobust.training.operator_norm import jacobian_product
from tests.training.pieces import batch_of, gradients, jacobians, relu_net, value


def test_spectral_norm_of_all_layers() -> None:
    model = small_cnn()
    weights = [m.weight for m in model if isinstance(m, (nn.Linear, nn.Conv2d))]
    expected = sum(float(torch.linalg.svdvals(w.detach().flatten(1).double())[0] ** 2) / 2 for w in weights)
    term = SpectralNorm(model, steps=500)
    batch = Batch(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), torch.arange(2))
    loss = value(term, model, batch)
    assert float(loss) == pytest.approx(expected, rel=1e-5)  # float32
    found = gradients(model, loss)
    reference = gradients(model, sum(torch.linalg.matrix_norm(w.flatten(1), 2) ** 2 / 2 for w in weights))  # type: ignore[arg-type]
    torch.testing.assert_close(found, reference, rtol=1e-3, atol=1e-4)  # singular vectors, to (σ₂/σ₁)⁵⁰⁰ and float32

    slow = SpectralNorm(model)
    values = [float(value(slow, model, batch)) for _ in range(300)]
    assert values[0] < 0.99 * expected
    assert all(b >= a * (1 - 1e-5) for a, b in itertools.pairwise(values))  # σ grows, but for rounding
    assert values[-1] == pytest.approx(expected, rel=1e-4)
    assert not torch.equal(SpectralNorm(model, seed=1).u, SpectralNorm(model).u)
    assert torch.equal(SpectralNorm(model).u, SpectralNorm(model).u)
    other = SpectralNorm(model)
    other.load_state_dict(slow.state_dict())
    assert float(value(other, model, batch)) == float(value(slow, model, batch))
    assert SpectralNorm(relu_net()).u.dtype == torch.float64


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("power", [1, 2])
def test_input_gradient(norm: str, power: int) -> None:
    model = relu_net()
    with torch.no_grad():
        weight, batch = model[5].weight.clone(), batch_of(3)

    def plain(last: Tensor) -> Tensor:
        """By the chain rule on probabilities: ∇CE = Jᵀ(p − e_y)."""
        total = torch.zeros((), dtype=torch.float64)
        for x, y in zip(batch.inputs.detach(), batch.labels, strict=True):
            a1 = model[1].weight @ x + model[1].bias
            a2 = model[3].weight @ a1.relu() + model[3].bias
            p = torch.softmax(last @ a2.relu() + model[5].bias, 0)
            back = last.T @ (p - F.one_hot(y, 4))
            back = model[3].weight.T @ (back * (a2 > 0))
            grad = model[1].weight.T @ (back * (a1 > 0))
            size = {"l1": grad.abs().max(), "l2": grad.square().sum().sqrt(), "linf": grad.abs().sum()}[norm]
            total = total + size**power / power
        return total / 3

    loss = value(InputGradient(norm, power), model, batch_of(3))
    assert float(loss) == pytest.approx(float(plain(weight)), rel=1e-12)
    (found,) = torch.autograd.grad(loss, model[5].weight)
    last = weight.requires_grad_()
    (expected,) = torch.autograd.grad(plain(last), last)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "term",
    [InputGradient("l2"), InputGradient("linf", 1), JacobianFrobenius(), JacobianFrobenius(2)],
    ids=["l2", "l1", "frobenius", "projections"],
)
def test_second_derivatives_by_differences(term: Term) -> None:
    """A smooth network, so that central differences of the penalty itself are the derivative."""
    torch_model = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4)).double()
    with torch.no_grad():
        for i, parameter in enumerate(torch_model.parameters()):
            parameter.copy_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
            )

    def penalty(weight: Tensor) -> Tensor:
        batch = batch_of(3)
        batch.inputs.requires_grad_()
        call = lambda x: torch.func.functional_call(torch_model, {"0.weight": weight}, (x,))  # noqa: E731
        return term(call, batch)

    assert torch.autograd.gradcheck(penalty, (torch_model[0].weight.detach().clone().requires_grad_(),))


def test_jacobian_frobenius() -> None:
    model = relu_net()
    exact = jacobians(model, batch_of(5).inputs).square().sum((1, 2)).mean() / 2
    assert float(value(JacobianFrobenius(), model, batch_of(5))) == pytest.approx(float(exact), rel=1e-12)

    draws = torch.stack([value(JacobianFrobenius(3), model, batch_of(5, step=step)).detach() for step in range(400)])
    error = float(draws.std()) / math.sqrt(len(draws))
    assert float(draws.std()) > 0
    assert abs(float(draws.mean() - exact)) < 4 * error  # unbiased
    one = torch.stack([value(JacobianFrobenius(1), model, batch_of(5, step=step)).detach() for step in range(400)])
    assert float(one.var() / draws.var()) == pytest.approx(3, rel=0.5)  # independent: the variance falls as 1 / m
    assert torch.equal(value(JacobianFrobenius(3), model, batch_of(5)), value(JacobianFrobenius(3), model, batch_of(5)))


@pytest.mark.parametrize(
    ("kind", "base", "changes"),
    [
        (OperatorNorm, {"steps": 2}, [{"norm": "linf"}, {"logit_norm": "l1"}, {"steps": 3}, {"alpha": 0.1}, {"eps": 0.3}, {"power": 1}]),
        (LogitDistance, {"eps": 0.1, "steps": 2}, [{"eps": 0.2}, {"norm": "linf"}, {"logit_norm": "l1"}, {"steps": 3}, {"step_size": 0.01}, {"power": 2}]),
        (InputGradient, {}, [{"norm": "linf"}, {"power": 1}]),
        (JacobianFrobenius, {}, [{"projections": 1}, {"projections": 2}]),
    ],
)  # fmt: skip
def test_every_argument_counts(kind: type[Term], base: dict[str, object], changes: list[dict[str, object]]) -> None:
    model = relu_net()
    values = [float(value(kind(**base | change), model, batch_of(4)).detach()) for change in ({}, *changes)]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OperatorNorm("l0"), "norm: expected one of l1, l2, linf"),
        (lambda: OperatorNorm("l2", "l3"), "norm: expected one of"),
        (lambda: OperatorNorm(steps=0), "steps: expected an integer >= 1"),
        (lambda: OperatorNorm(alpha=0), "alpha: expected a finite number > 0"),
        (lambda: OperatorNorm(eps=0), "eps: expected a finite number > 0"),
        (lambda: OperatorNorm(power=3), "power: expected 1 or 2"),
        (lambda: OperatorNorm(warm_start=(0, 4)), "samples: expected an integer"),
        (lambda: LogitDistance(0), "eps: expected a finite number > 0"),
        (lambda: LogitDistance(1, step_size=-1), "step_size: expected a finite number >= 0"),
        (lambda: LogitDistance(1, power=0), "power: expected 1 or 2"),
        (lambda: LogitDistance(1, steps=1.5), "steps: expected an integer"),
        (lambda: SpectralNorm(nn.ReLU()), "model: expected at least one"),
        (lambda: SpectralNorm(relu_net(), steps=0), "steps: expected an integer"),
        (lambda: InputGradient("l0"), "norm: expected one of"),
        (lambda: InputGradient(power=True), "power: expected 1 or 2"),
        (lambda: JacobianFrobenius(0), "projections: expected an integer"),
        (lambda: interpolation(1.5, (1, LogitDistance(1)), (1, OperatorNorm())), "mix: expected a finite number"),
        (lambda: interpolation(0.5, (-1, LogitDistance(1)), (1, OperatorNorm())), "adversarial: expected a weight"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_calls_are_named() -> None:
    model = relu_net()
    with pytest.raises(ValueError, match=r"batch\.inputs: expected a tensor that requires its gradient"):
        InputGradient()(model, batch_of(2))
    with pytest.raises(ValueError, match="model: expected layers of"):
        SpectralNorm(relu_net(sizes=(6, 5, 4)))(model, batch_of(2))
    opaque = torch.compiler.disable(lambda x: torch.zeros(len(x), 4, dtype=x.dtype) + x.detach().sum())
    with pytest.raises(ValueError, match="forward-mode derivative"):
        jacobian_product(opaque, torch.rand(2, 6), torch.rand(2, 6))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_images_and_half_precision(layout: str, device: torch.device) -> None:
    """On images, float32, in any memory layout, and under autocast near to it."""
    model = small_cnn().to(device)
    images = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))[:, :1].to(device)
    if layout == "channels_last":
        images = images.to(memory_format=torch.channels_last)
    terms = {
        "value": OperatorNorm(steps=4), "differences": OperatorNorm("linf", "l2", 4, eps=0.1), "warm": OperatorNorm(warm_start=(6, 10)),
        "finite": OperatorNorm(steps=4, alpha=0.5), "distance": LogitDistance(0.1), "gradient": InputGradient("linf", 1),
        "frobenius": JacobianFrobenius(), "projections": JacobianFrobenius(2), "spectral": SpectralNorm(model, 50),
    }  # fmt: skip
    for name, term in terms.items():
        found = []
        for enabled in (False, True):
            own = copy.deepcopy(term).to(device)
            batch = Batch(images.clone(), torch.arange(6, device=device), torch.arange(6, device=device))
            with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
                loss = value(own, model, batch)
            assert loss.dtype == torch.float32
            assert gradients(model, loss).isfinite().all()
            found.append(float(loss))
        # bfloat16 keeps 8 bits: 0.4 % a rounding, squared, over four layers and as many steps.
        assert found[0] == pytest.approx(found[1], rel=0.15), name
        assert found[0] > 0


@pytest.fixture(scope="module")
def digits_data() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    pytest.importorskip("sklearn")
    data = digits()
    assert data.train is not None
    return data.train, data.test


def fitted(train: tuple[Tensor, Tensor], objective: Objective, epochs: int = 8) -> nn.Module:
    """The small CNN after a few epochs of Adam."""
    model = small_cnn().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    step = 0
    for epoch in range(epochs):
        for ids in torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(epoch)).split(64):
            batch = Batch(train[0][ids], train[1][ids], ids, step=step)
            optimizer.zero_grad()
            objective(model, batch)[0].backward()
            optimizer.step()
            step += 1
    return model.eval()


def test_each_improves_robustness_on_digits(digits_data: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    train, (inputs, labels) = digits_data
    inputs, labels = inputs[:300], labels[:300]

    def robust(model: nn.Module) -> float:
        return accuracy(model, pgd(model, inputs, labels, eps=1.0, norm="l2", steps=10), labels)

    plain = fitted(train, Objective(ce=CrossEntropy()))
    before = robust(plain)
    objectives = {
        "d.d. SNR": Objective(ce=CrossEntropy(), penalty=(1.0, OperatorNorm(steps=1, warm_start=(len(train[0]), 10)))),
        "differences": Objective(ce=CrossEntropy(), penalty=(1.0, OperatorNorm(steps=1, eps=0.5))),
        "interpolation": interpolation(0.5, (1.0, AdversarialTraining(1.0, "l2", steps=2)), (1.0, OperatorNorm(steps=1, eps=0.5))),
        "distance": Objective(ce=CrossEntropy(), penalty=(1.0, LogitDistance(0.5, steps=2))),
        "gradient": Objective(ce=CrossEntropy(), penalty=(2.0, InputGradient())),
        "Frobenius": Objective(ce=CrossEntropy(), penalty=(0.1, JacobianFrobenius(1))),
    }  # fmt: skip
    for name, objective in objectives.items():
        model = fitted(train, objective)
        # 0.02 of 300 are robust after plain training, 0.16 to 0.30 after these; 0.08 is more than three standard errors of 0.1.
        assert robust(model) > before + 0.08, name
        assert accuracy(model, inputs, labels) > 0.8, name
    # The global penalty is not claimed to make robust, but to lower the norms of the weights.
    term = SpectralNorm(plain, 50)
    batch = Batch(train[0][:1], train[1][:1], torch.zeros(1, dtype=torch.int64))
    norms = float(value(term, plain, batch))
    model = fitted(train, Objective(ce=CrossEntropy(), penalty=(0.03, SpectralNorm(plain))))
    assert float(value(SpectralNorm(model, 50), model, batch)) < 0.8 * norms
    assert accuracy(model, inputs, labels) > 0.8
