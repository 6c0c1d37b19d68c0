"""Support vector machines and logistic regression over the whole range of regularisation, for pairs of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrobust._checks import check_inputs, check_labels
from pyrobust.analysis._duality import NotSolvedError, signed_rows
from pyrobust.analysis._hinge import HingePath
from pyrobust.analysis._softplus import SoftplusPath
from pyrobust.analysis.geometry import ANYWHERE, Loss
from pyrobust.analysis.page import Table
from pyrobust.analysis.sweep_view import SweepView
from pyrobust.analysis.tilting import angles_between, nearest_centroid
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import check_count, check_number, check_positive

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAMBDAS = tuple(10 ** (k / 10) for k in range(-10, 71))
_PATHS: dict[str, type[HingePath | SoftplusPath]] = {"hinge": HingePath, "softplus": SoftplusPath}


@dataclass(frozen=True)
class Sweep:
    """Linear classifiers of P pairs of classes at L values of λ, and what is measured of them; in float64.

    Distances are those of the training samples, y = −1 for the first class of a pair and +1 for the second.

    Attributes:
        loss: "hinge" or "softplus".
        pairs: int64 (P, 2), the classes.
        images: int64 (P,), training samples of each of the two.
        lambdas: (L,), increasing.
        weight, bias: w (P, L, D) and b (P, L).
        norm: ‖w‖, (P, L), as all that follows.
        angle: the tilting angle θ in radians.
        adversarial_distance: d_adv, mean of y d(x).
        error_distance: d_err, mean of max(−y d(x), 0).
        train_error, test_error: shares of samples with y d(x) ≤ 0.
        gap: relative duality gap (P − D) / P that was proved.
    """

    loss: str
    pairs: Tensor
    images: Tensor
    lambdas: Tensor
    weight: Tensor
    bias: Tensor
    norm: Tensor
    angle: Tensor
    adversarial_distance: Tensor
    error_distance: Tensor
    train_error: Tensor
    test_error: Tensor
    gap: Tensor

    def table(self) -> Table:
        """A row a pair and λ; angles in degrees."""
        columns = ("classes", "λ", "‖w‖", "θ (°)", "d_adv", "d_err", "train error (%)", "test error (%)", "gap")
        values = (self.norm, self.angle.rad2deg(), self.adversarial_distance, self.error_distance,
                  100 * self.train_error, 100 * self.test_error, self.gap)  # fmt: skip
        formats = (".4g", ".2f", ".4f", ".5f", ".2f", ".2f", ".1e")
        rows = [
            (f"{low} / {high}", f"{lam:.3g}", *(f"{v[p, k]:{form}}" for v, form in zip(values, formats, strict=True)))
            for p, (low, high) in enumerate(self.pairs.tolist())
            for k, lam in enumerate(self.lambdas.tolist())
        ]
        return Table(columns, rows)

    def view(self, number: int, inputs: Tensor, labels: Tensor) -> SweepView:
        """The classifiers of pair ``number`` with its training samples, given all ``inputs`` and ``labels`` again."""
        low, high = self.pairs[number].tolist()
        samples, kinds = _pair(inputs, labels, low, high, int(self.images[number]))
        return SweepView(self.loss, samples.cpu(), kinds.cpu(), self.lambdas, self.weight[number], self.bias[number])

    def plot(self) -> Figure:
        """Errors, d_adv, θ and ‖w‖ over λ: a thin line a pair, and their mean."""
        from pyrobust.analysis._draw_sweep import draw_sweep

        return draw_sweep(self)


def regularisation_sweep(
    inputs: Tensor,
    labels: Tensor,
    test_inputs: Tensor,
    test_labels: Tensor,
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    loss: Loss = "hinge",
    images: int = 3000,
    lambdas: Sequence[float] = LAMBDAS,
    tolerance: float = 1e-4,
    work: Work | None = None,
) -> Sweep:
    """min over w and b of λ/2 ‖w‖² + Σᵢ f(yᵢ (w·xᵢ + b)), f the hinge loss or softplus, from large λ to small.

    The loss is summed, not averaged, so that λ is scikit-learn's 1/C. On MNIST in [0, 1], with 3,000 images a class, the
    default range then goes from overfitted to the nearest-centroid limit, where every sample is inside the hinge's margin
    and w = (n/2λ) (j − i). In that limit the hinge loss leaves b undetermined within an interval; its middle is taken.

    Each w is found to within √tolerance · ‖w‖ of the optimum, which a duality gap proves (see
    :mod:`pyrobust.analysis._duality`). A pair's result does not depend on the others.

    Args:
        inputs: (N, …), all classes.
        labels: int64 (N,).
        test_inputs, test_labels: for the test error, likewise.
        pairs: of classes that differ; default: all.
        loss: "hinge" (support vector machine) or "softplus" (logistic regression).
        images: training samples a class: the first ones, as many of one class as of the other.
        lambdas: λ > 0, increasing.
        tolerance: largest duality gap, relative to λ/2 ‖w‖², in [1e-9, 1).
        work: where progress goes, and finished pairs; default nowhere.

    Returns:
        Sweep, on the CPU.

    Raises:
        TypeError, ValueError: naming the argument.
        NotSolvedError: a gap did not become as small as asked.

    Cost: for each λ about 3 to 20 products with the samples and, for the hinge loss, as many factorisations of D × D
        matrices. MNIST, 3,000 images a class, 81 λ, one core: 5 to 11 s a pair (hinge), 4 s (softplus).
    Source: seed 001, "Example: SVM on MNIST", note 6 (λ's scale is not given there).
    """
    for name, (x, y) in {"inputs": (inputs, labels), "test_inputs": (test_inputs, test_labels)}.items():
        check_inputs(x, ANYWHERE)
        check_labels(y, x)
        if x.shape[1:] != inputs.shape[1:] or x.device != inputs.device:
            raise ValueError(f"{name}: expected {tuple(inputs.shape[1:])} a sample, as inputs, on the same device")
    if loss not in _PATHS:
        raise ValueError(f"loss: expected one of {', '.join(_PATHS)}, got {loss!r}")
    check_count(images=images)
    check_number("tolerance", tolerance, 1e-9, 1, below=True)
    values = [float(value) for value in lambdas]
    for value in values:
        check_positive(lambdas=value)
    if not values or any(b <= a for a, b in pairwise(values)):
        raise ValueError(f"lambdas: expected at least one value, increasing, got {lambdas!r}")
    present = set(labels.unique().tolist()) & set(test_labels.unique().tolist())
    chosen = list(combinations(sorted(present), 2)) if pairs is None else [(int(a), int(b)) for a, b in pairs]
    if not chosen or any(a == b or not {a, b} <= present for a, b in chosen):
        raise ValueError(f"pairs: expected different classes among {sorted(present)}, got {chosen}")

    def compute(pair: tuple[int, int]) -> dict[str, Tensor]:
        x, kinds = _pair(inputs, labels, *pair, images)
        tested = _pair(test_inputs, test_labels, *pair, None)
        try:
            found = _solve(x, kinds, *tested, _PATHS[loss], values, tolerance)
        except NotSolvedError as error:
            raise NotSolvedError(f"classes {pair[0]} and {pair[1]}: {error}") from None
        return {"pairs": torch.tensor(pair), "images": kinds.sum(), **found}

    parts = (work or Work()).map(f"{loss} sweep", chosen, compute, lambda pair: 1)
    result = joined([{key: value.unsqueeze(0) for key, value in part.items()} for part in parts])
    return Sweep(loss=loss, lambdas=torch.tensor(values, dtype=torch.float64), **result)


def _pair(inputs: Tensor, labels: Tensor, low: int, high: int, images: int | None) -> tuple[Tensor, Tensor]:
    """Samples of two classes and labels 0 and 1 for them: all, or the first ``images`` of each, but as many of each."""
    rows = [(labels == label).nonzero().squeeze(1) for label in (low, high)]
    if images is not None:
        rows = [row[: min(images, *map(len, rows))] for row in rows]
    kinds = torch.cat([torch.full_like(row, kind) for kind, row in enumerate(rows)])
    return inputs.detach()[torch.cat(rows)], kinds


def _solve(
    inputs: Tensor, labels: Tensor, test_inputs: Tensor, test_labels: Tensor,
    path: type[HingePath | SoftplusPath], lambdas: Sequence[float], tolerance: float,
) -> dict[str, Tensor]:  # fmt: skip
    """One pair: the classifiers and the measures, each (L, …)."""
    z = nearest_centroid(inputs, labels).weight
    rows = signed_rows(inputs, labels)
    used = rows.any(0)  # a value that is 0 in all samples has weight 0
    solver = path(rows[:, used].contiguous(), tolerance)
    solutions = [solver.solve(lam) for lam in reversed(lambdas)][::-1]
    points = rows.new_zeros(len(lambdas), len(used))  # (w, b)
    points[:, used] = torch.stack([torch.cat([s.weight, s.bias.reshape(1)]) for s in solutions])
    weight = points[:, :-1]
    norm = weight.norm(dim=1)
    distances = (rows @ points.T) / norm
    tested = signed_rows(test_inputs, test_labels) @ points.T
    return {
        "weight": weight,
        "bias": points[:, -1],
        "norm": norm,
        "angle": angles_between(weight, z),
        "adversarial_distance": distances.mean(0),
        "error_distance": (-distances).clamp(min=0).mean(0),
        "train_error": (distances <= 0).double().mean(0),
        "test_error": (tested <= 0).double().mean(0),
        "gap": torch.tensor([s.gap for s in solutions], dtype=torch.float64),
    }
