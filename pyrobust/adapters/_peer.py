"""What all adapters share: another library's attack behind the signature of ours.

Every peer is given float32 inputs in [0, 1] and a module without parameters of its own, whatever the model, its bounds and
its dtype are: the defaults of the peers mean what they mean there, and none of them can reach the model's weights.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.adapters._unit import UnitModel, frozen, seeded
from pyrobust.attacks._common import Model, check_call, check_number, clean_logits, rows_like, undisturbed
from pyrobust.attacks._search import is_adversarial


@dataclass(frozen=True)
class Request:
    """One call of a peer's attack.

    Attributes:
        attack: the peer's name of it.
        model: a module from float32 inputs (N, …) in [0, 1] to float32 logits (N, classes).
        inputs, labels: float32 in [0, 1]; int64: true labels, or targets.
        eps: in the units of ``inputs``; None for minimum-norm attacks.
        options: arguments under the peer's own names.
    """

    attack: str
    model: nn.Module
    inputs: Tensor
    labels: Tensor
    norm: str
    eps: float | None
    targeted: bool
    classes: int
    seed: int
    options: dict[str, Any]


@dataclass(frozen=True)
class Traits:
    """What is known of a peer's attack before it is called.

    Attributes:
        norms: it is made for.
        budget: it searches within a budget eps.
        targeted: it has a targeted form that works.
        steps: the peer's name for its number of steps; None where it has none.
        options: names of the arguments that may be passed on; None where the peer itself has to judge.
    """

    norms: tuple[str, ...]
    budget: bool
    targeted: bool
    steps: str | None
    options: frozenset[str] | None


class PeerAttack:
    """attack(model, inputs, labels, *, norm, [eps], [steps], [targeted], bounds, seed, eval_mode) -> adversarial inputs.

    Arguments in brackets are there where the peer's attack has them (its signature tells). The result keeps the
    contract of `pyrobust.attacks`: inside ``bounds``, samples that are adversarial already unchanged; where a
    minimum-norm attack found nothing, the unchanged input. What the peer draws at random follows from ``seed``, but in
    batch order: unlike ours, its results depend on the batch, so there are no ``sample_ids``.

    Costs two forward passes more than the peer's attack.
    """

    def __init__(
        self, library: str, name: str, run: Callable[[Request], Tensor], traits: Traits, options: Mapping[str, Any]
    ) -> None:
        options = dict(options)
        if "steps" in options and traits.steps is not None:
            options[traits.steps] = options.pop("steps")
        unknown = options.keys() - traits.options if traits.options is not None else set()
        if unknown:
            raise ValueError(
                f"options: {library}:{name} has no {', '.join(sorted(unknown))}; it takes {', '.join(sorted(traits.options or ()))}"
            )
        told = f"({', '.join(f'{key}={value}' for key, value in sorted(options.items()))})" if options else ""
        self.library, self.attack, self.run, self.traits, self.options = library, name, run, traits, options
        self.norms = traits.norms  # read by the evaluation before it calls, as the next three
        self.__name__ = f"{library}:{name}{told}"
        self.reference = f"{library} {version_of(library)}:{name}{told}"
        self.__signature__ = _signature(traits)

    def __repr__(self) -> str:
        return f"<attack {self.reference}>"

    def __call__(self, model: Model, inputs: Tensor, labels: Tensor, **arguments: Any) -> Tensor:
        unknown = arguments.keys() - self.__signature__.parameters.keys()
        if unknown:
            takes = ", ".join(self.__signature__.parameters)
            raise TypeError(f"{self.__name__} has no {', '.join(sorted(unknown))}; it takes {takes}")
        bound = self.__signature__.bind(model, inputs, labels, **arguments)
        bound.apply_defaults()
        return self._attack(**bound.arguments)

    def _attack(
        self,
        model: Model,
        inputs: Tensor,
        labels: Tensor,
        *,
        norm: Norm,
        bounds: Bounds,
        seed: int,
        eval_mode: bool,
        eps: float | None = None,
        steps: int | None = None,
        targeted: bool = False,
    ) -> Tensor:
        name = norm_name(norm, self.norms)
        inputs, bounds, _ = check_call(inputs, labels, bounds, 1 if steps is None else steps, 1, None, seed)
        if eps is not None or self.traits.budget:
            eps = check_number("eps", eps, 0)  # type: ignore[arg-type]  # None is what it refuses
        options = dict(self.options)
        if steps is not None and self.traits.steps is not None:
            options[self.traits.steps] = steps
        width = bounds[1] - bounds[0]
        precise = torch.autocast(inputs.device.type, enabled=False)  # peers are made for float32
        with undisturbed(model, eval_mode), frozen(model), seeded(seed), precise:
            clean = clean_logits(model, inputs, labels)
            unit = UnitModel(model, inputs, bounds).eval()
            given = unit.scaled(inputs)
            scale = 1.0 if name == "l0" else width
            request = Request(
                self.attack, unit, given.clone(), labels.clone(), name, None if eps is None else eps / scale, targeted,
                clean.shape[1], seed, options,
            )  # fmt: skip
            with torch.enable_grad():
                found = self.run(request).detach().to(inputs.device)
            # What the peer left alone keeps its bits: scaling there and back would not.
            adv = torch.where(found == given, inputs, unit.restored(found)).clamp(*bounds)
            with torch.no_grad():
                keep = ~is_adversarial(clean, labels, targeted)
                if not self.traits.budget:
                    keep = keep & is_adversarial(model(adv), labels, targeted)
            return torch.where(rows_like(keep, inputs), adv, inputs)


def load(library: str, module: str, extra: str) -> ModuleType:
    """Import a module of a peer; ImportError tells how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{library}: cannot be imported ({error}); install it with: {extra}") from error


def version_of(library: str) -> str:
    """The installed version of a peer, "?" where its distribution is not known."""
    package = {"adv_lib": "adv-lib", "art": "adversarial-robustness-toolbox"}.get(library, library)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "?"


def own_arguments(function: Callable[..., Any], without: tuple[str, ...]) -> frozenset[str]:
    """Names of the arguments that a peer's function or class takes, without those that the adapter sets."""
    return frozenset(inspect.signature(function).parameters) - {"self", *without}


def first_of(names: tuple[str, ...], available: frozenset[str]) -> str | None:
    """The first name that is there, else None."""
    return next((name for name in names if name in available), None)


def _signature(traits: Traits) -> inspect.Signature:
    kind, keyword = inspect.Parameter, inspect.Parameter.KEYWORD_ONLY
    norm = traits.norms[0] if len(traits.norms) == 1 else kind.empty
    parameters = [kind(name, kind.POSITIONAL_OR_KEYWORD) for name in ("model", "inputs", "labels")]
    parameters.append(kind("norm", keyword, default=norm))
    if traits.budget:
        parameters.append(kind("eps", keyword))
    if traits.steps is not None:
        parameters.append(kind("steps", keyword, default=None))
    if traits.targeted:
        parameters.append(kind("targeted", keyword, default=False))
    for name, default in (("bounds", (0.0, 1.0)), ("seed", 0), ("eval_mode", True)):
        parameters.append(kind(name, keyword, default=default))
    return inspect.Signature(parameters)
