"""Primal-dual gradient descent: a minimum-norm attack for l2."""

from __future__ import annotations

from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import Callback, Model, check_call, check_starts
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
    on the game again. Arguments, result, errors and cost are that attack's too, for the l2 norm alone.

    Source: seed 003, §5.2, algorithm 2 and eq. 5.3 (corrected).
    """
    norm_name(norm, ("l2",))
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, restarts, sample_ids)
    check_starts(starts, inputs, bounds)
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
