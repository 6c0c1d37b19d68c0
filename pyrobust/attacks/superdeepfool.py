"""SuperDeepFool: DeepFool, then back along the boundary's normal until the perturbation is orthogonal to the boundary."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._boundary import Walk, step_to_boundary, walk_to_boundary
from pyrobust.attacks._common import Callback, Model, check_call, check_number, rows_like, undisturbed
from pyrobust.attacks._jacobian import Boundary
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._polish import bisect_to_boundary


@judged_in_float32
def superdeepfool(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    steps: int = 30,
    candidates: int = 9,
    overshoot: float = 0.02,
    search_steps: int = 10,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """SDF(∞, 1): DeepFool steps until x̃ is misclassified, then x ← inputs + ⟨x̃ − inputs, w⟩ w / ‖w‖², w = ∇(z_j − z_y) at
    x̃ for the predicted class j; both again until such an x is misclassified itself.

    Each sample takes the kind of step that it needs, so none waits for another.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,).
        norm: "l2" (or 2).
        steps: at most, of both kinds together; more than 30 hardly shorten the perturbation any more.
        candidates: how many classes besides the label are considered: the most likely ones at the inputs.
        overshoot: >= 0, of each DeepFool step.
        search_steps: >= 0: bisections along the perturbation found.
        bounds: (low, high) of the inputs. Every point is clipped to them. The 1e-4 that is added to DeepFool's steps, so that
            none stalls, is in units of their width.
        seed, sample_ids: taken by every attack; nothing here is random.
        callback: called as callback(step, SearchState); the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the nearest adversarial point found; the input itself where none was, or where it
        is misclassified already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: at most steps + search_steps + 2 forward passes, on the CPU steps more, and steps · min(candidates, K − 1) gradients a
    sample. Samples that are done are dropped every five steps, which synchronises with the device. On the CPU, where in a step
    enough samples have a considered class ahead of the label, those take one gradient alone, and the others another forward pass.
    Source: Abdollahpour et al. 2024, algorithm 2. The authors' code adds a second projection to the first one; here each
    replaces the one before, as in the paper.
    """
    norm_name(norm, ("l2",))
    inputs, bounds, _ = check_call(inputs, labels, bounds, steps, 1, sample_ids, seed)
    overshoot = check_number("overshoot", overshoot, 0)
    if isinstance(search_steps, bool) or not isinstance(search_steps, int) or search_steps < 0:
        raise ValueError(f"search_steps: expected an integer >= 0, got {search_steps!r}")

    def move(walk: Walk, at: Boundary, adversarial: Tensor) -> None:
        (adv,), x = walk.memory, walk.inputs.to(at.normal.dtype)
        forward = adv + (1 + overshoot) * step_to_boundary(at, "l2", bounds)
        along = ((adv - x) * at.normal).flatten(1).sum(1) / at.slope.square().clamp(min=torch.finfo(x.dtype).tiny)
        back = torch.addcmul(x, at.normal, rows_like(along, x))
        adv = torch.where(rows_like(adversarial, x), back, forward).clamp_(*bounds)
        walk.adv, walk.memory = adv.to(walk.adv.dtype), (adv,)  # a step may be too short for 16 bits
        walk.final = adversarial

    with undisturbed(model, eval_mode):
        nearest = walk_to_boundary(
            model, inputs, labels, move, lambda x: (x,), norm="l2", slope_norm="l2", final=False, keep_all=True,
            candidates=candidates, steps=steps, callback=callback,
        )  # fmt: skip
        bisect_to_boundary(model, inputs, labels, nearest, "l2", search_steps)
    return nearest.adv


superdeepfool.norms = ("l2",)  # type: ignore[attr-defined]  # read by the evaluation before it calls
