"""foolbox's attacks, Brendel and Bethge's among them."""

from __future__ import annotations

import inspect
import math
from typing import Any

from torch import Tensor

from pyrobust._checks import NORMS
from pyrobust.adapters._peer import PeerAttack, Request, Traits, first_of, load, own_arguments

_INSTALL = "pip install foolbox"
_EXPONENTS = {"l0": 0, "l1": 1, "l2": 2, "linf": math.inf}
# Declared as l1 by the class, but minimised in what its argument ``constraint`` says.
_CONSTRAINED = {"HopSkipJumpAttack": ("l2", "linf")}
_UNTARGETED = ("FastGradientAttack", "DeepFoolAttack", "NewtonFoolAttack", "VirtualAdversarialAttack")


def foolbox(name: str, **options: Any) -> PeerAttack:
    """An attack of foolbox (3.3.4), as one of ours.

    Args:
        name: of a class in ``foolbox.attacks``, as "LinfPGD", "L2CarliniWagnerAttack", "L1BrendelBethgeAttack".
        options: arguments of its constructor.

    Returns:
        attack(model, inputs, labels, *, norm, …), see `pyrobust.adapters`. Attacks that foolbox calls fixed-epsilon
        take ``eps``, the others search for the minimum. Its l0 counts values, not
        pixels.

    Raises:
        ImportError: foolbox is not installed.
        ValueError: there is no such attack, it measures in no lp norm, or it does not take an option.
    """
    kind = _class(name)
    base = load("foolbox", "foolbox.attacks.base", _INSTALL)
    arguments = own_arguments(kind.__init__, ())
    available = arguments - {"distance", "constraint"}
    exponent = _exponent(kind)
    declared = tuple(norm for norm, p in _EXPONENTS.items() if p == exponent or "distance" in arguments)
    norms = _CONSTRAINED.get(name, declared)
    if not norms:
        raise ValueError(f"foolbox: {name} measures in none of {', '.join(NORMS)}")
    budget = issubclass(kind, base.FixedEpsilonAttack)
    targeted = not any(part in parent.__name__ for part in _UNTARGETED for parent in inspect.getmro(kind))
    traits = Traits(norms, budget, targeted, first_of(("steps",), available), available)
    return PeerAttack("foolbox", name, _run, traits, options)


def _run(request: Request) -> Tensor:
    criteria = load("foolbox", "foolbox.criteria", _INSTALL)
    models = load("foolbox", "foolbox.models", _INSTALL)
    kind, options = _class(request.attack), dict(request.options)
    if "distance" in own_arguments(kind.__init__, ()):
        options["distance"] = load("foolbox", "foolbox.distances", _INSTALL).LpDistance(_EXPONENTS[request.norm])
    if request.attack in _CONSTRAINED:
        options["constraint"] = request.norm
    criterion = criteria.TargetedMisclassification if request.targeted else criteria.Misclassification
    model = models.PyTorchModel(request.model, bounds=(0, 1), device=request.inputs.device)
    found: tuple[Tensor, Tensor, Tensor] = kind(**options)(
        model, request.inputs, criterion(request.labels), epsilons=request.eps
    )
    return found[1]  # clipped to eps; the same as found[0], the raw points, where there is none


def _class(name: str) -> Any:
    attacks = load("foolbox", "foolbox.attacks", _INSTALL)
    kind = getattr(attacks, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, attacks.Attack)) or kind is attacks.Attack:
        raise ValueError(f"foolbox: foolbox.attacks has no attack {name!r}")
    return kind


def _exponent(kind: Any) -> float | None:
    """Of the distance that the attack declares; None where there is none, or where it is no lp norm."""
    distance = getattr(kind, "distance", None)
    if isinstance(distance, property):
        try:
            distance = kind().distance
        except (TypeError, ValueError):
            return None
    return getattr(distance, "p", None)
