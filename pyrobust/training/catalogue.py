"""Objectives by name, for the command line: a line an objective, its options those of the term's constructor."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from pyrobust._checks import norm_name
from pyrobust.training.adversarial import AdversarialTraining
from pyrobust.training.bang import Bang
from pyrobust.training.critic import AdversaryCritic
from pyrobust.training.cross_entropy import CrossEntropy
from pyrobust.training.decay import L1Decay, L2Decay
from pyrobust.training.disturb_label import DisturbLabel
from pyrobust.training.input_gradient import InputGradient
from pyrobust.training.jacobian import JacobianFrobenius
from pyrobust.training.linear import LinearWorstCase
from pyrobust.training.logit_distance import LogitDistance
from pyrobust.training.logit_pairing import AdversarialLogitPairing, CleanLogitPairing, LogitSqueezing
from pyrobust.training.margin import Hinge, MarginSensitivity
from pyrobust.training.operator_norm import OperatorNorm
from pyrobust.training.robust_optimisation import RobustOptimisation
from pyrobust.training.smoothing import ConfidencePenalty, LabelSmoothing
from pyrobust.training.spectral_norm import SpectralNorm
from pyrobust.training.tangent import Tangent, local_pca_tangents
from pyrobust.training.term import Objective, Term
from pyrobust.training.trades import Trades
from pyrobust.training.vat import VirtualAdversarial


def pca_tangent(inputs: Tensor, count: int = 5, neighbours: int = 20, of: str = "logits") -> Tangent:
    """`Tangent` along the ``count`` principal directions of each sample's ``neighbours``."""
    return Tangent(local_pca_tangents(inputs, count, neighbours), of)


# What makes the term, and its weight where none is given. Terms that do not classify get the loss beside them.
OBJECTIVES: dict[str, tuple[Callable[..., Term], float]] = {
    "cross-entropy": (CrossEntropy, 1.0),
    "hinge": (Hinge, 1.0),
    "adversarial": (AdversarialTraining, 1.0),
    "robust-optimisation": (RobustOptimisation, 1.0),
    "trades": (Trades, 6.0),
    "vat": (VirtualAdversarial, 1.0),
    "adversarial-logit-pairing": (AdversarialLogitPairing, 1.0),
    "clean-logit-pairing": (CleanLogitPairing, 0.5),
    "logit-squeezing": (LogitSqueezing, 0.05),
    "margin": (MarginSensitivity, 0.1),
    "critic": (AdversaryCritic, 0.5),
    "input-gradient": (InputGradient, 1.0),
    "jacobian": (JacobianFrobenius, 0.01),
    "operator-norm": (OperatorNorm, 0.01),
    "logit-distance": (LogitDistance, 0.1),
    "spectral-norm": (SpectralNorm, 0.01),
    "tangent": (pca_tangent, 0.01),
    "label-smoothing": (LabelSmoothing, 1.0),
    "confidence-penalty": (ConfidencePenalty, 0.1),
    "disturb-label": (DisturbLabel, 1.0),
    "bang": (Bang, 1.0),
    "l1-decay": (L1Decay, 1e-5),
    "l2-decay": (L2Decay, 5e-4),
    "linear-worst-case": (LinearWorstCase, 1.0),
}

LOSSES: dict[str, type[Term]] = {"cross-entropy": CrossEntropy, "hinge": Hinge}

# Budgets that small networks on images in [0, 1] can bear, where a term needs one and none is given.
DEFAULT_EPS = {"linf": 0.1, "l2": 0.5, "l1": 2.0}

# Arguments that a term gets from the training rather than from options.
_FROM_TRAINING: dict[str, Callable[[nn.Module, Tensor, Tensor], Any]] = {
    "model": lambda model, inputs, labels: model,
    "inputs": lambda model, inputs, labels: inputs,
    "classes": lambda model, inputs, labels: int(labels.max()) + 1,
    "features": lambda model, inputs, labels: inputs[0].numel(),
}


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """The options that an objective takes, by name.

    Raises:
        ValueError: there is no objective of that name.
    """
    return {key: parameter for key, parameter in _parameters(name).items() if key not in _FROM_TRAINING}


def make_objective(
    name: str,
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    options: Mapping[str, Any] | None = None,
    weight: float | None = None,
    loss: str | None = None,
) -> Objective:
    """The objective of that name.

    Args:
        name: in `OBJECTIVES`.
        model: to be trained, and
        data: inputs and labels of the training set, for terms that depend on either (`SpectralNorm`, tangents, a critic).
        options: for the maker of the term. What is missing is left at its default; ``eps``, where it has none, at
            `DEFAULT_EPS` of the norm.
        weight: of a penalty, beside the classification loss; or the option ``weight`` of a term that has one.
        loss: beside a penalty: "cross-entropy" (default) or "hinge".

    Raises:
        ValueError: an option that the objective does not take, one that is missing, or a weight or a loss where there is
            no penalty.
    """
    taken, given = options_of(name), dict(options or {})
    maker, default_weight = OBJECTIVES[name]
    weighs_itself = "weight" in taken
    if weight is not None and weighs_itself:
        given["weight"] = weight
    unknown = sorted(given.keys() - taken.keys())
    if unknown:
        allowed = f"options among {', '.join(taken)}" if taken else "no options"
        raise ValueError(f"objective {name}: expected {allowed}, got {', '.join(unknown)}")
    if "eps" in taken and taken["eps"].default is inspect.Parameter.empty and "eps" not in given:
        given["eps"] = DEFAULT_EPS[norm_name(given.get("norm", taken["norm"].default), tuple(DEFAULT_EPS))]
    known = {key: _FROM_TRAINING[key](model, *data) for key in _parameters(name) if key in _FROM_TRAINING}
    term = maker(**known, **given)
    if term.classifies and (loss is not None or (weight is not None and not weighs_itself)):
        raise ValueError(
            f"objective {name} holds the classification loss: expected neither --loss nor --weight beside it"
        )
    key = name.replace("-", "_")
    if term.classifies:
        return Objective(**{key: term})
    if loss is not None and loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}")
    share = default_weight if weight is None else weight
    return Objective(loss=LOSSES[loss or "cross-entropy"](), **{key: (share, term)})


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    if name not in OBJECTIVES:
        raise ValueError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {name!r}")
    parameters = inspect.signature(OBJECTIVES[name][0]).parameters
    return {key: p for key, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
