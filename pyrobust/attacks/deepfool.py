"""DeepFool: step to the nearest class boundary of the linearised model until the prediction changes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._boundary import DUAL, Walk, step_to_boundary, walk_to_boundary
from pyrobust.attacks._common import Callback, Model, check_call, check_number, undisturbed
from pyrobust.attacks._jacobian import Boundary
from pyrobust.attacks._judge import judged_in_float32


@judged_in_float32
def deepfool(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    steps: int = 50,
    candidates: int = 9,
    overshoot: float = 0.02,
    max_step: float | None = None,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """r ← box(r + (|g_j| / ‖w_j‖_q + 1e-4) v_j) until inputs + (1 + overshoot) r is misclassified, where g_j = z_j − z_y,
    w_j = ∇g_j, v_j maximises ⟨v, w_j⟩ over ‖v‖_p ≤ 1, 1/p + 1/q = 1, and j is the class with the least |g_j| / ‖w_j‖_q.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,).
        norm: "l2" or "linf" (or 2, inf).
        steps: at most; 50 in the paper.
        candidates: how many classes besides the label are considered: the most likely ones at the inputs.
        overshoot: >= 0.
        max_step: the longest step in the norm, > 0, in the units of the inputs; default: no limit.
        bounds: (low, high) of the inputs. The 1e-4 that keeps steps from stalling is in units of their width.
        seed, sample_ids: taken by every attack; nothing here is random.
        callback: called as callback(step, SearchState); the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the first adversarial point; the input itself where none was found, or where it
        is misclassified already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: at most steps + 2 forward passes, on the CPU steps more, and steps · min(candidates, K − 1) gradients a sample. Samples
    that are done are dropped every five steps, which synchronises with the device. On the CPU, where in a step enough samples
    have a considered class ahead of the label, those take one gradient alone, and the others another forward pass.
    Source: Moosavi-Dezfooli et al. 2016, algorithm 2 and eq. 11; seed 003, eq. 2.18 (corrected). The seed clips steps:
    §3.5 has steps=50, max_step=0.5, and §4.5 steps=500, max_step=0.1.
    """
    name = norm_name(norm, ("l2", "linf"))
    inputs, bounds, _ = check_call(inputs, labels, bounds, steps, 1, sample_ids, seed)
    overshoot = check_number("overshoot", overshoot, 0)
    longest = math.inf if max_step is None else check_number("max_step", max_step, 0, above=True)

    def move(walk: Walk, at: Boundary, adversarial: Tensor) -> None:
        (r,) = walk.memory
        r.add_(step_to_boundary(at, name, bounds, longest))
        torch.add(walk.inputs, r, out=r).clamp_(*bounds).sub_(walk.inputs)
        walk.adv = torch.add(walk.inputs, r, alpha=1 + overshoot).to(walk.adv.dtype).clamp_(*bounds)

    with undisturbed(model, eval_mode):
        return walk_to_boundary(
            model, inputs, labels, move, lambda x: (torch.zeros_like(x),), norm=name, slope_norm=DUAL[name], final=True,
            keep_all=False, candidates=candidates, steps=steps, callback=callback,
        ).adv  # fmt: skip


deepfool.norms = ("l2", "linf")  # type: ignore[attr-defined]  # read by the evaluation before it calls
