"""adv-lib's attacks."""

from __future__ import annotations

import importlib.util
import math
import sys
from types import ModuleType
from typing import Any, ClassVar

from torch import Tensor

from pyrobust.adapters._peer import PeerAttack, Request, Traits, first_of, load, own_arguments

_EXPONENTS = {"l0": 0.0, "l1": 1.0, "l2": 2.0, "linf": math.inf}
_ALL = ("l0", "l1", "l2", "linf")
_BALLS = ("l1", "l2", "linf")
# The norms of each attack, and the name of its argument for the norm ("" where it has one norm alone).
_ATTACKS: dict[str, tuple[tuple[str, ...], str]] = {
    "alma": (("l1", "l2"), "distance"),
    "apgd": (_BALLS, "norm"),
    "apgd_targeted": (_BALLS, "norm"),
    "carlini_wagner_l2": (("l2",), ""),
    "carlini_wagner_linf": (("linf",), ""),
    "ddn": (("l2",), ""),
    "df": (("l2", "linf"), "norm"),
    "fab": (_BALLS, "norm"),
    "fga": (("l0",), ""),
    "fmn": (_ALL, "norm"),
    "minimal_apgd": (_BALLS, "norm"),
    "pdgd": (("l2",), ""),
    "pdpgd": (_ALL, "norm"),
    "pgd_linf": (("linf",), ""),
    "sdf": (("l2",), ""),
    "sigma_zero": (("l0",), ""),
    "tr": (("l2", "linf"), "p"),
    "vfga": (("l0",), ""),
}
_BUDGET = ("apgd", "apgd_targeted", "pgd_linf")
# These take targeted=True and return the inputs (or, minimal_apgd, judge the result as untargeted): perfect robustness.
_UNTARGETED = ("apgd_targeted", "df", "fab", "minimal_apgd", "sdf", "sigma_zero", "tr")
_STEPS = ("steps", "num_steps", "n_iter", "max_iterations", "max_iter", "iter")
_OURS = ("model", "inputs", "labels", "targeted", "norm", "p", "distance", "eps", "ε")

_UNUSED = (
    "visdom", "tqdm", "torchvision", "torchvision.models", "torchvision.transforms", "torchvision.utils",
    "torchvision.datasets", "distutils", "distutils.version",
)  # fmt: skip


def adv_lib(name: str, **options: Any) -> PeerAttack:
    """An attack of adv-lib (0.2.8), as one of ours.

    Args:
        name: of a function in ``adv_lib.attacks``, as "ddn", "fmn", "sigma_zero".
        options: its own arguments, or ``steps`` for whatever it calls its number of steps.

    Returns:
        attack(model, inputs, labels, *, norm, …), see `pyrobust.adapters`. Its l0 counts values, not pixels. Budget
        attacks are apgd, apgd_targeted and pgd_linf; the argument ε of fab stays an option.

    Raises:
        ImportError: adv-lib is not installed.
        ValueError: there is no such attack, or it does not take an option.
    """
    if name not in _ATTACKS:
        raise ValueError(f"adv_lib: no attack {name!r}; expected one of {', '.join(_ATTACKS)}")
    norms, _ = _ATTACKS[name]
    available = own_arguments(_function(name), _OURS if name != "fab" else tuple(n for n in _OURS if n != "ε"))
    traits = Traits(norms, name in _BUDGET, name not in _UNTARGETED, first_of(_STEPS, available), available)
    return PeerAttack("adv_lib", name, _run, traits, options)


def _run(request: Request) -> Tensor:
    _, argument = _ATTACKS[request.attack]
    given: dict[str, Any] = dict(request.options)
    if argument:
        given[argument] = request.norm if argument == "distance" else _EXPONENTS[request.norm]
    if request.attack == "pgd_linf":
        given["ε"] = request.eps
    elif request.eps is not None:
        given["eps"] = request.eps
    if request.attack == "minimal_apgd":  # nothing in the unit box is farther than its diameter
        values = request.inputs[0].numel()
        given.setdefault("max_eps", {"l1": values, "l2": math.sqrt(values), "linf": 1.0}[request.norm])
    if request.attack not in _UNTARGETED:
        given["targeted"] = request.targeted
    adv: Tensor = _function(request.attack)(request.model, request.inputs, request.labels, **given)
    return adv


def _function(name: str) -> Any:
    module = import_adv_lib()
    if name == "minimal_apgd":
        module = load("adv_lib", "adv_lib.attacks.auto_pgd", _INSTALL)
    return getattr(module, name)


_INSTALL = "pip install adv-lib"


def import_adv_lib() -> ModuleType:
    """``adv_lib.attacks``. What it imports and its attacks never use is stood in for until the import is over.

    Raises:
        ImportError: adv-lib is not installed, or cannot be imported all the same.
    """
    if "adv_lib.attacks" in sys.modules:
        return sys.modules["adv_lib.attacks"]
    placed = [name for name in _UNUSED if name.split(".")[0] not in sys.modules and not _installed(name.split(".")[0])]
    for name in placed:
        sys.modules[name] = _Placeholder(name)
    if "distutils.version" in placed:
        sys.modules["distutils.version"].LooseVersion = _Version  # type: ignore[attr-defined]
    try:
        return load("adv_lib", "adv_lib.attacks", _INSTALL)
    finally:
        for name in placed:
            del sys.modules[name]


class _Placeholder(ModuleType):
    """Any name is a class that does nothing."""

    __path__: ClassVar[list[str]] = []  # type: ignore[misc]  # so that it passes for a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Version:
    """distutils.version.LooseVersion, as far as adv-lib compares versions of torch."""

    def __init__(self, text: str) -> None:
        self.parts = [int(part) for part in text.split("+")[0].split(".") if part.isdigit()]

    def __lt__(self, other: _Version) -> bool:
        return self.parts < other.parts

    def __ge__(self, other: _Version) -> bool:
        return self.parts >= other.parts


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
