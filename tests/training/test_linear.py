"""Two-class linear models and their exact worst-case loss, against closed forms and against the ball itself."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrobust import ops
from pyrobust.data import digits
from pyrobust.models import MeanStd, TwoClassLinear
from pyrobust.training import Batch, Objective, Term
from pyrobust.training.adversarial import AdversarialTraining
from pyrobust.training.decay import L1Decay, L2Decay
from pyrobust.training.linear import LinearWorstCase, Loss

EXPONENTS = {"linf": math.inf, "l2": 2.0, "l1": 1.0}


@pytest.fixture(autouse=True)
def _one_thread(threads) -> None:
    threads(1)


def threes_and_sevens() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """scikit-learn's digits: class 1 the threes and class 0 the sevens; (training part, test part)."""
    source = digits()
    assert source.train is not None

    def part(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        chosen = (labels == 3) | (labels == 7)
        return inputs[chosen], (labels[chosen] == 3).long()

    return part(*source.train), part(*source.test)


def case(count: int = 12, features: int = 7, seed: int = 0) -> tuple[TwoClassLinear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    model = TwoClassLinear(features, bias=True, seed=seed).double()
    with torch.no_grad():
        model.bias.fill_(0.1)
    inputs = torch.rand(count, features, dtype=torch.float64, generator=generator)
    return model, inputs, torch.arange(count) % 2


def loss_of(term: LinearWorstCase, model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    return Objective(only=term)(model, Batch(inputs.detach().clone(), labels, torch.arange(len(labels))))[0]


def signs(labels: Tensor) -> Tensor:
    return 2.0 * labels.double() - 1


def test_two_logits_of_one_score() -> None:
    model, inputs, labels = case()
    score = inputs @ model.weight[0] + model.bias
    logits = model(inputs)
    torch.testing.assert_close(logits, torch.stack([-score / 2, score / 2], dim=1))
    torch.testing.assert_close(F.cross_entropy(logits, labels), (1 + (-signs(labels) * score).exp()).log().mean())
    torch.testing.assert_close(logits.softmax(1)[:, 1], score.sigmoid())
    images = inputs[:, :6].reshape(12, 1, 2, 3)
    assert TwoClassLinear(6).double()(images).shape == (12, 2)
    assert torch.equal(TwoClassLinear(6, seed=3).weight, TwoClassLinear(6, seed=3).weight)
    assert not torch.equal(TwoClassLinear(6, seed=3).weight, TwoClassLinear(6, seed=4).weight)
    assert TwoClassLinear(6).bias is None
    with pytest.raises(ValueError, match="features: expected"):
        TwoClassLinear(0)


def test_binary_weights_pass_gradients_straight_through() -> None:
    model = TwoClassLinear(4, binarised=True).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, -0.1, 0.0, 0.2]]))
    torch.testing.assert_close(model.direction.detach(), torch.tensor([[0.2, -0.2, 0.0, 0.2]], dtype=torch.float64))
    inputs = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(inputs)[:, 1] * 2, inputs @ model.direction[0])
    (grad,) = torch.autograd.grad(model(inputs)[:, 1].sum(), model.weight)
    torch.testing.assert_close(grad[0], inputs.sum(0) / 2)


@pytest.mark.parametrize("bias", [False, True])
def test_the_expert_is_the_difference_of_the_means(bias: bool) -> None:
    (inputs, labels), _ = threes_and_sevens()
    model = TwoClassLinear(64, bias=bias).initialise_as_expert(inputs, labels)
    low, high = inputs[labels == 0].mean(0).flatten(), inputs[labels == 1].mean(0).flatten()
    torch.testing.assert_close(model.weight.detach()[0], high - low)
    if bias:
        distance = torch.stack([(inputs.flatten(1) - mean).norm(dim=1) for mean in (low, high)], dim=1)
        assert torch.equal(model(inputs).argmax(1), distance.argmin(1))
    for wrong in (labels * 0, labels + 1, labels * 2):
        with pytest.raises(ValueError, match="labels: expected"):
            model.initialise_as_expert(inputs, wrong)


@pytest.mark.parametrize("norm", list(EXPONENTS))
@pytest.mark.parametrize("loss", ["softplus", "hinge"])
def test_it_is_the_worst_case_of_the_ball(norm: str, loss: Loss) -> None:
    """The loss at the point r = −eps y v, v the dual direction of w, written out; and no random point has a larger one."""
    model, inputs, labels = case()
    eps = 0.3
    w = model.weight.detach()[0]
    one_hot = F.one_hot(w.abs().argmax(), len(w)).double() * w.sign()
    v = {"linf": w.sign(), "l2": w / w.norm(), "l1": one_hot}[norm]
    value = loss_of(LinearWorstCase(loss, norm=norm, eps=eps), model, inputs, labels)

    def loss_at(points: Tensor) -> Tensor:
        margin = signs(labels) * (points @ w + model.bias.detach())
        return torch.clamp(1 - margin, min=0) if loss == "hinge" else torch.log1p((-margin).exp())

    worst = loss_at(inputs - eps * signs(labels).unsqueeze(1) * v)
    torch.testing.assert_close(value.detach(), worst.mean())
    for step in range(200):
        moved = inputs + ops.sample_lp_ball(inputs, EXPONENTS[norm], eps, step=step)
        assert bool((loss_at(moved) <= worst + 1e-12).all())  # rounding of a few sums of 7 values below 1


def test_equations_5_and_7() -> None:
    """ζ(y s − eps ‖w‖₂) and ζ(−(y s − eps ‖w‖₁)), each paper's ζ in its own orientation; eps = 0 is cross-entropy."""
    model, inputs, labels = case()
    s = signs(labels) * (inputs @ model.weight[0] + model.bias).detach()
    w = model.weight.detach()[0]
    for norm, size in (("l2", w.pow(2).sum().sqrt()), ("linf", w.abs().sum()), (1, w.abs().max())):
        value = loss_of(LinearWorstCase(norm=norm, eps=0.2), model, inputs, labels)
        torch.testing.assert_close(value.detach(), torch.log(1 + torch.exp(-(s - 0.2 * size))).mean())
    plain = loss_of(LinearWorstCase(eps=0.0), model, inputs, labels)
    torch.testing.assert_close(plain, F.cross_entropy(model(inputs), labels))
    hinge = loss_of(LinearWorstCase("hinge", eps=0.0), model, inputs, labels)
    torch.testing.assert_close(hinge.detach(), (1 - s).clamp(min=0).mean())


@pytest.mark.parametrize("norm", list(EXPONENTS))
@pytest.mark.parametrize("loss", ["softplus", "hinge"])
def test_gradients_of_the_weights(norm: str, loss: Loss) -> None:
    """By finite differences, away from kinks: the margins here are off 1, and no weight is 0 or ties for the largest."""
    model, inputs, labels = case()
    term = LinearWorstCase(loss, norm=norm, eps=0.2)

    def value(weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(
            OfWeights(model, term), {"model.weight": weight, "model.bias": bias}, (inputs, labels)
        )

    class OfWeights(nn.Module):
        def __init__(self, model: nn.Module, term: LinearWorstCase) -> None:
            super().__init__()
            self.model, self.term = model, term

        def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
            return loss_of(self.term, self.model, inputs, labels)

    assert torch.autograd.gradcheck(value, (model.weight, model.bias))


def test_it_is_exact_behind_an_affine_layer_and_with_binary_weights() -> None:
    _, inputs, labels = case()
    scaled = nn.Sequential(MeanStd(0.3, 0.5).double(), TwoClassLinear(7).double())
    value = loss_of(LinearWorstCase(eps=0.1), scaled, inputs, labels)
    w = scaled[1].weight.detach()[0] / 0.5
    margin = signs(labels) * ((inputs - 0.3) @ w) - 0.1 * w.abs().sum()
    torch.testing.assert_close(value.detach(), torch.log1p((-margin).exp()).mean(), rtol=1e-6, atol=0)  # 0.3 in float32
    binary = TwoClassLinear(7, binarised=True).double()
    value = loss_of(LinearWorstCase(eps=0.1), binary, inputs, labels)
    w = binary.direction.detach()[0]
    margin = signs(labels) * (inputs @ w) - 0.1 * 7 * w[0].abs()
    torch.testing.assert_close(value.detach(), torch.log1p((-margin).exp()).mean())
    assert torch.autograd.grad(value, binary.weight)[0].any()


def test_autocast_reduces_in_float32() -> None:
    model, inputs, labels = case()
    model, inputs = model.float(), inputs.float()
    term = LinearWorstCase(eps=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss_of(term, model, inputs, labels)
    assert value.dtype == torch.float32
    # The loss has slope at most 1 in the score, which bfloat16 knows to 2⁻⁸ of the sum of its terms' magnitudes.
    size = float((inputs @ model.weight[0].abs()).max().detach() + 0.1)
    exact = loss_of(term, model, inputs, labels)
    assert abs(float(value.detach() - exact.detach())) < 2 * 2**-8 * size


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ValueError, match="loss: expected"):
        LinearWorstCase("ce", eps=0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="norm: expected"):
        LinearWorstCase(norm="l0", eps=0.1)
    with pytest.raises(ValueError, match="eps: expected"):
        LinearWorstCase(eps=-0.1)
    with pytest.raises(ValueError, match="model: expected two logits"):
        loss_of(LinearWorstCase(eps=0.1), nn.Linear(4, 3), torch.rand(2, 4), torch.tensor([0, 1]))


def trained(steps: int = 300, **terms: Term | tuple[float, Term]) -> TwoClassLinear:
    (inputs, labels), _ = threes_and_sevens()
    model, objective = TwoClassLinear(64), Objective(**terms)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(steps):
        chosen = torch.randint(len(labels), (64,), generator=torch.Generator().manual_seed(step))
        loss, _ = objective(model, Batch(inputs[chosen], labels[chosen], chosen, step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def robust_accuracy(model: TwoClassLinear, norm: str, eps: float) -> float:
    """Share of the test images that no perturbation of the ball (bounds aside) gets across w·x = 0; exact."""
    _, (inputs, labels) = threes_and_sevens()
    w = model.direction.detach().double()[0]
    reach = eps * float(torch.linalg.vector_norm(w, {"linf": 1, "l2": 2, "l1": math.inf}[norm]))
    return float((signs(labels) * (inputs.double().flatten(1) @ w) > reach).double().mean())


@pytest.mark.parametrize("loss", ["softplus", "hinge"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.12), ("l2", 0.8)])
def test_training_on_the_worst_case_is_robust(loss: Loss, norm: str, eps: float) -> None:
    """Measured: 0.94 and 0.85 of 125 images (softplus), 0.95 and 0.88 (hinge), in place of 0.48 at most."""
    plain = trained(loss=LinearWorstCase(loss, eps=0.0))
    robust = trained(loss=LinearWorstCase(loss, norm=norm, eps=eps))
    assert robust_accuracy(plain, norm, 0.0) > 0.95
    assert robust_accuracy(robust, norm, 0.0) > 0.95
    assert robust_accuracy(robust, norm, eps) > robust_accuracy(plain, norm, eps) + 0.25


def test_it_is_adversarial_training_without_bounds() -> None:
    """One step of length eps along the dual direction: the same loss, and (the envelope theorem) the same gradient."""
    model, inputs, labels = case()
    for norm in EXPONENTS:
        term = AdversarialTraining(0.3, norm=norm, steps=1, step_size=0.3, random_start=False)
        batch = Batch(inputs, labels, torch.arange(len(labels)), bounds=(-9.0, 9.0))
        expected = torch.autograd.grad(term(model, batch), (model.weight, model.bias))
        value = loss_of(LinearWorstCase(norm=norm, eps=0.3), model, inputs, labels)
        torch.testing.assert_close(value, term(model, batch))
        torch.testing.assert_close(torch.autograd.grad(value, (model.weight, model.bias)), expected)


def test_decays_are_those_of_seed_000() -> None:
    """l2 acts on ½ ‖w‖² and, with its weight divided by D, l1 on mean |w|, without the bias; both make w·x robust."""
    model, inputs, labels = case()
    batch = Batch(inputs, labels, torch.arange(12))
    torch.testing.assert_close(L2Decay()(model, batch), model.weight.pow(2).sum() / 2)
    torch.testing.assert_close(L1Decay()(model, batch) / 7, model.weight.abs().mean())
    plain = robust_accuracy(trained(loss=LinearWorstCase(eps=0.0)), "l2", 0.8)
    decayed = trained(loss=LinearWorstCase(eps=0.0), decay=(0.1, L2Decay()))
    assert robust_accuracy(decayed, "l2", 0.8) > plain + 0.15
