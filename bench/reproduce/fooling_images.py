"""Figures 8, 9 and 13 of seed 000: noise that networks take for classes, with and without weight decay, and their filters."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from bench.reproduce._common import Numbers, Run, claims, command, table
from bench.reproduce._figures import curves, pictures
from bench.reproduce._filters import draw_filters, roughness, vanished
from bench.reproduce._samples import described, images
from bench.reproduce.fooling_claims import EPS, PAPER_CONFIDENCE, STRICT, UNTRAINED, Curves, Kernels, gone, judge
from bench.reproduce.weight_decay_networks import CNN, CNN_L2, NOTES, SIZES, networks
from pyrobust.analysis import Recognised, fooling_curve, fooling_images, recognised
from pyrobust.models import galloway_cnn, small_cnn

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def main(arguments: list[str] | None = None) -> int:
    return command("fooling-images", __doc__, reproduce, arguments)


def reproduce(run: Run) -> tuple[str, Numbers]:
    noises = {"full": 1000, "quick": 250, "smoke": 10}[run.size]
    data = images("cifar10", run, train=10_000 if run.size == "quick" else None)
    models = networks(run, data)
    shape = data.test[0].shape[1:]
    seen = {name: fooled(model, shape, run.device) for name, model in models.items()}
    found: dict[str, Curves] = {}
    for name, model in models.items():
        found[name] = measure(model, shape, noises, run.device)
        print(f"  {name}: measured", flush=True)
    _draw(run, models, seen, found, data.test[0][:1])
    kernels = {name: kernels_of(model) for name, model in {**models, UNTRAINED: untrained(run)}.items()}
    assert data.train is not None
    size = SIZES[run.size]
    stated = judge(seen, found, kernels, size.epochs * (len(data.train[1]) // size.batch))
    parts = [
        f"# Seed 000, figures 8, 9 and 13 ({run.size})",
        f"{described(data, run)}. {NOTES}",
        "## Figure 8",
        "Uniform noise in [0.5, 0.6] after 50 signed gradient steps of 0.005 towards each class (the paper leaves the norm of a "
        "step open). Where there are two: *paper · ours*.",
        _confidence_table(seen),
        _picture(
            run, 8, "The images with their confidences; in brackets the class they are taken for, where it is another."
        ),
        "## Figure 9",
        f"{noises:,} noise images, uniform in [0, 1], each driven to each class by one signed step of size eps. ASR: the class is "
        f"the prediction; strict: with a probability of {STRICT:g} at least. Margin: mean difference of the two largest "
        "probabilities.",
        _curve_table(found),
        _picture(run, 9, "Left: ASR. Right: margin.", "9-asr", "9-margin"),
        "## Figure 13",
        f"Filters after {size.epochs} epochs (paper: 250). Roughness: squared difference between neighbouring "
        "weights over the mean square (2 for noise); vanished: norm below a hundredth of the largest.",
        _kernel_table(kernels),
        *(_picture(run, 13, f"{name}.", f"13-{name.lower()}") for name in (CNN, CNN_L2)),
        "## What the paper says of them, here",
        claims(stated),
    ]
    numbers: dict[str, Any] = {
        name: {
            "confidence": seen[name].confidence.tolist(), "predictions": seen[name].predictions.tolist(),
            "success": found[name].free.success.tolist(), "strict_success_at_16": found[name].strict,
            "margin": found[name].free.margin.tolist(), "kernels": vars(kernels[name]),
        }
        for name in models
    }  # fmt: skip
    return "\n\n".join(parts), {"eps": EPS, **numbers, "claims": [vars(claim) for claim in stated]}


def fooled(model: nn.Module, shape: torch.Size, device: torch.device) -> Recognised:
    """The images of figure 8."""
    targets = torch.arange(10, device=device)
    return recognised(model, fooling_images(model, targets, shape), targets)


def measure(model: nn.Module, shape: torch.Size, noises: int, device: torch.device) -> Curves:
    """The curve of figure 9, and the point that the text compares with."""
    free = fooling_curve(model, shape, [eps / 255 for eps in EPS], samples=noises, device=device)
    strict = fooling_curve(model, shape, [16 / 255], samples=noises, threshold=STRICT, device=device)
    return Curves(free, strict.success.item())


def kernels_of(model: nn.Module) -> Kernels:
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    return Kernels(roughness(weights[0]), [len(weight) for weight in weights], [vanished(weight) for weight in weights])


def untrained(run: Run) -> nn.Module:
    """The CNNs as they begin."""
    return small_cnn() if run.size == "smoke" else galloway_cnn()


def _draw(
    run: Run, models: dict[str, nn.Module], seen: dict[str, Recognised], found: dict[str, Curves], example: Tensor
) -> None:
    shown = {name: one.images for name, one in seen.items()}
    under = [
        [
            f"{100 * share:.0f} %" + ("" if made_for == taken_for else f" ({CLASSES[taken_for]})")
            for made_for, taken_for, share in zip(
                one.classes.tolist(), one.predictions.tolist(), one.confidence.tolist(), strict=True
            )
        ]
        for one in seen.values()
    ]
    pictures(run.path("figure-8.png"), shown, CLASSES, under=under)
    for name, values in (("asr", "success"), ("margin", "margin")):
        lines = {net: (EPS, getattr(one.free, values).tolist()) for net, one in found.items()}
        label = {"asr": "ASR (%)", "margin": "margin of probability (%)"}[name]
        curves(run.path(f"figure-9-{name}.png"), "", lines, "eps (linf, grey levels of 255)", label)
    for name in (CNN, CNN_L2):
        draw_filters(run.path(f"figure-13-{name.lower()}.png"), models[name], example, 32, layers=1)


def _confidence_table(seen: dict[str, Recognised]) -> str:
    rows = []
    for name, one in seen.items():
        paper = "{}–{} % · ".format(*PAPER_CONFIDENCE[name]) if name in PAPER_CONFIDENCE else ""
        hits = int((one.predictions == one.classes).sum())
        low, high = 100 * one.confidence.min(), 100 * one.confidence.max()
        rows.append((name, f"{paper}{low:.0f}–{high:.0f} %", f"{hits} of {len(one.classes)}"))
    return table(("network", "confidence", "taken for their class"), rows)


def _curve_table(found: dict[str, Curves]) -> str:
    rows = []
    for name, one in found.items():
        peak = int(one.free.success.argmax())
        at = EPS.index(16)
        rows.append(
            (name, f"{100 * one.free.success[peak]:.1f} % at {EPS[peak]}/255", f"{100 * one.free.success[at]:.1f} %",
             f"{100 * one.strict:.1f} %", f"{one.free.margin[at]:.3f}", f"{one.free.margin[-1]:.3f}")
        )  # fmt: skip
    head = ("network", "highest ASR", "ASR at 16/255", "strict ASR at 16/255", "margin at 16/255", "margin at 255/255")
    return table(head, rows)


def _kernel_table(kernels: dict[str, Kernels]) -> str:
    rows = [(name, f"{one.roughness:.2f}", *gone(one).split(", ")) for name, one in kernels.items()]
    layers = [f"vanished, conv{number + 1}" for number in range(len(rows[0]) - 2)]
    return table(("network", "roughness, conv1", *layers), rows)


def _picture(run: Run, number: int, caption: str, *names: str) -> str:
    shown = " ".join(f"![figure {number}]({run.path(f'figure-{name}.png').name})" for name in names or (str(number),))
    return f"{shown}\n\n*Figure {number}. {caption}*"


if __name__ == "__main__":
    sys.exit(main())
