"""The LeNet example of seed 001: low and high weight decay on MNIST, their errors, weights and adversarial images."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.reproduce._common import Claim, Curve, Numbers, Run, claims, command, table, trained, wrong
from bench.reproduce._figures import curves, pictures
from bench.reproduce._filters import draw_filters, roughness, variation
from bench.reproduce._samples import described, images
from pyrobust.analysis import filters, softmax_temperature
from pyrobust.attacks import confident_ascent
from pyrobust.data import Data
from pyrobust.models import lenet_matconvnet
from pyrobust.training import CrossEntropy, Objective, Recipe

LOW, HIGH = "LeNet low", "LeNet high"
DECAY = {LOW: 1e-4, HIGH: 1e-1}
PAPER_ERROR = {LOW: 1.6, HIGH: 1.2}  # of the test images, in %
CONFIDENCE = 0.95
LAYERS = {"conv1": 0, "conv2": 1, "fc1": 2, "fc2": 3}  # their places among the layers with weights
COUNTED = 10_000  # training images whose error is told after every epoch


@dataclass(frozen=True)
class Size:
    """Images to train and test on (None: all), epochs, images moved to the next class beside the ten shown, steps at most."""

    test: int | None
    epochs: int
    moved: int
    steps: int
    batch: int = 300


SIZES = {
    "full": Size(None, 50, 1000, 5000),
    "quick": Size(None, 10, 50, 2000),
    "smoke": Size(100, 2, 5, 40, batch=30),
}


@dataclass(frozen=True)
class Moved:
    """Images driven to the next class: the points, which of them got there with the confidence, and ‖r‖₂ (inf where not)."""

    points: Tensor
    distances: Tensor


def main(arguments: list[str] | None = None) -> int:
    return command("weight-decay-lenet", __doc__, reproduce, arguments)


def reproduce(run: Run) -> tuple[str, Numbers]:
    size = SIZES[run.size]
    data = images("mnist", run, test=size.test)
    models: dict[str, nn.Module] = {}
    errors: dict[str, list[list[float]]] = {}
    for name in DECAY:
        curve = Curve(partial(_errors, data))
        models[name] = _network(run, name, size, data, curve)
        errors[name] = curve.values
    inputs, labels = data.test
    shown = one_of_each(labels)
    temperatures = {name: temperature(model, inputs) for name, model in models.items()}
    seen, counted = {}, {}
    for name, model in models.items():
        move = partial(moved, model, temperature=temperatures[name], steps=size.steps)
        seen[name], counted[name] = move(inputs[shown], labels[shown]), move(inputs[: size.moved], labels[: size.moved])
        print(f"  {name}: moved", flush=True)
    weights = {name: _weights(model, inputs[:1]) for name, model in models.items()}
    _draw(run, data, models, errors, inputs[shown], labels[shown], seen)
    stated = judge(errors, weights, counted, seen)
    parts = [
        f"# Seed 001, “Example: LeNet on MNIST” ({run.size})",
        f"{described(data, run)}. MatConvNet's LeNet (two convolutions, max pools, one ReLU) on pixels in [0, 255] less their "
        f"mean; weight decay {DECAY[LOW]:g} and {DECAY[HIGH]:g}, {size.epochs} epochs (paper: 50), batches of {size.batch} (paper: "
        "300), rate 0.0005, momentum 0.9. Where there are two numbers: *paper · ours*.",
        "## Errors",
        _error_table(errors),
        _picture(run, "errors", f"Error after every epoch; of the training images, the first {COUNTED:,}."),
        "## Weights",
        "Root mean square by layer; roughness (squared difference between neighbouring weights over the mean square: 2 for noise); "
        "spread of the filters' norms (standard deviation over mean).",
        _weight_table(weights),
        *(_picture(run, _slug(name), f"{name}: a random selection of filters.") for name in models),
        "## Adversarial images",
        f"Each image is driven to the next class (0 → 1, …, 9 → 0) by steps of 1 of 255 along ∇p until p = {CONFIDENCE:g}, "
        f"{size.steps:,} steps at most, at the softmax temperature at which the median score of the test images is that.",
        _distance_table(temperatures, counted, seen),
        _picture(run, "images", "OI: the images; AE and Pert: adversarial images and perturbations (grey: 0), with ‖r‖₂ for "
                 "pixels in [0, 1]."),
        "## What the paper says of them, here",
        claims(stated),
    ]  # fmt: skip
    numbers: dict[str, Any] = {
        name: {
            "weight_decay": DECAY[name], "errors_by_epoch": errors[name], "weights": weights[name],
            "temperature": temperatures[name], "distances_shown": seen[name].distances.tolist(),
            "distances": counted[name].distances.tolist(),
        }
        for name in models
    }  # fmt: skip
    return "\n\n".join(parts), {**numbers, "claims": [vars(claim) for claim in stated]}


def _network(run: Run, name: str, size: Size, data: Data, curve: Curve) -> nn.Module:
    assert data.train is not None
    model = lenet_matconvnet()
    if run.size == "smoke":  # digits of 8 × 8
        model = nn.Sequential(nn.Upsample(28), *model)
    recipe = Recipe(
        epochs=size.epochs, batch_size=size.batch, lr=5e-4, momentum=0.9, weight_decay=DECAY[name], schedule="constant"
    )
    return trained(run, f"mnist {name}", model, Objective(ce=CrossEntropy()), data.train, recipe, curve)


def _errors(data: Data, model: nn.Module) -> list[float]:
    """Shares of wrong training and test images."""
    assert data.train is not None
    parts = ((x[:COUNTED], y[:COUNTED]) for x, y in (data.train, data.test))
    return [float(wrong(model, x, y).mean()) for x, y in parts]


def one_of_each(labels: Tensor) -> list[int]:
    """A random image of each class, by a fixed seed."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).tolist()
    return [next(i for i in order if labels[i] == label) for label in range(10)]


@torch.no_grad()
def temperature(model: nn.Module, inputs: Tensor) -> float:
    """At which the median confidence is `CONFIDENCE`."""
    return softmax_temperature(torch.cat([model(x) for x in inputs.split(500)]), CONFIDENCE)


def moved(model: nn.Module, inputs: Tensor, labels: Tensor, *, temperature: float, steps: int) -> Moved:
    """The images, driven to the class after theirs until it has the confidence."""
    targets = (labels + 1) % 10
    points = confident_ascent(
        model, inputs, targets, targeted=True, confidence=CONFIDENCE, temperature=temperature, steps=steps
    )
    with torch.no_grad():
        scores = torch.softmax(model(points).double() / temperature, 1).gather(1, targets.unsqueeze(1)).squeeze(1)
    distances = (points.double() - inputs.double()).flatten(1).norm(dim=1)
    # The attack compares in float32.
    return Moved(points, torch.where(scores >= CONFIDENCE - 1e-5, distances, torch.inf).cpu())


def _weights(model: nn.Module, example: Tensor) -> dict[str, dict[str, float]]:
    layers = filters(model, example).layers
    found: dict[str, dict[str, float]] = {}
    for name, place in LAYERS.items():
        weight = model.get_submodule(layers[place].name).weight
        found[name] = {"rms": layers[place].rms, "variation": variation(weight)}
        if weight.ndim == 4:
            found[name]["roughness"] = roughness(weight)
    return found


def judge(
    errors: dict[str, list[list[float]]], weights: dict[str, Any], counted: dict[str, Moved], seen: dict[str, Moved]
) -> list[Claim]:
    """The paper's sentences about the two networks."""
    last = {name: [100 * e for e in values[-1]] for name, values in errors.items()}
    gaps = {name: test - train for name, (train, test) in last.items()}
    middles = {name: one.distances.median().item() for name, one in counted.items()}
    longer = int((seen[HIGH].distances > seen[LOW].distances).sum())

    def against(what: str, layers: tuple[str, ...]) -> str:
        return ", ".join(
            f"{layer} {weights[HIGH][layer][what]:.3g} against {weights[LOW][layer][what]:.3g}" for layer in layers
        )

    def lower(what: str, layers: tuple[str, ...], first: str, second: str) -> bool:
        return all(weights[first][layer][what] < weights[second][layer][what] for layer in layers)

    convolutions, every = ("conv1", "conv2"), tuple(LAYERS)
    three = ("conv1", "conv2", "fc1")
    return [
        Claim(
            f"{HIGH} is less overfitted (test error − training error)",
            gaps[HIGH] < gaps[LOW],
            f"{gaps[HIGH]:.2f} against {gaps[LOW]:.2f} points",
        ),
        Claim(
            f"{HIGH} has the lower test error at the end (1.2 % against 1.6 %)",
            last[HIGH][1] < last[LOW][1],
            f"{last[HIGH][1]:.2f} % against {last[LOW][1]:.2f} %",
            _still_learning(errors),
        ),
        Claim(
            "the weights of every layer have a lower RMS with high decay",
            lower("rms", every, HIGH, LOW),
            against("rms", every),
        ),
        Claim(
            "the filters are smoother with high decay (roughness)",
            lower("roughness", convolutions, HIGH, LOW),
            against("roughness", convolutions),
        ),
        Claim(
            "the magnitudes of filters vary more within each layer with high decay",
            lower("variation", three, LOW, HIGH),
            against("variation", three),
        ),
        Claim(
            f"the adversarial perturbations of {HIGH} have higher l2 norms",
            middles[HIGH] > middles[LOW] and longer > 5,
            f"median {middles[HIGH]:.2f} against {middles[LOW]:.2f}; of the ten shown, {longer} are longer",
        ),
    ]


def _still_learning(errors: dict[str, list[list[float]]]) -> str:
    """Training errors at the end, and what the last half of the epochs took off them: decay has its say once fitting is over."""
    told = []
    for name, values in errors.items():
        middle, end = (100 * values[i][0] for i in (len(values) // 2 - 1, -1))
        told.append(
            f"{name} still gets {end:.2f} % of the training images wrong, {middle - end:.2f} points fewer than halfway"
        )
    return f"after {len(errors[HIGH])} epochs of the paper's 50 {'; '.join(told)}"


def _draw(
    run: Run, data: Data, models: dict[str, nn.Module], errors: dict[str, list[list[float]]], originals: Tensor, labels: Tensor,
    seen: dict[str, Moved],
) -> None:  # fmt: skip
    lines, styles = {}, {}
    for number, (name, values) in enumerate(errors.items()):
        epochs = range(1, len(values) + 1)
        for part, style in (("training", ":"), ("test", "-")):
            key = f"{name}, {part}"
            lines[key] = (epochs, [value[part == "test"] for value in values])
            styles[key] = (number, style)
    curves(run.path("errors.png"), data.name, lines, "epoch", "error (%)", styles=styles)
    rows, under = {"OI": originals}, [["" for _ in originals]]
    for name, one in seen.items():
        rows[f"AE\n{name.split()[-1]}"] = one.points
        rows[f"Pert\n{name.split()[-1]}"] = 0.5 + (one.points - originals) / 2
        under += [
            ["" for _ in originals],
            [f"{d:.2f}" if d < torch.inf else "not reached" for d in one.distances.tolist()],
        ]
    titles = [f"{label} → {(label + 1) % 10}" for label in labels.tolist()]
    pictures(run.path("images.png"), rows, titles, under=under)
    for name, model in models.items():
        draw_filters(run.path(f"{_slug(name)}.png"), model, originals[:1], 32)


def _error_table(errors: dict[str, list[list[float]]]) -> str:
    rows = [
        (
            name,
            f"{DECAY[name]:g}",
            f"{100 * values[-1][0]:.2f} %",
            f"{PAPER_ERROR[name]:.1f} % · {100 * values[-1][1]:.2f} %",
        )
        for name, values in errors.items()
    ]
    return table(("network", "weight decay", "training error", "test error"), rows)


def _weight_table(weights: dict[str, Any]) -> str:
    rows = [
        (f"{name}, {layer}", f"{found['rms']:.3g}", f"{found['roughness']:.2f}" if "roughness" in found else "–",
         f"{found['variation']:.2f}")
        for name, layers in weights.items() for layer, found in layers.items()
    ]  # fmt: skip
    return table(("layer", "RMS", "roughness", "spread of norms"), rows)


def _distance_table(temperatures: dict[str, float], counted: dict[str, Moved], seen: dict[str, Moved]) -> str:
    rows = []
    for name, one in counted.items():
        reached = int(one.distances.isfinite().sum())
        rows.append((name, f"{temperatures[name]:.3g}", f"{reached} of {len(one.distances)}", f"{one.distances.median():.2f}",
                     f"{seen[name].distances.median():.2f}"))  # fmt: skip
    return table(("network", "temperature", "reached", "median ‖r‖₂", "median of the ten shown"), rows)


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _picture(run: Run, name: str, caption: str) -> str:
    return f"![{name}]({run.path(f'{name}.png').name})\n\n*{caption}*"


if __name__ == "__main__":
    sys.exit(main())
