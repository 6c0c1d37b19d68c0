"""Linear classifiers between weight decay and adversarial training: the toy problem, the loss, logistic regressions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyrobust.analysis.commands._linear_toy import toy_sections
from pyrobust.analysis.commands._logistic import Pair, logistic_sections
from pyrobust.analysis.logistic_models import LOGISTIC_VARIANTS, LogisticVariant, logistic_model
from pyrobust.analysis.loss_translation import loss_translation
from pyrobust.analysis.page import Section, Table
from pyrobust.analysis.session import Session
from pyrobust.analysis.slider import Slider
from pyrobust.attacks._common import check_count, check_positive
from pyrobust.models import TwoClassLinear

SHOWN = ("natural", "expert", "expert, l2 0.05", "binarised", "l2 3.25", "l1 3.25", "l1 15", "l1 32", "FGSM")
DECAYS = (0.0, 0.01, 0.05, 0.2, 1.0, 3.25)  # of ½‖w‖², for the slider
FRAMES = 8  # of the slider over eps


def further_linear_sections(
    session: Session,
    classes: tuple[int, int] | None = None,
    eps: float = 0.25,
    steps: int = 500,
    lr: float = 3e-3,
) -> list[Section]:
    """The toy problem, what decay and adversarial training do to the loss, and logistic regressions trained either way.

    Args:
        session: its data is used, not its model: all training samples of the two classes, and as many test samples of them as
            the session has inputs.
        classes: the two, the first of them labelled 1; None: 3 and 7, or the first two there are.
        eps: linf size of the perturbations.
        steps, lr: of Adam, for each logistic regression.

    Raises:
        ValueError: naming the option, or the data has no training part.
    """
    check_regression(eps, steps, lr)
    pair = two_classes(session, classes)
    variants = {name: LOGISTIC_VARIANTS[name] for name in SHOWN}
    variants |= {f"decay {decay:g}": LogisticVariant(l2=decay) for decay in DECAYS if decay > 0}
    models = _models(session, variants, pair, steps, lr)
    regressions = {name: models[name] for name in SHOWN}
    decayed = {decay: models[f"decay {decay:g}" if decay > 0 else "natural"] for decay in DECAYS}
    return [
        *toy_sections(),
        _losses(models["natural"], pair, session.batch_size),
        _scaled(decayed, pair, session.batch_size),
        _shifted(models["natural"], pair, session.batch_size),
        *logistic_sections(session, regressions, pair, eps),
    ]


def check_regression(eps: float, steps: int, lr: float) -> None:
    """Raises:
    ValueError: naming the option that is not as `further_linear_sections` expects it.
    """
    check_positive(eps=eps, lr=lr)
    check_count(steps=steps)


def two_classes(session: Session, classes: tuple[int, int] | None) -> Pair:
    """Their samples, by default those of 3 and 7.

    Raises:
        ValueError: naming the option: the data, or the test samples that the session takes, have not both.
    """
    inputs, labels = session.training_part()
    if classes is None:
        there = labels.unique().tolist()
        classes = (3, 7) if {3, 7} <= set(there) else (there[0], there[-1])
    session.check_two(classes, "regression_classes")

    def part(inputs: Tensor, labels: Tensor, most: int) -> tuple[Tensor, Tensor]:
        kept = ((labels == classes[0]) | (labels == classes[1])).nonzero().squeeze(1)[:most]
        return inputs[kept].to(session.device), (labels[kept] == classes[0]).long().to(session.device)

    train = part(inputs, labels, len(labels))
    test = part(*session.data.test, len(session.inputs))
    if len(test[1].unique()) < 2:
        raise ValueError(f"regression_classes: expected both {classes[0]} and {classes[1]} among the test samples")
    return Pair((classes[1], classes[0]), train, test)


def _models(
    session: Session, variants: Mapping[str, LogisticVariant], pair: Pair, steps: int, lr: float
) -> dict[str, TwoClassLinear]:
    def trained(name: str) -> dict[str, Tensor]:
        return logistic_model(variants[name], pair.train, steps=steps, lr=lr, seed=session.seed).state_dict()

    found = {}
    features = pair.train[0][0].numel()
    states = session.work.map("logistic regressions", list(variants), trained, size=lambda name: 1)
    for (name, variant), state in zip(variants.items(), states, strict=True):
        model = TwoClassLinear(features, binarised=variant.binarised)
        model.load_state_dict(state)
        found[name] = model.to(session.device).eval().requires_grad_(False)
    return found


def _losses(model: TwoClassLinear, pair: Pair, batch_size: int) -> Section:
    found = loss_translation(model, *pair.train, batch_size=batch_size)
    return Section(
        "Scores and the loss",
        f"Logistic regression of {pair.name}, on the training samples: scores by class; times the label, so that what is "
        "misclassified is negative; and the loss that each sample is given.",
        figure=found.plot(),
        data={"norm": found.length, "risk": found.risk(), "error": found.error()},
    )


def _scaled(models: Mapping[float, TwoClassLinear], pair: Pair, batch_size: int) -> Section:
    found = {decay: loss_translation(model, *pair.train, batch_size=batch_size) for decay, model in models.items()}
    values = [f"{decay:g}" for decay in found]
    rows = [
        (value, f"{one.length:.3g}", f"{one.distance.mean():.3f}", f"{one.risk():.3g}", f"{100 * one.error():.2f} %")
        for value, one in zip(values, found.values(), strict=True)
    ]
    return Section(
        "Weight decay scales the loss",
        "Models trained with a decay λ of ½‖w‖²: distances to the boundary times the label, and the softplus loss as a function "
        "of them, which ‖w‖ scales. Without decay only what is misclassified is penalised, with much of it all the data nearly "
        "linearly, which pushes its mean distance up.",
        table=Table(("λ", "‖w‖", "mean y d(x)", "risk", "training error"), rows),
        slider=Slider("weight decay λ", values, [one.plot_loss() for one in found.values()]),
        data={"decay": list(found), "norm": [one.length for one in found.values()]},
    )


def _shifted(model: TwoClassLinear, pair: Pair, batch_size: int) -> Section:
    found = loss_translation(model, *pair.train, batch_size=batch_size)
    # From none of the samples beyond the boundary to all of them.
    sizes = torch.linspace(0, float(found.distance.max()), FRAMES).tolist()
    values = [f"{eps:.2f}" for eps in sizes]
    rows = [
        (value, f"{found.risk(eps=eps):.3g}", f"{100 * found.error(eps):.1f} %")
        for value, eps in zip(values, sizes, strict=True)
    ]
    return Section(
        "Adversarial training translates the data",
        "The loss at the worst points within ε in l2 is that of distances smaller by ε: the data moves towards the misclassified "
        "side while the loss stays as it is. With a large ε all of it lies there, and training has nothing to hold on to.",
        table=Table(("ε", "risk", "misclassified"), rows),
        slider=Slider("perturbation size ε", values, [found.plot_loss(eps=eps) for eps in sizes]),
        data={"eps": sizes, "risk": [found.risk(eps=eps) for eps in sizes]},
    )
