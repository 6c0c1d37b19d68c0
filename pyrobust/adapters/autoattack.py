"""AutoAttack, whole or one of its parts."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyrobust.adapters._peer import PeerAttack, Request, Traits, load

_INSTALL = "pip install git+https://github.com/fra31/auto-attack"
_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
_VERSIONS = ("standard", "plus", "rand")
# The parts of AutoAttack: its attribute, and that attribute's name for the number of steps.
_PARTS = {
    "apgd-ce": ("apgd", "n_iter"),
    "apgd-dlr": ("apgd", "n_iter"),
    "apgd-t": ("apgd_targeted", "n_iter"),
    "fab": ("fab", "n_iter"),
    "fab-t": ("fab", "n_iter"),
    "square": ("square", "n_queries"),
}


def autoattack(name: str = "standard", **options: Any) -> PeerAttack:
    """AutoAttack's "standard", "plus" or "rand" version, or one of its parts: apgd-ce, apgd-dlr, apgd-t, fab, fab-t,
    square; as one of our budget attacks.

    Args:
        name: which.
        options: of a part: ``steps`` (for square, queries) and ``n_restarts``. The versions have none.

    Returns:
        attack(model, inputs, labels, *, norm, eps, …), see `pyrobust.adapters`. With fewer than ten classes the
        targeted parts aim at all others; AutoAttack itself would fail. It has no targeted form.

    Raises:
        ImportError: autoattack is not installed.
        ValueError: there is no such version or part, or it does not take an option.
    """
    if name not in _VERSIONS and name not in _PARTS:
        raise ValueError(f"autoattack: no attack {name!r}; expected one of {', '.join((*_VERSIONS, *_PARTS))}")
    load("autoattack", "autoattack", _INSTALL)
    steps = "steps" if name in _PARTS else None
    available = frozenset(("steps", "n_restarts") if name in _PARTS else ())
    traits = Traits(("l1", "l2", "linf"), True, False, steps, available)
    return PeerAttack("autoattack", name, _run, traits, options)


def _run(request: Request) -> Tensor:
    part = _PARTS.get(request.attack)
    chosen: dict[str, Any] = {"version": request.attack}
    if part is not None:
        chosen = {"version": "custom", "attacks_to_run": [request.attack]}
    whole = load("autoattack", "autoattack", _INSTALL).AutoAttack(
        request.model, norm=_NORMS[request.norm], eps=request.eps, seed=request.seed, verbose=False,
        device=request.inputs.device, **chosen,
    )  # fmt: skip
    for targeting in (whole.apgd_targeted, whole.fab):
        targeting.n_target_classes = min(targeting.n_target_classes, request.classes - 1)
    if part is not None:
        attribute, steps = part
        for option, value in request.options.items():
            setattr(getattr(whole, attribute), steps if option == "steps" else option, value)
    found: Tensor = whole.run_standard_evaluation(request.inputs, request.labels, bs=len(request.inputs))
    return found
