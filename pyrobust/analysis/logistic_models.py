"""The logistic regressions that adversarial training and weight decay are compared by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from pyrobust.attacks._common import check_count
from pyrobust.models import TwoClassLinear
from pyrobust.training import AdversarialTraining, CrossEntropy, L1Decay, L2Decay, Objective, Recipe, Term, train
from pyrobust.training.adversarial import Labels

PIXELS = 784  # the published λ of the l1 decay multiplies the mean of so many |w|


@dataclass(frozen=True)
class LogisticVariant:
    """How one of them is trained.

    Attributes:
        expert: begin at the difference of the class means, rather than at random.
        binarised: train sign(w) · mean|w|.
        l1, l2: λ of Σ |w| / 784 and of ½ ‖w‖².
        attack: the loss is taken at the points of "fgm", or of "fgm_clipped", in linf.
        eps: of the attack.
        labels: that it moves away from, "true" or "predicted".
        share: of the steps that it takes; 0: it is not trained.
    """

    expert: bool = False
    binarised: bool = False
    l1: float = 0.0
    l2: float = 0.0
    attack: str | None = None
    eps: float = 0.25
    labels: Labels = "true"
    share: float = 1.0

    def objective(self) -> Objective:
        """The loss and the decays."""
        terms: dict[str, tuple[float, Term]] = {"loss": (1.0, CrossEntropy())}
        if self.attack is not None:
            # One full step from the input itself, clipped to the bounds, is FGSM.
            given = None if self.attack == "fgm" else self.attack
            loss = AdversarialTraining(
                self.eps, "linf", 1, self.eps, random_start=False, labels=self.labels, attack=given
            )  # fmt: skip
            terms["loss"] = (1.0, loss)
        if self.l1 > 0:
            terms["l1"] = (self.l1 / PIXELS, L1Decay())
        if self.l2 > 0:
            terms["l2"] = (self.l2, L2Decay())
        return Objective(**terms)


LOGISTIC_VARIANTS = {
    "natural": LogisticVariant(),
    "expert": LogisticVariant(expert=True, share=0),
    "expert, l2 0.05": LogisticVariant(expert=True, l2=0.05, share=0.2),
    "binarised": LogisticVariant(binarised=True, l2=0.05),
    "l2 3.25": LogisticVariant(l2=3.25),
    "l1 3.25": LogisticVariant(l1=3.25),
    "l1 15": LogisticVariant(l1=15),
    "l1 32": LogisticVariant(l1=32),
    "FGSM": LogisticVariant(attack="fgm"),
    "FGSM, predicted labels": LogisticVariant(attack="fgm", labels="predicted"),
    "FGSM, expert, l2 0.05": LogisticVariant(attack="fgm", expert=True, l2=0.05),
    "FGSM, eps 0.5": LogisticVariant(attack="fgm", eps=0.5),
    "fast gradient": LogisticVariant(attack="fgm_clipped"),
    "fast gradient, eps 0.5": LogisticVariant(attack="fgm_clipped", eps=0.5),
}


def logistic_setup(
    variant: LogisticVariant, data: tuple[Tensor, Tensor], *, steps: int = 50_000, lr: float = 1e-5, seed: int = 0
) -> tuple[TwoClassLinear, Objective, Recipe]:
    """What :func:`pyrobust.training.train` needs for it: the model as initialised, objective and recipe.

    Args:
        variant: one of ``LOGISTIC_VARIANTS``, or another.
        data: inputs (N, …) in [0, 1] and int64 labels (N,), 0 and 1.
        steps: of Adam with batches of 128, rounded up to whole epochs; the variant takes its share of them.
        lr: of Adam.
        seed: of the initial weights, and of the order of the samples.

    Raises:
        ValueError: naming the argument.

    Source: seed 000, §3 and §4.2, and its published code: 50,000 steps at a rate of 10⁻⁵, no bias. (That code draws its
        batches from the first 215 images or so alone; these are drawn from all.)
    """
    check_count(steps=steps)
    inputs, labels = data
    model = TwoClassLinear(inputs[0].numel(), binarised=variant.binarised, seed=seed).to(inputs.device)
    if variant.expert:
        model.initialise_as_expert(inputs, labels)
    batch_size = min(128, len(labels))
    epochs = max(1, math.ceil(variant.share * steps / (len(labels) // batch_size)))
    recipe = Recipe(
        epochs=epochs, batch_size=batch_size, optimizer="adam", lr=lr, schedule="constant", seed=seed, log_every=10**9
    )
    return model, variant.objective(), recipe


def logistic_model(
    variant: LogisticVariant, data: tuple[Tensor, Tensor], *, steps: int = 50_000, lr: float = 1e-5, seed: int = 0
) -> TwoClassLinear:
    """The trained model, in evaluation mode and without gradients; arguments, errors and source of :func:`logistic_setup`.

    Cost: a step of a linear model is a fraction of a millisecond, at 50,000 steps less than a minute on a CPU core.
    """
    model, objective, recipe = logistic_setup(variant, data, steps=steps, lr=lr, seed=seed)
    if variant.share > 0:
        train(model, objective, data, recipe)
    return model.eval().requires_grad_(False)
