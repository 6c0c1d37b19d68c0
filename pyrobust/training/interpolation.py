"""Objectives between adversarial training and operator norm regularisation."""

from __future__ import annotations

from pyrobust.attacks._common import check_number
from pyrobust.training.cross_entropy import CrossEntropy
from pyrobust.training.term import Objective, Term


def interpolation(mix: float, adversarial: tuple[float, Term], penalty: tuple[float, Term]) -> Objective:
    """(1 − mix) [CE + λ A] + mix [CE + λ̃ R] = CE + (1 − mix) λ A + mix λ̃ R; a term whose weight is 0 is left out.

    Args:
        mix: in [0, 1]: 0 is adversarial training, 1 the regulariser.
        adversarial: (λ, A): the loss at adversarial points, such as :class:`AdversarialTraining` (cross-entropy there) or
            :class:`LogitDistance` (l_q distance of the logits, for which theorem 1 holds: with power 1 and few activations
            that change, λ A = λ̃ R where λ̃ = λ eps).
        penalty: (λ̃, R), such as :class:`OperatorNorm`.

    Returns:
        An objective with the terms "ce", "adversarial" and "penalty".

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: that of the terms with a weight above 0.
    Source: seed 004, §5.3, of eq. 14 and eq. 13 (or 7).
    """
    mix = check_number("mix", mix, 0, 1)
    terms = {"adversarial": (1 - mix, adversarial), "penalty": (mix, penalty)}
    parts = {name: (share * weight, term) for name, (share, (weight, term)) in terms.items()}
    return Objective(ce=CrossEntropy(), **{name: part for name, part in parts.items() if part[0] != 0})
