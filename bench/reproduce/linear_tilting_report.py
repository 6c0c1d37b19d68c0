"""Sweeps of linear classifiers as Markdown: a table of the pairs, and what seed 001 states as orderings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.reproduce._common import Claim, claims, table
from pyrobust.analysis.geometry import empirical_risk
from pyrobust.analysis.sweep import Sweep
from pyrobust.analysis.tilting import nearest_centroid

Pair = tuple[int, int]
ROUNDING = 1e-9  # d_adv of two solutions as near as this is equal
NAMES = {"hinge": "Support vector machines", "softplus": "Logistic regression"}


def nearest_centroid_errors(
    sweep: Sweep, inputs: Tensor, labels: Tensor, test_inputs: Tensor, test_labels: Tensor
) -> Tensor:
    """Training and test error of each pair's nearest-centroid classifier, (P, 2)."""
    rows = []
    for number, (low, high) in enumerate(sweep.pairs.tolist()):
        view = sweep.view(number, inputs, labels)
        w, b = nearest_centroid(view.inputs, view.labels)
        chosen = (test_labels == low) | (test_labels == high)
        tested = test_inputs[chosen], (test_labels[chosen] == high).long()
        rows.append([empirical_risk(*part, w, b, loss="0-1") for part in ((view.inputs, view.labels), tested)])
    return torch.tensor(rows, dtype=torch.float64)


def orderings(sweep: Sweep, centroid: Tensor, shown: Sequence[Pair], shifted: Pair) -> list[Claim]:
    """What the section states."""
    train, test, distance = sweep.train_error, sweep.test_error, sweep.adversarial_distance
    angle = sweep.angle.rad2deg()
    largest = distance[:, -1] >= distance.amax(1) - ROUNDING
    least = train[:, 0] <= train.amin(1)
    inside = (test.amin(1) < test[:, 0]) & (test.amin(1) < test[:, -1])
    easy, hard = (_number(sweep, pair) for pair in shown)
    odd = _number(sweep, shifted)
    rank = rank_correlation(angle[:, 0], test.amin(1))

    def of_all(text: str, which: Tensor, why: Callable[[Sweep, int], str]) -> Claim:
        reasons = "; ".join(why(sweep, number) for number in (~which).nonzero().flatten().tolist())
        return Claim(f"{text}, for every pair", bool(which.all()), f"{int(which.sum())} of {len(which)} pairs", reasons)

    return [
        of_all("d_adv is maximal at the largest λ", largest, _why_not_largest),
        of_all("the training error is minimal at the smallest λ", least, _why_not_least),
        of_all("the test error is less at some λ between than at both ends", inside, _why_not_inside),
        Claim(
            "the test error, averaged over the pairs, is least at a λ between",
            0 < int(test.mean(0).argmin()) < len(sweep.lambdas) - 1,
            f"{_percent(test.mean(0).min())} at λ = {float(sweep.lambdas[test.mean(0).argmin()]):.3g}, at the ends "
            f"{_percent(test[:, 0].mean())} and {_percent(test[:, -1].mean())}",
        ),
        Claim(
            "at the largest λ the boundary is parallel to that of the nearest-centroid classifier: θ < 1° for every pair",
            bool((angle[:, -1] < 1).all()),
            f"at most {float(angle[:, -1].max()):.2g}°",
        ),
        Claim(
            f"at the smallest λ {shown[1][0]} / {shown[1][1]} tilts more than {shown[0][0]} / {shown[0][1]}",
            bool(angle[hard, 0] > angle[easy, 0]),
            f"{float(angle[hard, 0]):.1f}° and {float(angle[easy, 0]):.1f}°",
        ),
        Claim(
            "the harder two classes are to separate, the more the boundary tilts",
            rank > 0.5,
            f"rank correlation of θ at the smallest λ and the least test error: {rank:.2f}",
        ),
        Claim(
            f"note 5: at the largest λ the bias is poorly adjusted; {shifted[0]} / {shifted[1]} has far higher errors than its "
            "nearest-centroid classifier (more than twice)",
            bool((torch.stack([train[odd, -1], test[odd, -1]]) > 2 * centroid[odd]).all()),
            f"training {_percent(train[odd, -1])} and {_percent(centroid[odd, 0])}, "
            f"test {_percent(test[odd, -1])} and {_percent(centroid[odd, 1])}",
        ),
    ]


def _why_not_largest(sweep: Sweep, number: int) -> str:
    distance, low = sweep.adversarial_distance[number], float(sweep.angle[number].rad2deg().min())
    best = int(distance.argmax())
    return (
        f"{_name(sweep, number)} has {float(distance[best]):.4f} at λ = {float(sweep.lambdas[best]):.3g} and "
        f"{float(distance[-1]):.4f} at the largest, where θ = {float(sweep.angle[number, -1].rad2deg()):.2g}° (least: {low:.2g}°)"
    )


def _why_not_least(sweep: Sweep, number: int) -> str:
    wrong, far = sweep.train_error[number] * 2 * int(sweep.images[number]), sweep.error_distance[number]
    best = int(wrong.argmin())
    also = "is least there all the same" if float(far[0]) <= float(far.min()) else "is not least there either"
    return (
        f"{_name(sweep, number)} gets {float(wrong[0]):.0f} of {2 * int(sweep.images[number]):,} wrong there and "
        f"{float(wrong[best]):.0f} at λ = {float(sweep.lambdas[best]):.3g}; d_err, which little regularisation minimises (the "
        f"paper's note 3: that is not quite the error), {also}: {float(far[0]):.3g} against {float(far[best]):.3g}"
    )


def _why_not_inside(sweep: Sweep, number: int) -> str:
    test, train = 100 * sweep.test_error[number], 100 * sweep.train_error[number]
    end = 0 if float(test[0]) <= float(test[-1]) else -1
    others = int(sweep.test_error.amin(1).lt(sweep.test_error[number].amin()).sum())
    return (
        f"{_name(sweep, number)} has its least test error, {float(test[end]):.3f} %, at the end λ = "
        f"{float(sweep.lambdas[end]):.3g} already, with a training error of {float(train[end]):.3f} % and θ = "
        f"{float(sweep.angle[number, end].rad2deg()):.1f}° there (mean of all pairs "
        f"{float(sweep.angle[:, end].rad2deg().mean()):.1f}°): {others} of {len(sweep.pairs)} pairs have a lower least test error"
    )


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's, ties counting with their mean ranks."""

    def ranks(values: Tensor) -> Tensor:
        below = (values.unsqueeze(0) < values.unsqueeze(1)).sum(1)
        equal = (values.unsqueeze(0) == values.unsqueeze(1)).sum(1)
        return below + (equal - 1) / 2

    return float(torch.corrcoef(torch.stack([ranks(one), ranks(other)]).double())[0, 1])


def section(sweep: Sweep, centroid: Tensor, shown: Sequence[Pair], shifted: Pair, figures: Mapping[str, str]) -> str:
    """One loss: claims, tables and figures (captions by file)."""
    pictures = "\n\n".join(f"![{caption}]({name})\n\n{caption}." for name, caption in figures.items())
    return f"""## {NAMES[sweep.loss]}

Largest relative duality gap of all {sweep.gap.numel()} solutions: {float(sweep.gap.max()):.1e}.

{claims(orderings(sweep, centroid, shown, shifted))}
{_means(sweep)}
{_pairs(sweep)}
{pictures}
"""


def _means(sweep: Sweep) -> str:
    head = ["λ, means over pairs", "‖w‖", "θ (°)", "d_adv", "d_err", "train error (%)", "test error (%)"]
    count = len(sweep.lambdas)
    rows = [
        [
            f"{float(sweep.lambdas[k]):.3g}",
            f"{float(sweep.norm[:, k].mean()):.3g}",
            f"{float(sweep.angle[:, k].rad2deg().mean()):.1f}",
            f"{float(sweep.adversarial_distance[:, k].mean()):.3f}",
            f"{float(sweep.error_distance[:, k].mean()):.2g}",
            f"{100 * float(sweep.train_error[:, k].mean()):.2f}",
            f"{100 * float(sweep.test_error[:, k].mean()):.2f}",
        ]
        for k in range(0, count, max(1, count // 16))
    ]
    return table(head, rows)


def _pairs(sweep: Sweep) -> str:
    head = ["pair", "θ (°), smallest λ", "d_adv", "‖w‖", "train error (%)", "test error (%)"]
    head += ["least test error (%)", "at λ", "θ (°) there", "d_adv there", "d_adv, largest λ"]
    rows = []
    for p, (low, high) in enumerate(sweep.pairs.tolist()):
        best = int(sweep.test_error[p].argmin())
        rows.append(
            [
                f"{low} / {high}",
                f"{float(sweep.angle[p, 0].rad2deg()):.1f}",
                f"{float(sweep.adversarial_distance[p, 0]):.3f}",
                f"{float(sweep.norm[p, 0]):.3g}",
                f"{100 * float(sweep.train_error[p, 0]):.2f}",
                f"{100 * float(sweep.test_error[p, 0]):.2f}",
                f"{100 * float(sweep.test_error[p, best]):.2f}",
                f"{float(sweep.lambdas[best]):.3g}",
                f"{float(sweep.angle[p, best].rad2deg()):.1f}",
                f"{float(sweep.adversarial_distance[p, best]):.3f}",
                f"{float(sweep.adversarial_distance[p, -1]):.3f}",
            ]
        )
    return table(head, rows)


def markdown(data: str, images: int, lambdas: Sequence[float], sections: Sequence[str]) -> str:
    """The whole document."""
    return f"""# Tilting of linear classifiers: seed 001, "Example: SVM on MNIST"

The paper's results are figures; it is its statements that stand beside our numbers. Data: {data}, pixels in [0, 1], the first
{images} training images of each class (or as many as both have), all test images of the two classes. Objective:
λ/2 ‖w‖² + Σ f(y (w·x + b)), summed over the training images, b not regularised; {len(lambdas)} values of λ from
{lambdas[0]:.3g} to {lambdas[-1]:.3g}. The paper does not say how its λ is scaled: compare by θ and ‖w‖. Distances are in l2.

{chr(10).join(sections)}"""


def plain(sweep: Sweep, centroid: Tensor) -> dict[str, Any]:
    """The numbers for JSON, without the weights."""
    names = ("norm", "angle", "adversarial_distance", "error_distance", "train_error", "test_error", "gap")
    measures = {name: getattr(sweep, name).tolist() for name in names}
    return {
        "pairs": sweep.pairs.tolist(),
        "images": sweep.images.tolist(),
        "lambdas": sweep.lambdas.tolist(),
        "nearest_centroid_errors": centroid.tolist(),
        **measures,
    }


def _number(sweep: Sweep, pair: Pair) -> int:
    return sweep.pairs.tolist().index(list(pair))


def _name(sweep: Sweep, number: int) -> str:
    low, high = sweep.pairs[number].tolist()
    return f"{low} / {high}"


def _percent(value: Tensor) -> str:
    return f"{100 * float(value):.2f} %"
