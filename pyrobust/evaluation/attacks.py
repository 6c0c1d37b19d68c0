"""Find attacks by name, tell what each accepts, and lay out the tasks of a run."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyrobust._checks import Norm, check_count, norm_name
from pyrobust.adapters import PEERS

AttackFunction = Callable[..., Tensor]
AttackLike = str | AttackFunction
Attacks = AttackLike | Sequence[AttackLike] | Mapping[Norm, AttackLike | Sequence[AttackLike]]
Budgets = float | Sequence[float] | Mapping[Norm, float | Sequence[float]]

# What runs where no attack is named: for each norm the strongest single minimum-norm attack of the package.
DEFAULT_ATTACKS = {"linf": "pdpgd", "l2": "pdgd", "l1": "pdpgd", "l0": "pdpgd"}


@dataclass(frozen=True)
class Attack:
    """An attack function and what its signature says of it.

    Attributes:
        name: short name, unique within a run.
        reference: module, function and bound arguments, for the record.
        function: ``function(model, inputs, labels, **arguments)``.
        accepts: names of its keyword arguments; None where it takes any.
        norms: the norms that it is made for, from its attribute ``norms``; None where it does not say.
        bound: names of arguments that a partial has fixed. Not ``eps``, which is for the sweep to say.
    """

    name: str
    reference: str
    function: AttackFunction
    accepts: frozenset[str] | None
    norms: tuple[str, ...] | None
    bound: frozenset[str]

    @property
    def is_budget(self) -> bool:
        """Whether it searches within a budget ``eps``, rather than for the smallest perturbation."""
        return self.accepts is not None and "eps" in self.accepts

    def takes(self, argument: str) -> bool:
        """Whether ``argument`` may be passed."""
        return argument not in self.bound and (self.accepts is None or argument in self.accepts)

    def run(self, model: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor, **offered: Any) -> Tensor:
        """Call the function with those of the offered arguments that it takes and that are not None."""
        arguments = {k: v for k, v in offered.items() if v is not None and self.takes(k)}
        return self.function(model, inputs, labels, **arguments)


@dataclass(frozen=True)
class Task:
    """One attack in one norm, at one budget if it has any: a row of the work to be done for every sample."""

    norm: str
    attack: Attack
    eps: float | None

    def record(self) -> dict[str, Any]:
        """The task as plain data, for the manifest."""
        return {"norm": self.norm, "attack": self.attack.name, "function": self.attack.reference, "eps": self.eps}

    @property
    def title(self) -> str:
        """What progress displays call it."""
        return f"{self.norm} · {self.attack.name}" + ("" if self.eps is None else f" · eps {self.eps:g}")


def resolve(attack: AttackLike) -> Attack:
    """An attack from a name in `pyrobust.attacks`, from ``"package.module:function"``, from the name of a peer's attack
    (``"foolbox:LinfPGD"``, see `pyrobust.adapters`), or from the function itself.

    Raises:
        ImportError: the peer is not installed.
        ValueError: nothing of that name exists.
        TypeError: it is not a function that takes keyword arguments.
    """
    function = _find(attack) if isinstance(attack, str) else attack
    if not callable(function):
        raise TypeError(f"attacks: expected a name or a function, got {attack!r}")
    bound: dict[str, Any] = {}
    inner: Any = function
    while isinstance(inner, functools.partial):
        bound = {**inner.keywords, **bound}
        inner = inner.func
    parameters = inspect.signature(function).parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    keywords = frozenset(p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD))
    name = getattr(inner, "__name__", type(inner).__name__)
    options = "(" + ", ".join(f"{k}={v}" for k, v in sorted(bound.items())) + ")" if bound else ""
    home = f"{getattr(inner, '__module__', '?')}:{getattr(inner, '__qualname__', name)}"
    norms = getattr(inner, "norms", None)
    return Attack(
        name=name + options,
        reference=getattr(inner, "reference", home) + options,
        function=function,
        # A budget attack behind **arguments still shows `eps` by name, so that takes precedence.
        accepts=None if takes_any and "eps" not in keywords else keywords,
        norms=None if norms is None else tuple(norm_name(n) for n in norms),
        bound=frozenset(bound) - {"eps"},
    )


def plan(
    norms: Sequence[str],
    attacks: Attacks | None,
    eps: Mapping[str, Sequence[float]],
    steps: int | None,
    targeted: bool,
    budget: int | None = None,
) -> list[Task]:
    """The tasks of a run: for each norm its attacks in the order given, for a budget attack one task an eps.

    Raises:
        ValueError: an attack is named twice or does not fit its norm, a budget attack has no ``eps``, or an argument
            applies to none of the attacks.
    """
    tasks: list[Task] = []
    for norm, chosen in _attacks_by_norm(norms, attacks).items():
        specs = [resolve(a) for a in chosen]
        names = [s.name for s in specs]
        if len(set(names)) < len(names):
            raise ValueError(f"attacks: named twice for {norm}: {', '.join(names)}")
        for spec in specs:
            if spec.norms is not None and norm not in spec.norms:
                raise ValueError(f"attacks: {spec.name} is an attack in {', '.join(spec.norms)}, not in {norm}")
            if targeted and not spec.takes("targeted"):
                raise ValueError(f"targets: {spec.name} has no targeted form")
            if spec.is_budget and not eps.get(norm):
                raise ValueError(f"eps: {spec.name} searches within a budget, so it needs eps for {norm}")
            tasks += [Task(norm, spec, e) for e in (eps[norm] if spec.is_budget else [None])]
    for name, value, told in (("steps", steps, "number of steps"), ("budget", budget, "budget of gradients")):
        if value is None:
            continue
        check_count(**{name: value})
        if not any(task.attack.takes(name) for task in tasks):
            raise ValueError(f"{name}: none of the chosen attacks takes a {told}")
    return tasks


def budgets_by_norm(norms: Sequence[str], eps: Budgets | None) -> dict[str, tuple[float, ...]]:
    """Ascending positive budgets of each norm that has any.

    Raises:
        ValueError: one list is given for several norms, a norm is not evaluated, or a value is not positive, finite
            and (for l0) whole.
    """
    if eps is None:
        return {}
    if not isinstance(eps, Mapping):
        if len(norms) > 1:
            raise ValueError(f"eps: with several norms ({', '.join(norms)}), give a list for each: linf=0.1,0.2")
        eps = {norms[0]: [eps] if isinstance(eps, (int, float)) else eps}
    found: dict[str, tuple[float, ...]] = {}
    for key, values in eps.items():
        norm = norm_name(key)
        if norm not in norms:
            raise ValueError(f"eps: given for {norm}, which is not among the norms {', '.join(norms)}")
        if isinstance(values, (int, float)):
            values = [values]
        found[norm] = tuple(sorted({float(v) for v in values}))
        if not found[norm] or not all(v > 0 and math.isfinite(v) for v in found[norm]):
            raise ValueError(f"eps: expected positive finite values for {norm}, got {list(values)}")
        if norm == "l0" and any(v != int(v) for v in found[norm]):
            raise ValueError(f"eps: l0 budgets are whole numbers, got {list(values)}")
    return found


def _attacks_by_norm(norms: Sequence[str], attacks: Attacks | None) -> dict[str, list[AttackLike]]:
    if attacks is None:
        return {norm: [DEFAULT_ATTACKS[norm]] for norm in norms}
    if not isinstance(attacks, Mapping):
        return {norm: _as_list(attacks) for norm in norms}
    given = {norm_name(key): _as_list(value) for key, value in attacks.items()}
    if set(given) != set(norms):
        raise ValueError(f"attacks: given for {', '.join(given)}, but the norms are {', '.join(norms)}")
    return {norm: given[norm] for norm in norms}


def _as_list(attacks: AttackLike | Sequence[AttackLike]) -> list[AttackLike]:
    chosen = [attacks] if isinstance(attacks, str) or callable(attacks) else list(attacks)
    if not chosen:
        raise ValueError("attacks: expected at least one")
    return chosen


def _find(name: str) -> object:
    module_name, _, attribute = name.rpartition(":")
    if module_name in PEERS:
        return PEERS[module_name](attribute)
    module_name, attribute = module_name or "pyrobust.attacks", attribute or name
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"attacks: cannot import {module_name} for {name!r}: {error}") from error
    found = getattr(module, attribute, None)
    if found is None or not callable(found):
        raise ValueError(f"attacks: {module_name} has no attack {attribute!r}")
    return found
