"""Auto-PGD: projected gradient ascent with momentum that halves its step and returns to its best point by itself."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._auto_steps import Climb, phases
from pyrobust.attacks._budget import EXPONENTS, Found, starts
from pyrobust.attacks._common import Callback, Model, check_call, check_number, clean_logits, undisturbed
from pyrobust.attacks._losses import Loss, make_loss


def apgd(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    steps: int = 100,
    random_start: bool = True,
    restarts: int = 1,
    loss: Loss = "ce",
    rho: float = 0.75,
    target_classes: int = 0,
    large_eps: bool = False,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """Gradient ascent within the ball whose step size each sample adapts by itself; the only free choice is ``steps``.

    linf, l2: z = Π(xₖ + η v), xₖ₊₁ = Π(xₖ + ¾ (z − xₖ) + ¼ (xₖ − xₖ₋₁)), v the dual direction of the gradient, η = 2 eps
    at first. At checkpoints after 22 % of the steps, then at intervals that shrink by 3 % of them to 6 %, η is halved,
    and the point goes back to the best one seen, where the loss rose in at most a share ``rho`` of the steps since the
    last checkpoint, or where neither η nor the best loss has changed since then.

    l1: xₖ₊₁ = Π(xₖ + η e / ‖e‖₁), e the signs of the k largest gradients; η = eps and k = 20 % of the values at first.
    Every 4 % of the steps k becomes two thirds of the number of values that the best point changes; where that number
    fell by more than 5 %, η returns to eps and the point to the best one, else η falls by a third, to eps / 10 at least.

    Π projects onto ball ∩ bounds (exactly for linf and l1, for l2 onto one after the other).

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        eps: radius of the ball, >= 0, in the units of the inputs.
        norm: "linf", "l2" or "l1" (or inf, 2, 1).
        steps: of each run.
        random_start: start uniformly in the ball, else at the input.
        restarts: runs (towards each class with ``target_classes``); those after the first start at random.
        loss: "ce", "margin", "dlr", or a function of (clean logits, perturbed logits) that returns one value a sample.
            Towards a target t, "dlr" is −(z_y − z_t) / (z_π1 − ½ (z_π3 + z_π4)), y the class predicted at the input.
        rho: in [0, 1].
        target_classes: 0, or how many of the likeliest other classes to run towards in turn, each by the targeted form
            of ``loss``; any wrong class counts as success. Not together with ``targeted``.
        large_eps: spend 30, 30 and 40 % of the steps in balls of 3, 2 and 1 times eps, each from the best point of the
            one before. Points of the first two are not results. Recommended by the paper for l1.
        targeted: descend the loss of the targets instead.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random starts, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(step, PgdState); the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the last adversarial point that was seen, or the point of highest loss where
        there was none. Samples that are adversarial already come back unchanged.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost, with R = restarts · max(1, target_classes): R · (steps + 1) + 1 forward and R · steps backward passes (with
    ``large_eps`` 2 R more forward passes).
    Source: Croce and Hein 2020, §3, algorithm 1 and eq. 7; Croce and Hein 2021 for l1 (§3) and large eps (§3.2).
    """
    p = EXPONENTS[norm_name(norm, apgd.norms)]  # type: ignore[attr-defined]
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, restarts, sample_ids, seed)
    eps, rho = check_number("eps", eps, 0), check_number("rho", rho, 0, 1)
    if isinstance(target_classes, bool) or not isinstance(target_classes, int) or target_classes < 0:
        raise ValueError(f"target_classes: expected an integer >= 0, got {target_classes!r}")
    if target_classes and targeted:
        raise ValueError("target_classes: not together with targeted")
    plan = phases(eps, steps, large_eps)
    with undisturbed(model, eval_mode):
        clean = clean_logits(model, inputs, labels)
        if target_classes >= clean.shape[1]:
            raise ValueError(
                f"target_classes: the model has {clean.shape[1] - 1} classes besides the label, got {target_classes}"
            )
        found = Found(inputs, labels, clean, targeted)
        climb = Climb(model, inputs, p, rho, bounds, found, callback)
        if target_classes:
            ranked = clean.scatter(1, labels.unsqueeze(1), -float("inf")).argsort(dim=1, descending=True, stable=True)
            goals = [(ranked[:, rank], True) for rank in range(target_classes)]
        else:
            goals = [(labels, targeted)]
        for number, (goal, towards) in enumerate(goals):
            ascend = _targeted_dlr(clean, goal) if towards and loss == "dlr" else make_loss(loss, goal, clean, towards)
            first = number * restarts
            for adv in starts(inputs, p, plan[0][0], bounds, random_start, restarts, seed, sample_ids, first):
                if climb.run(adv, plan, ascend):
                    return found.adv
    return found.adv


def _targeted_dlr(clean: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """−(z_y − z_t) / (z_π1 − ½ (z_π3 + z_π4)), y the class predicted at the input."""
    if clean.shape[1] < 4:
        raise ValueError(
            f'loss: "dlr" towards targets is defined for 4 classes or more, the model has {clean.shape[1]}; use "margin"'
        )
    y, t = clean.argmax(1, keepdim=True), targets.unsqueeze(1)

    def loss(logits: Tensor) -> Tensor:
        top = logits.topk(4, dim=1).values
        gap = (logits.gather(1, t) - logits.gather(1, y)).squeeze(1)
        return gap / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)

    return loss


apgd.norms = ("l1", "l2", "linf")  # type: ignore[attr-defined]  # read by the evaluation before it calls
