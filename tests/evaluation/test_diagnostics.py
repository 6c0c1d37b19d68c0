from __future__ import annotations

import pytest
import torch
from torch import nn

from pyrobust.evaluation import evaluate
from pyrobust.evaluation.diagnostics import covers_box, model_warnings

from . import toy_attacks


def warnings_of(model, images: tuple, **arguments) -> list[str]:
    defaults = {"norms": "linf", "attacks": toy_attacks.walk, "steps": 2, "batch_size": 16}
    return evaluate(model, images, **{**defaults, **arguments}).warnings


def test_a_sound_model_and_attack_raise_no_warning(digits_model: nn.Module, images: tuple) -> None:
    assert warnings_of(digits_model, images, steps=60) == []


def test_training_mode(digits_model: nn.Module, images: tuple) -> None:
    digits_model.train()
    try:
        assert any("training mode" in w for w in warnings_of(digits_model, images))
    finally:
        digits_model.eval()


def test_a_random_model(digits_model: nn.Module, images: tuple) -> None:
    model = nn.Sequential(nn.Dropout(0.5), digits_model).train()
    digits_model.eval()
    found = warnings_of(model, images)
    assert any("random: two predictions" in w for w in found)
    assert not any("batch-dependent" in w for w in found)


def test_a_batch_dependent_model(digits_model: nn.Module, images: tuple) -> None:
    found = model_warnings(lambda x: digits_model(x - 0.5 * x[:1]), images[0])
    assert len(found) == 1
    assert "batch-dependent" in found[0]


def test_probabilities_for_logits(digits_model: nn.Module, images: tuple) -> None:
    found = warnings_of(nn.Sequential(digits_model, nn.Softmax(1)).eval(), images)
    assert any("look like probabilities" in w for w in found)


def test_logits_that_are_not_finite(images: tuple) -> None:
    found = model_warnings(lambda x: torch.full((len(x), 10), torch.nan), images[0])
    assert any("NaN or infinite logits" in w for w in found)


class Quantised(nn.Module):
    """Rounds its inputs, so that no gradient reaches them, on samples whose first pixel row is dark."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        masked = torch.arange(len(inputs)).remainder(4).eq(0).view(-1, 1, 1, 1)
        return self.inner(torch.where(masked, inputs.detach(), inputs))


def test_masked_gradients_are_told_with_their_share(digits_model: nn.Module, images: tuple) -> None:
    found = warnings_of(Quantised(digits_model).eval(), images)
    assert any("gradient of the cross-entropy is zero" in w and "25 % of the samples" in w for w in found)
    assert any("gradient of the logit margin is zero" in w for w in found)


def test_a_saturated_loss_is_told_apart_from_flat_logits(digits_model: nn.Module, images: tuple) -> None:
    class Loud(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return 1e4 * digits_model(inputs)

    found = warnings_of(Loud().eval(), images)
    assert any("cross-entropy is zero" in w for w in found)
    assert not any("logit margin is zero" in w for w in found)


def test_a_model_without_gradients(digits_model: nn.Module, images: tuple) -> None:
    class Cut(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return digits_model(inputs).detach()

    found = warnings_of(Cut().eval(), images, attacks=toy_attacks.clean, steps=None)
    assert any("100 % of the samples" in w for w in found)


def test_an_attack_that_fails_without_a_limit(digits_model: nn.Module, images: tuple) -> None:
    found = warnings_of(digits_model, images, steps=1)
    assert any("although nothing limited" in w and w.startswith("linf · walk failed on") for w in found)


def test_a_budget_attack_is_only_warned_of_when_its_budget_covers_the_box(digits_model, images: tuple) -> None:
    def idle(model, inputs, labels, *, eps):
        return inputs

    arguments = {"attacks": idle, "steps": None}
    assert not any("limited" in w for w in warnings_of(digits_model, images, eps=[0.01], **arguments))
    assert any("limited" in w for w in warnings_of(digits_model, images, eps=[0.01, 1.0], **arguments))


@pytest.mark.parametrize(("norm", "radius"), [("linf", 2.0), ("l2", 2 * 12**0.5), ("l1", 24.0), ("l0", 4.0)])
def test_the_radius_that_covers_the_box(norm: str, radius: float) -> None:
    shape, bounds = (3, 2, 2), (-1.0, 1.0)
    assert covers_box(norm, radius, shape, bounds)
    assert not covers_box(norm, radius * 0.999, shape, bounds)
