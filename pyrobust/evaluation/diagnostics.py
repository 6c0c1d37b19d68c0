"""Signs that the numbers of a report may not mean what they seem to: gradient masking above all.

Source: Carlini et al., On Evaluating Adversarial Robustness, 2019, section 5; Athalye et al., 2018, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from pyrobust._checks import Bounds
from pyrobust.evaluation.checks import predict
from pyrobust.evaluation.subject import Model

# Logits of one sample may differ by rounding between batches; ten thousandths of the largest are far beyond that.
RELATIVE_NOISE = 1e-4


def model_warnings(model: Model, inputs: Tensor) -> list[str]:
    """Look at the model itself, on one batch of clean inputs (N, …): mode, randomness, batch dependence, logits."""
    found = []
    training = isinstance(model, nn.Module) and any(m.training for m in model.modules())
    if training:
        found.append("The model is in training mode: call model.eval() first, unless this is intended.")
    with torch.random.fork_rng(devices=[inputs.device] if inputs.device.type == "cuda" else []):
        logits, _ = predict(model, inputs)
        again, _ = predict(model, inputs)
        turned, _ = predict(model, inputs.flip(0))
    if _differ(logits, again):
        found.append(
            "The model is random: two predictions of the same batch differ. Attacks on it need expectation over its "
            "randomness, and one prediction does not tell whether a point is adversarial."
        )
    elif len(inputs) > 1 and _differ(logits, turned.flip(0)):
        found.append("The model is batch-dependent: its logits of a sample change with the order of the batch.")
    if not bool(logits.isfinite().all()):
        found.append("The model returns NaN or infinite logits for clean inputs; these count as misclassified.")
    elif bool(((logits >= 0) & (logits <= 1)).all()) and bool(((logits.sum(dim=1) - 1).abs() < 1e-3).all()):
        found.append(
            "The model's outputs look like probabilities (each row lies in [0, 1] and sums to 1): remove the final "
            "softmax, which flattens the gradients that attacks follow."
        )
    return found


def gradient_warnings(clean: pa.Table) -> list[str]:
    """Warn of samples whose input gradient is all zero, or not finite, before any attack."""
    found = []
    for column, of in (("no_loss_gradient", "cross-entropy"), ("no_margin_gradient", "logit margin")):
        share = float(np.mean(clean[column].to_numpy()))
        if share > 0:
            found.append(
                f"The input gradient of the {of} is zero (or not finite) on {_percent(share)} of the samples: attacks "
                "that follow it cannot start there, and their failure is no sign of robustness."
            )
    return found


def attack_warnings(title: str, rows: pa.Table, failed: int, correct: int, unlimited: bool) -> list[str]:
    """Warn of what the verification of one attack's points in one norm turned up.

    Args:
        title: norm and attack.
        rows: its results, all samples and all budgets.
        failed: initially correct samples that it never broke.
        correct: initially correct samples.
        unlimited: whether it was free to perturb as much as the box allows.
    """
    found = []
    if failed and unlimited:
        found.append(
            f"{title} failed on {failed} of {correct} samples although nothing limited the perturbation: other "
            "classes can always be reached, so this points to masked gradients or too few steps."
        )
    for column, told in (
        ("finite", "were not finite, or made the model return NaN or infinite logits"),
        ("in_bounds", "lay outside the bounds"),
        ("within_budget", "were over the budget"),
    ):
        count = pc.sum(pc.invert(rows[column])).as_py()
        if count:
            found.append(f"{title}: {count} of {len(rows)} returned points {told}, and were counted as failures.")
    return found


def memory_warning(rows: pa.Table, batch_size: int) -> list[str]:
    """Say so where the batch size had to be lowered, since that may change the last bits of results."""
    smallest = pc.min(rows["batch_size"]).as_py()
    if smallest == batch_size:
        return []
    count = pc.sum(pc.less(rows["batch_size"], batch_size)).as_py()
    return [
        f"Memory ran out: {count} results were computed in batches of as few as {smallest} samples instead of "
        f"{batch_size}, which may change their last bits."
    ]


def covers_box(norm: str, eps: float, shape: Sequence[int], bounds: Bounds) -> bool:
    """Whether the ball of radius ``eps`` around any point of the box holds the whole box."""
    values, side = math.prod(shape), bounds[1] - bounds[0]
    positions = values // shape[0] if len(shape) == 3 else values
    radius = {"l0": positions, "l1": values * side, "l2": math.sqrt(values) * side, "linf": side}[norm]
    return eps >= radius


def _differ(first: Tensor, second: Tensor) -> bool:
    scale = float(first.nan_to_num(0, 0, 0).abs().max())
    return not torch.allclose(first, second, rtol=0, atol=RELATIVE_NOISE * scale, equal_nan=True)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
