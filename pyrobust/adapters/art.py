"""The attacks of ART, the Adversarial Robustness Toolbox."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyrobust.adapters._peer import PeerAttack, Request, Traits, first_of, load, own_arguments

_INSTALL = "pip install adversarial-robustness-toolbox six tqdm"
_EXPONENTS = {"l1": 1, "l2": 2, "linf": math.inf}
_BALLS = ("l1", "l2", "linf")
_NORMS: dict[str, tuple[str, ...]] = {
    "AutoConjugateGradient": _BALLS,
    "AutoProjectedGradientDescent": _BALLS,
    "BasicIterativeMethod": ("linf",),
    "BoundaryAttack": ("l2",),
    "CarliniL0Method": ("l0",),
    "CarliniL2Method": ("l2",),
    "CarliniLInfMethod": ("linf",),
    "DeepFool": ("l2",),
    "ElasticNet": ("l1", "l2"),
    "FastGradientMethod": _BALLS,
    "HopSkipJump": ("l2", "linf"),
    "MomentumIterativeMethod": _BALLS,
    "NewtonFool": ("l2",),
    "ProjectedGradientDescent": _BALLS,
    "SaliencyMapMethod": ("l0",),
    "SquareAttack": ("l2", "linf"),
    "ZooAttack": ("l2",),
}
_OURS = ("classifier", "estimator", "targeted", "norm", "eps", "summary_writer")
# Their targeted form follows from the one-hot labels that generate() is given.
_BY_LABEL = ("SaliencyMapMethod",)


def art(name: str, **options: Any) -> PeerAttack:
    """An attack of ART (1.20.1), as one of ours.

    Args:
        name: of a class in ``art.attacks.evasion``, as "ElasticNet", "SaliencyMapMethod".
        options: arguments of its constructor, or ``steps`` for its ``max_iter``. ``batch_size`` is the size of the batch
            unless given (ART's own default is often 1), and ``verbose`` is off.

    Returns:
        attack(model, inputs, labels, *, norm, …), see `pyrobust.adapters`. ElasticNet decides by the norm that is asked
        for ("L1" or "L2") unless ``decision_rule`` is given. Its l0 counts values, not pixels.

    Raises:
        ImportError: ART is not installed.
        ValueError: there is no such attack, or it does not take an option.
    """
    if name not in _NORMS:
        raise ValueError(f"art: no attack {name!r}; expected one of {', '.join(_NORMS)}")
    arguments = own_arguments(_class(name).__init__, ())
    available = arguments - set(_OURS)
    targeted = "targeted" in arguments or name in _BY_LABEL
    traits = Traits(_NORMS[name], "eps" in arguments, targeted, first_of(("max_iter",), available), available)
    return PeerAttack("art", name, _run, traits, options)


def _run(request: Request) -> Tensor:
    estimators = load("art", "art.estimators.classification", _INSTALL)
    kind = _class(request.attack)
    takes, device = own_arguments(kind.__init__, ()), request.inputs.device
    classifier = estimators.PyTorchClassifier(
        model=request.model, loss=torch.nn.CrossEntropyLoss(), input_shape=tuple(request.inputs.shape[1:]),
        nb_classes=request.classes, clip_values=(0.0, 1.0), device_type="gpu" if device.type == "cuda" else "cpu",
    )  # fmt: skip
    defaults = {
        "norm": _EXPONENTS.get(request.norm),
        "eps": request.eps,
        "targeted": request.targeted,
        "batch_size": len(request.inputs),
        "verbose": False,
        "decision_rule": request.norm.upper(),
    }
    given = {key: value for key, value in defaults.items() if key in takes and value is not None} | request.options
    if "eps_step" in takes and request.eps is not None:
        given.setdefault("eps_step", request.eps / 4)  # ART wants it no larger than eps, and its default is a constant
    # With the labels of an untargeted JSMA, ART would aim at them.
    labels = None if request.attack in _BY_LABEL and not request.targeted else request.labels.cpu().numpy()
    adv = kind(classifier, **given).generate(x=request.inputs.cpu().numpy(), y=labels)
    return torch.from_numpy(adv).to(device)


def _class(name: str) -> Any:
    return getattr(load("art", "art.attacks.evasion", _INSTALL), name)
