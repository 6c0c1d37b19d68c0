"""FAB: project onto the linearised class boundary inside the box, with a bias towards the input."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._boundary import DUAL, EXPONENT, likely_classes
from pyrobust.attacks._common import Callback, Model, check_call, check_number, clean_logits, rows_like, undisturbed
from pyrobust.attacks._hyperplane import to_hyperplane
from pyrobust.attacks._jacobian import Boundary, nearest_boundary
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._polish import bisect_to_boundary
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial

_START_RADII = {"l1": 5.0, "l2": 1.0, "linf": 0.3}  # of the authors' code, for bounds (0, 1)


@judged_in_float32
def fab(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "linf",
    steps: int = 100,
    candidates: int = 9,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    restarts: int | None = None,
    class_by_class: bool = False,
    start_radius: float | None = None,
    search_steps: int = 3,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """x ← box((1 − α)(x + η d(x)) + α (inputs + η d(inputs))), d the exact projection onto the nearest linearised boundary
    inside the box; where the new x is misclassified, it is a candidate and x ← (1 − β) inputs + β x.

    α = min(alpha_max, ‖d(x)‖ / (‖d(x)‖ + ‖d(inputs)‖)).

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,).
        norm: "linf", "l2" or "l1" (or inf, 2, 1).
        steps: of each run.
        candidates: how many classes besides the label are considered: the most likely ones at the inputs.
        alpha_max: in [0, 1]: the largest pull towards the projection of the input.
        eta: >= 1: how far beyond the boundary each projection goes.
        beta: in (0, 1]: how far from the input the search goes on after a success.
        restarts: runs. Those after the first (with ``class_by_class`` after the first at each class) start at random.
            Default 1, with ``class_by_class`` one a class.
        class_by_class: FAB-T: each run aims at a single class, the most likely one first.
        start_radius: of the random starts: uniform in the ball of half of this, or half the best distance if that is less;
            in units of the width of ``bounds``. Default 0.3, 1 and 5 for linf, l2 and l1.
        search_steps: >= 0: bisections along the perturbation found, where the paper interpolates thrice.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random starts, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(step, SearchState), step within the run; the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the nearest adversarial point found; the input itself where none was, or where it
        is misclassified already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: 2 · restarts · steps + search_steps + 1 forward passes, and restarts · steps · min(candidates, K − 1) gradients a
    sample, with ``class_by_class`` restarts · steps.
    Source: Croce and Hein 2020 (FAB), algorithm 1; FAB-T: Croce and Hein 2020 (AutoAttack), §3; seed 003, §2.4.1.4.
    """
    name = norm_name(norm, tuple(_START_RADII))
    runs = 1 if restarts is None else restarts
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, runs, sample_ids, seed)
    check_number("alpha_max", alpha_max, 0, 1)
    check_number("eta", eta, 1)
    check_number("beta", beta, 0, 1, above=True)
    if isinstance(search_steps, bool) or not isinstance(search_steps, int) or search_steps < 0:
        raise ValueError(f"search_steps: expected an integer >= 0, got {search_steps!r}")
    start_radius = _START_RADII[name] if start_radius is None else check_number("start_radius", start_radius, 0)
    start_radius *= bounds[1] - bounds[0]

    with undisturbed(model, eval_mode):
        clean = clean_logits(model, inputs, labels)
        nearest = Nearest(inputs, is_adversarial(clean, labels, False))
        classes = likely_classes(clean, labels, candidates)
        rounds = classes.shape[1] if class_by_class else 1  # runs before the first that starts at random
        for run in range(rounds if restarts is None else restarts):
            rivals = classes[:, run % rounds].unsqueeze(1) if class_by_class else classes
            adv = inputs.clone()
            if run >= rounds:
                radius = nearest.distance.clamp(max=start_radius) / 2
                adv += ops.sample_lp_ball(inputs, EXPONENT[name], radius, seed=seed, sample_ids=sample_ids, step=run)
                adv.clamp_(*bounds)
            for step in range(steps):
                at = nearest_boundary(model, adv, labels, rivals, DUAL[name])
                adv = _step(adv, inputs, at, name, alpha_max, eta, bounds)
                with torch.no_grad():
                    adversarial = is_adversarial(model(adv), labels, False)
                nearest.offer(adv, ops.lp_norm(adv - inputs, name), adversarial)
                state = SearchState(adv, adversarial, nearest.adv, nearest.distance)
                if callback is not None and callback(step, state):
                    return nearest.adv
                share = torch.where(adversarial, beta, 1.0).to(adv.dtype)
                adv = torch.lerp(inputs, adv, rows_like(share, adv))
        bisect_to_boundary(model, inputs, labels, nearest, name, search_steps)
    return nearest.adv


def _step(adv: Tensor, inputs: Tensor, at: Boundary, norm: str, alpha_max: float, eta: float, bounds: Bounds) -> Tensor:
    """The projections of the point and of the input, in one call, and the biased mean of both."""
    normal = at.normal.flatten(1)
    both = torch.stack([adv, inputs]).flatten(2).to(normal.dtype)
    gap = torch.stack([at.gap, at.gap + ((both[1] - both[0]) * normal).sum(1)])
    shift = to_hyperplane(both, normal, gap, norm, bounds)
    length = ops.lp_norm(shift.flatten(0, 1), norm).view_as(gap).clamp_(min=1e-8)
    alpha = (length[0] / length.sum(0)).clamp_(max=alpha_max).unsqueeze(1)
    both.add_(shift, alpha=eta)
    return torch.lerp(both[0], both[1], alpha).view_as(adv).to(adv.dtype).clamp_(*bounds)


fab.norms = ("l1", "l2", "linf")  # type: ignore[attr-defined]  # read by the evaluation before it calls
