"""SparseFool: DeepFool shows where the boundary is, and a linear program moves the fewest values across it."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._boundary import Walk, step_to_boundary, walk_to_boundary
from pyrobust.attacks._common import Callback, Model, check_call, check_number, rows_like, undisturbed
from pyrobust.attacks._hyperplane import to_hyperplane
from pyrobust.attacks._jacobian import Boundary
from pyrobust.attacks._judge import judged_in_float32


@judged_in_float32
def sparsefool(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l1",
    steps: int = 100,
    control: float = 1.0,
    candidates: int = 9,
    overshoot: float = 0.02,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """x ← argmin ‖u − x‖₁ such that ⟨w, u − x⟩ ≥ control · ⟨w, r⟩ inside ``bounds``, until inputs + (1 + overshoot)
    (x − inputs) is misclassified: r is DeepFool's l2 perturbation of x, w = ∇(z_j − z_y) where it ends, in class j.

    The linear program is solved exactly: the steepest values go to the bounds, the last one as far as it must. DeepFool
    sets out from the point that was just judged, so that judging costs no pass of its own.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,).
        norm: "l1" or "l0" (or 1, 0): of the distances that the callback sees; the steps are the same.
        steps: at most, DeepFool's and linear programs together.
        control: λ ≥ 1 of the paper: how far behind the boundary the program aims; more takes fewer steps and moves more values.
            1 in the seed, 3 in the authors' code.
        candidates: how many classes besides the label are considered: the most likely ones at the inputs.
        overshoot: >= 0, ε of the paper and η of its DeepFool.
        bounds: (low, high) of the inputs. The 1e-4 that is added to DeepFool's steps, so that none stalls, is in units of their
            width.
        seed, sample_ids: taken by every attack; nothing here is random.
        callback: called as callback(step, SearchState); the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the first sparse adversarial point; the input itself where none was found, or where
        it is misclassified already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: at most steps + 2 forward passes, on the CPU steps more, and steps · min(candidates, K − 1) gradients a sample. Samples
    that are done are dropped every five steps, which synchronises with the device. On the CPU, where in a step enough samples
    have a considered class ahead of the label, those take one gradient alone, and the others another forward pass.
    Source: Modas et al. 2019, algorithms 1 and 2; seed 003, §2.4.1.4 and §5.4.
    """
    name = norm_name(norm, ("l0", "l1"))
    inputs, bounds, _ = check_call(inputs, labels, bounds, steps, 1, sample_ids, seed)
    overshoot = check_number("overshoot", overshoot, 0)
    control = check_number("control", control, 1)

    def move(walk: Walk, at: Boundary, adversarial: Tensor) -> None:
        x, r = walk.memory  # the sparse point, and DeepFool's perturbation of it
        wide = walk.inputs.to(x.dtype)
        r = torch.where(rows_like(walk.final, x), walk.adv - x, r)  # a sparse point that failed: set out from there
        step = (x + r).add_(step_to_boundary(at, "l2", bounds)).clamp_(*bounds) - x
        gap = (-control * (at.normal * r).flatten(1).sum(1).clamp(min=0)).masked_fill_(~adversarial, 0)  # 0: no shift
        # Which have crossed is free to look at on the CPU alone.
        rows = adversarial.nonzero().squeeze(1) if x.device.type == "cpu" else slice(None)
        part, normal = x[rows], at.normal[rows]
        shift = to_hyperplane(part.flatten(1), normal.flatten(1), gap[rows], "l1", bounds)
        x[rows] = part + shift.view_as(part)
        crossed = rows_like(adversarial, x)
        walk.memory = (x, torch.where(crossed, 0, step))
        sparse = torch.add(wide, x - wide, alpha=1 + overshoot)
        dense = torch.add(x, step, alpha=1 + overshoot)
        walk.adv = torch.where(crossed, sparse, dense).to(walk.adv.dtype).clamp_(*bounds)
        walk.final = adversarial

    with undisturbed(model, eval_mode):
        return walk_to_boundary(
            model, inputs, labels, move, lambda x: (x.clone(), torch.zeros_like(x)), norm=name, slope_norm="l2", final=False,
            keep_all=False, candidates=candidates, steps=steps, callback=callback,
        ).adv  # fmt: skip


sparsefool.norms = ("l0", "l1")  # type: ignore[attr-defined]  # read by the evaluation before it calls
