"""Primal-dual gradient descent: a minimum-norm attack for l2."""

from __future__ import annotations

from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import Callback, Model, check_call, check_starts
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._primal_dual import primal_dual
from pyrobust.attacks._runs import CLOSING_L2, Schedule
from pyrobust.attacks._tuning import Tuning, choose_schedule
from pyrobust.ops import PrimalDualState, StepOptions

_SCHEDULE = Schedule(
    step_size=(0.3, 0.0015),
    ratio=0.01,
    normalize=2.0,
    refine_step_size=(0.2, 0.0005),
    refine_ratio=0.1,
    settle=0.1,
    closing=CLOSING_L2,
    shortest=20,
)


@judged_in_float32
def pdgd(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    steps: int = 500,
    step_size: float | None = None,
    restarts: int = 1,
    preset: str | None = None,
    tuning: Tuning | None = None,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    starts: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """min ‖r‖₂ such that inputs + r is misclassified, as a game: r descends λ₁ ‖r‖₂ + λ₂ hinge, (λ₁, λ₂) follow whether
    it is.

    Starts and runs are those of :func:`pyrobust.attacks.pdpgd`, with the half of the last one, after it has closed in, spent
    on the game again.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l2" (or 2).
        steps: in all, over the runs from all starts (few steps: from the input alone); with ``restarts``, for each.
        step_size: the first one, in units of the width of ``bounds`` (with ``starts``: of the distance of the nearest point so
            far); it falls exponentially, and those of all other runs change in proportion. Default 0.3.
        restarts: each has its own noise; from the second on runs start within a quarter of the width of ``bounds``
            around the input rather than at it, at random.
        preset: "thesis": algorithm 2 with the parameters of §5.4: one run, Adam with its usual moments on the plain
            hinge, step size falling linearly to a hundredth, λ₁ / λ₂ starting at 0.01, its moving average, dual
            learning rate 0.1.
        tuning: for preset "thesis" without step_size: (inputs, labels) held back from the evaluation, on which the step
            size is chosen from 0.01, 0.05, 0.1, 0.5 and 1.
        targeted: find the nearest point of the target class.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random starts, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        starts: like ``inputs``, inside ``bounds``: points to refine, another attack's results for one. All steps then go
            on from there; each restart refines the best point again.
        callback: called as callback(step, PrimalDualState) after each step; ``state.best`` and ``state.best_distance``
            are the results so far. The attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the nearest adversarial point found; the input itself where none was, or where
        it is misclassified already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: restarts · steps + 2 forward and at most restarts · steps backward passes.
    Source: seed 003, §5.2, algorithm 2 and eq. 5.3 (corrected).
    """
    norm_name(norm, ("l2",))
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, restarts, sample_ids, seed)
    starts = check_starts(starts, inputs, bounds)
    tuned = {"norm": "l2", "steps": steps, "targeted": targeted, "bounds": bounds}
    schedule = choose_schedule(pdgd, model, _SCHEDULE, step_size, preset, tuning, starts is not None, **tuned)

    def step(state: PrimalDualState, grad: Tensor, margin: Tensor, options: StepOptions) -> None:
        ops.pdgd_step_(state, inputs, grad, margin, options)

    return primal_dual(
        model, inputs, labels, step, lambda r: ops.lp_norm(r, 2), schedule, steps=steps, restarts=restarts, targeted=targeted,
        bounds=bounds, grouping="value", seed=seed, sample_ids=sample_ids, starts=starts,
        callback=callback, eval_mode=eval_mode,
    )  # fmt: skip


pdgd.norms = ("l2",)  # type: ignore[attr-defined]  # read by the evaluation before it calls
