"""torchattacks' attacks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pyrobust.adapters._peer import PeerAttack, Request, Traits, first_of, load, own_arguments

_INSTALL = "pip install torchattacks"
_NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
# The norms of each attack. eps is a budget wherever a constructor has it, but in FAB.
_NORMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "FGSM", "BIM", "RFGSM", "PGD", "EOTPGD", "FFGSM", "TPGD", "MIFGSM", "UPGD", "DIFGSM", "TIFGSM", "Jitter",
            "NIFGSM", "PGDRS", "SINIFGSM", "VMIFGSM", "VNIFGSM", "SPSA", "PIFGSM", "PIFGSMPP",
        ),
        ("linf",),
    ),
    **dict.fromkeys(("CW", "PGDL2", "PGDRSL2", "DeepFool", "EADEN"), ("l2",)),
    **dict.fromkeys(("SparseFool", "OnePixel", "Pixle", "JSMA"), ("l0",)),
    **dict.fromkeys(("APGD", "APGDT", "AutoAttack", "Square"), ("l2", "linf")),
    "EADL1": ("l1",),
    "FAB": ("l2", "linf"),  # its l1 raises
}  # fmt: skip
_BUDGETS = {"OnePixel": "pixels", "PIFGSM": "max_epsilon", "PIFGSMPP": "max_epsilon"}  # under another name
_OURS = ("model", "norm", "eps", "seed", "n_classes", "verbose")


def torchattacks(name: str, **options: Any) -> PeerAttack:
    """An attack of torchattacks (3.5.1), as one of ours.

    Args:
        name: of a class in ``torchattacks``, as "PGD", "CW", "JSMA".
        options: arguments of its constructor, or ``steps`` for whatever it calls its number of steps.

    Returns:
        attack(model, inputs, labels, *, norm, …), see `pyrobust.adapters`. FAB searches for the minimum here;
        OnePixel's ``eps`` is its number of pixels. Step sizes keep torchattacks' defaults: they do not follow ``eps``.

    Raises:
        ImportError: torchattacks is not installed.
        ValueError: there is no such attack, or it does not take an option.
    """
    if name not in _NORMS:
        raise ValueError(f"torchattacks: no attack {name!r}; expected one of {', '.join(_NORMS)}")
    kind = _class(name)
    arguments = own_arguments(kind.__init__, ())
    available = arguments - set(_OURS) - {_BUDGETS.get(name)}
    budget = name in _BUDGETS or ("eps" in arguments and name != "FAB")
    modes = kind(_Anything()).supported_mode  # known to instances alone
    traits = Traits(_NORMS[name], budget, "targeted" in modes, first_of(_STEPS, available), available)
    return PeerAttack("torchattacks", name, _run, traits, options)


_STEPS = ("steps", "max_iterations")


def _run(request: Request) -> Tensor:
    kind = _class(request.attack)
    takes, given = own_arguments(kind.__init__, ()), dict(request.options)
    # FAB keeps what is nearer than eps: the largest distance in the unit box keeps all.
    eps = (
        request.eps if request.attack != "FAB" else {"l2": math.sqrt(request.inputs[0].numel())}.get(request.norm, 1.0)
    )
    if request.attack in _BUDGETS and eps is not None:
        given[_BUDGETS[request.attack]] = int(eps) if request.attack == "OnePixel" else eps
    set_here = {"norm": _NAMES.get(request.norm), "eps": eps, "seed": request.seed, "n_classes": request.classes}
    given.update({key: value for key, value in set_here.items() if key in takes and value is not None})
    attack = kind(request.model, **given)
    if request.targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    found: Tensor = attack(request.inputs, request.labels)
    return found


def _class(name: str) -> Any:
    return getattr(load("torchattacks", "torchattacks", _INSTALL), name)


class _Anything(nn.Module):
    """A model that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.empty(0))
