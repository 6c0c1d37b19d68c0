"""The commands ``analyse …`` and their own options."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated

from torch import nn
from typer import Option

from pyrobust.analysis._command import Sections, app, command
from pyrobust.analysis.page import Section
from pyrobust.analysis.session import Session
from pyrobust.models import load_weights
from pyrobust.models.reference import build_model

__all__ = ["app"]

Reach = Annotated[
    float | None, Option(help="Largest distance; default: twice the l2 norm that suffices for 95 % of the samples.")
]
Points = Annotated[int, Option(help="Distances, from 0.")]
AttackSteps = Annotated[int, Option(help="Of the minimum-norm attack (FMN).")]


def linear(
    classes: Annotated[str, Option(help="The two classes of the sweep, as 7,9.")] = "1,8",
    loss: Annotated[str, Option(help="hinge (support vector machine) or softplus (logistic regression).")] = "hinge",
    images: Annotated[int, Option(help="Training samples a class, at most.")] = 3000,
    lambdas: Annotated[int, Option(help="Values of the regularisation λ, evenly on a logarithmic scale.")] = 33,
    lowest: Annotated[float, Option(help="Smallest λ.")] = 0.1,
    highest: Annotated[float, Option(help="Largest λ; for MNIST 1e7 reaches the nearest-centroid limit.")] = 1e3,
    regression_classes: Annotated[
        str | None, Option(help="The two classes of the logistic regressions; default 3,7 where the data have them.")
    ] = None,
    eps: Annotated[float, Option(help="linf size of the perturbations of the logistic regressions.")] = 0.25,
    steps: Annotated[int, Option(help="Adam steps of each logistic regression.")] = 500,
    lr: Annotated[float, Option(help="Adam's rate.")] = 3e-3,
) -> Sections:
    """Linear classifiers of two classes: tilt, margins and mirror images over regularisation, the toy problem of one noisy
    point, what decay and adversarial training do to the loss, and logistic regressions trained either way."""
    from pyrobust.analysis.commands.linear import check_linear, linear_sections
    from pyrobust.analysis.commands.linear_regression import check_regression, further_linear_sections, two_classes

    check_linear(loss, images, lambdas, lowest, highest)
    check_regression(eps, steps, lr)
    pair = _pair("--classes", classes)
    other = None if regression_classes is None else _pair("--regression-classes", regression_classes)

    def sections(session: Session) -> list[Section]:
        two_classes(session, other)  # before the sweep takes its time
        sweep = linear_sections(session, pair, loss, images, lambdas, lowest, highest)  # type: ignore[arg-type]
        return [*sweep, *further_linear_sections(session, other, eps, steps, lr)]

    return sections


def spectrum(
    layer: Annotated[str | None, Option(help="Of the Jacobian of this module's output; default: the logits.")] = None,
    k: Annotated[int | None, Option(help="Only so many of the largest singular values; default: all.")] = None,
    eps: Annotated[
        float | None,
        Option(help="l2 radius of gradient ascent; default: what suffices for 95 % of the samples by DeepFool."),
    ] = None,
    untrained: Annotated[bool, Option(help="Also show the same network with fresh weights.")] = True,
) -> Sections:
    """Singular values and operator norms of the Jacobian, alignment of perturbations with its singular vectors, and
    Lipschitz bounds from below and above."""
    from pyrobust.analysis.commands.spectrum import check_spectrum, spectrum_sections

    check_spectrum(k, eps)
    return partial(spectrum_sections, layer=layer, k=k, eps=eps, untrained=untrained)


def linearity(
    layer: Annotated[str | None, Option(help="Measure this module's output; default: the logits.")] = None,
    reach: Reach = None,
    points: Points = 13,
    attack_steps: AttackSteps = 100,
    bins: Annotated[int, Option(help="Of confidence, in the reliability diagram.")] = 15,
) -> Sections:
    """Deviation from linearity along random and adversarial directions, local linear classifiers beside an attack,
    calibration, and weights by layer."""
    from pyrobust.analysis.commands.linearity import check_linearity, linearity_sections

    check_linearity(reach, points, attack_steps, bins)
    return partial(
        linearity_sections, layer=layer, reach=reach, points=points, attack_steps=attack_steps, bins=bins
    )  # fmt: skip


def activations(
    reach: Reach = None,
    points: Points = 13,
    attack_steps: AttackSteps = 100,
) -> Sections:
    """Activations in common over distance and sizes of linear cells, at the data and at noise; for activations that are
    linear by pieces, such as ReLU."""
    from pyrobust.analysis.commands.activations import activations_sections
    from pyrobust.analysis.commands.linearity import check_linearity

    check_linearity(reach, points, attack_steps)
    return partial(activations_sections, reach=reach, points=points, attack_steps=attack_steps)


def filters(
    per_layer: Annotated[int, Option(help="Filters shown of a layer.")] = 32,
    shown: Annotated[int, Option(help="Samples whose saliency maps are shown.")] = 8,
    decay: Annotated[
        float, Option(help="λ of the distance from the mean image of what maximises units and classes.")
    ] = 0.1,
    steps: Annotated[int, Option(help="Of gradient ascent towards these images.")] = 200,
    layer: Annotated[
        str | None, Option(help="Module whose units are maximised; default: the last with weights before the logits.")
    ] = None,
    units: Annotated[int, Option(help="Units of it shown.")] = 16,
) -> Sections:
    """Weights and filters by layer, saliency maps (gradient, deconvolution, guided backpropagation), and images that
    maximise units of a layer and each class."""
    from pyrobust.analysis.commands.filters import check_filters, filters_sections

    check_filters(per_layer, shown, decay, steps, units)
    return partial(
        filters_sections, per_layer=per_layer, shown=shown, decay=decay, steps=steps, layer=layer, units=units
    )  # fmt: skip


def fooling(
    trials: Annotated[int, Option(help="Noise images, each driven to every class at every eps.")] = 50,
    steps: Annotated[int, Option(help="Of the iterative curve, at least 2.")] = 10,
    threshold: Annotated[float, Option(help="Probability that the class must have too.")] = 0.0,
) -> Sections:
    """Fooling images of each class from noise, and success rate and margin over eps of one step and of several."""
    from pyrobust.analysis.commands.fooling import check_fooling, fooling_sections

    check_fooling(trials, steps, threshold)
    return partial(fooling_sections, trials=trials, steps=steps, threshold=threshold)


def transfer(
    against: Annotated[
        list[str] | None,
        Option(
            help="Another network and its weights, as lenet5=runs/at/weights.safetensors; repeatable. Default on digits: a "
            "CNN of another seed and an MLP, trained on the spot."
        ),
    ] = None,
    norm: Annotated[str, Option(help="Of the transferred perturbations: linf, l2 or l1.")] = "linf",
    eps: Annotated[float, Option(help="Their size.")] = 0.1,
    steps: Annotated[int, Option(help="Of the attack (PGD) that makes them.")] = 40,
) -> Sections:
    """Transfer of adversarial examples between networks, and the distances, classes and confusions of this one's."""
    from pyrobust.analysis.commands.transfer import check_transfer, transfer_sections

    check_transfer(norm, eps, steps)
    others = [_other(text) for text in against or []]

    def sections(session: Session) -> list[Section]:
        names = _apart([session.name, *(name for name, _ in others)])[1:]
        networks = [(name, network.to(session.device)) for name, (_, network) in zip(names, others, strict=True)]
        return transfer_sections(session, networks, norm, eps, steps)

    return sections


def _pair(name: str, text: str) -> tuple[int, int]:
    try:
        first, second = (int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{name}: expected two classes such as 7,9, got {text!r}") from error
    return first, second


def _other(text: str) -> tuple[str, nn.Module]:
    """(name, network): named after the folder of its run, or the file of its weights."""
    reference, separator, _ = text.partition("=")
    if not separator:
        raise ValueError(f"--against: expected NETWORK=WEIGHTS, got {text!r}")
    weights = _weights_of(text)
    name = weights.resolve().parent.name if weights.stem in ("weights", "model") else weights.stem
    return name, load_weights(build_model(reference), weights).eval()


def _apart(names: Sequence[str]) -> list[str]:
    """The names, numbered where one occurs again."""
    found: list[str] = []
    for name in names:
        numbered = (f"{name} {number}" if number > 1 else name for number in count(1))
        found.append(next(one for one in numbered if one not in found))
    return found


def _weights_of(text: str) -> Path:
    return Path(text.partition("=")[2])


command("linear", linear, needs_model=False)
command("spectrum", spectrum)
command("linearity", linearity)
command("activations", activations)
command("filters", filters)
command("fooling", fooling)
command("transfer", transfer, files=lambda options: [_weights_of(text) for text in options["against"] or []])
