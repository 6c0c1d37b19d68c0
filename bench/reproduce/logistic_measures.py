"""What is measured of the logistic regressions, and what seed 000 says of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from bench.reproduce._common import Claim, broken, wrong
from bench.reproduce._samples import gap, percent
from bench.reproduce.logistic_networks import (
    BINARISED,
    EXPERT,
    EXPERT_L2,
    FGSM,
    FGSM_EARLY,
    FGSM_EXPERT,
    FGSM_FAR,
    L1,
    L1_15,
    L1_32,
    L2,
    NATURAL,
    PREDICTED,
    direction,
)  # fmt: skip
from pyrobust.analysis import fast_gradient_points, linear_robustness, loss_translation

EPS, SCALE = 0.25, 100.0
PIXELS = 20  # at either end, where figure 7a has the FGSM-trained model at chance

# Errors in % (clean; FGSM at eps 0.25) and mean ‖r‖₂ of FGSM, as far as the paper has them; "~": about.
PAPER = {
    NATURAL: ("1.6", "99", ""),
    EXPERT: ("5.2", "60", ""),
    EXPERT_L2: ("4.0", "59.1", "4.57"),
    L2: ("~4", "64", ""),
    L1: ("~4", "43", ""),
    L1_32: ("", "25", ""),
    FGSM: ("~4", "~29", ""),
}
PAPER_CLIPPED = ("58.9", "4.00")  # of "expert, l2 0.05": error in %, and mean ‖r‖₂


@dataclass(frozen=True)
class Measured:
    """Of one model on the test images.

    Attributes:
        clean, fgsm, clipped: (N,) bool, wrong as they are; broken by FGSM, and by the clipped fast gradient method, as the
            evaluation's checks find.
        fgsm_length, clipped_length: mean ‖r‖₂ over all images.
        disagree: images of which FGSM and the exact distances say different things.
    """

    clean: np.ndarray
    fgsm: np.ndarray
    clipped: np.ndarray
    fgsm_length: float
    clipped_length: float
    disagree: int

    def to_json(self) -> dict[str, float]:
        means = {name: float(getattr(self, name).mean()) for name in ("clean", "fgsm", "clipped")}
        return {
            **means,
            "fgsm_length": self.fgsm_length,
            "clipped_length": self.clipped_length,
            "disagree": self.disagree,
        }


def measure(model: nn.Module, inputs: Tensor, labels: Tensor) -> Measured:
    fgsm = broken(model, inputs, labels, "fgm", norm="linf", eps=EPS)
    clipped = broken(model, inputs, labels, "fgm_clipped", norm="linf", eps=EPS)
    exact = linear_robustness({"": model}, inputs, labels, batch_size=250).distance[0].numpy() <= EPS
    lengths = []
    for scale in (None, SCALE):
        delta = fast_gradient_points(model, inputs, labels, eps=EPS, scale=scale, batch_size=250) - inputs
        lengths.append(float(delta.double().flatten(1).norm(dim=1).mean()))
    return Measured(wrong(model, inputs, labels), fgsm, clipped, *lengths, int((exact != fgsm).sum()))


def _signs_by_light(same: Tensor, images: Tensor) -> str:
    """How many signs agree where some training image is lit, and where all are dark: there the loss says nothing of a weight."""
    lit = images.flatten(1).any(0)
    return ", ".join(
        f"{percent(float(same[chosen].double().mean()))} of those {where} ({int(chosen.sum())})"
        for where, chosen in (("of pixels lit in some training image", lit), ("of pixels dark in all", ~lit))
        if bool(chosen.any())
    )


def _short_of_the_minimum(models: dict[str, nn.Module], train: tuple[Tensor, Tensor]) -> str:
    """The loss that FGSM training lowers is convex: at different values at least the larger have not come to its minimum."""
    risks = {name: loss_translation(model, *train, norm="linf").risk(eps=EPS) for name, model in models.items()}
    told = ", ".join(f"{name} {risk:.3f}" for name, risk in risks.items())
    return f"the mean loss at the worst points within {EPS:g} (without the box) is convex, and not all are at its minimum: {told}"


def judge(
    found: dict[str, Measured], models: dict[str, nn.Module], pixels: dict[str, list[float]], at: int,
    train: tuple[Tensor, Tensor],
) -> list[Claim]:  # fmt: skip
    """The paper's orderings, on our numbers.

    Args:
        pixels: accuracy by name, an entry a number of pixels set.
        at: the number of pixels at which they are compared.
        train: training images and labels.
    """
    fgsm = {name: float(one.fgsm.mean()) for name, one in found.items()}
    clean = {name: float(one.clean.mean()) for name, one in found.items()}
    expert = found[EXPERT_L2]
    same, _ = gap(expert.clipped, expert.fgsm)
    cosines = {
        name: float(direction(models[FGSM]) @ direction(models[name])) for name in (PREDICTED, FGSM_EXPERT, NATURAL)
    }
    same_sign = models[NATURAL].weight.sign() == models[BINARISED].weight.sign()
    signs = float(same_sign.double().mean())
    there = {name: pixels[name][at] for name in (NATURAL, EXPERT_L2, L1_32, FGSM)}

    def shown(values: dict[str, float], *names: str) -> str:
        return ", ".join(f"{name} {percent(values[name])}" for name in names or values)

    return [
        Claim(
            "§3: the expert initialisation alone lowers the FGSM error of natural training (99 %) by about 39 points",
            fgsm[NATURAL] - fgsm[EXPERT] > 0.3,
            shown(fgsm, NATURAL, EXPERT),
        ),
        Claim(
            "§3: fine-tuned with l2 decay it makes fewer errors on clean images, more than natural training, and keeps its "
            "FGSM error",
            clean[NATURAL] < clean[EXPERT_L2] < clean[EXPERT] and fgsm[EXPERT_L2] < fgsm[NATURAL] - 0.3,
            f"clean: {shown(clean, NATURAL, EXPERT_L2, EXPERT)}; FGSM: {shown(fgsm, NATURAL, EXPERT_L2, EXPERT)}",
        ),
        Claim(
            "§3: the clipped gradient breaks as many images as FGSM, within a point, with shorter perturbations",
            abs(same) < 1 and expert.clipped_length < expert.fgsm_length,
            f"{same:+.2f} points; mean ‖r‖₂ {expert.clipped_length:.2f} against {expert.fgsm_length:.2f}",
        ),
        Claim(
            "§3: from scratch with λ 3.25, l1 decay has a lower FGSM error than l2 decay; with λ 32 a lower one still",
            fgsm[L1_32] < fgsm[L1] < fgsm[L2],
            shown(fgsm, L2, L1, L1_15, L1_32),
        ),
        Claim(
            "§3, figure 1: the FGSM perturbation of natural training is nearly the binarised weights",
            signs > 0.75,
            f"{percent(signs)} of the signs agree",
            _signs_by_light(same_sign.flatten(), train[0]),
        ),
        Claim(
            "§4.2: FGSM training ends at the same weights from the labels and from predictions, and from the expert "
            "initialisation with decay",
            min(cosines[PREDICTED], cosines[FGSM_EXPERT]) > 0.9,
            "cosines to FGSM: " + ", ".join(f"{name} {value:.3f}" for name, value in cosines.items()),
            _short_of_the_minimum({name: models[name] for name in (FGSM, PREDICTED, FGSM_EXPERT, FGSM_EARLY)}, train),
        ),
        Claim(
            "§4.2: with eps 0.5 FGSM training fails: more errors on clean images than with 0.25, and nothing gained at eps 0.25",
            clean[FGSM_FAR] > clean[FGSM] and fgsm[FGSM_FAR] > fgsm[EXPERT_L2],
            f"clean: {shown(clean, FGSM_FAR, FGSM)}; FGSM at 0.25: {shown(fgsm, FGSM_FAR, FGSM, EXPERT_L2)}",
        ),
        Claim(
            "figure 7b: trained with FGSM, a model has the lowest FGSM error at eps 0.25 of natural, expert with l2, and it",
            fgsm[FGSM] < fgsm[EXPERT_L2] < fgsm[NATURAL],
            shown(fgsm, NATURAL, EXPERT_L2, FGSM),
        ),
        Claim(
            f"figure 7a: {at} pixels set at either end leave it at chance, natural training nearly unharmed, expert with l2 "
            "between",
            there[FGSM] < 0.55 and there[FGSM] < there[EXPERT_L2] < there[NATURAL],
            shown(there),
        ),
    ]  # fmt: skip
