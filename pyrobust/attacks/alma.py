"""Augmented Lagrangian minimum norm: the distance and a penalty whose multiplier follows the constraint, for l2 and
l1."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import (
    Callback,
    Model,
    check_call,
    check_number,
    check_positive,
    clean_logits,
    logits_and_grad,
    rows_like,
    undisturbed,
)
from pyrobust.attacks._descent import margin_and_seed, start_of
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial

_STEP = {"l1": 0.5, "l2": 0.1}
_LAST_STEP = 0.01  # of the first
_CHECK_STEPS = 10  # M: between two looks at whether the constraint gets nearer,
_NEARER = 0.95  # τ: and by how much it has to
_MU_RANGE = (1e-6, 1e12)
_LINE_SEARCH = 10
_LONGEST = 100.0  # a step length where the bounds shut most of the gradient, over the one without bounds
_FLAT = 1e-6  # of a gradient's l2 norm: no direction


@judged_in_float32
def alma(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    steps: int = 1000,
    step_size: float | None = None,
    mu: float = 1.0,
    rho: float = 1.0,
    gamma: float = 1.2,
    alpha: float = 0.9,
    restarts: int = 1,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """min ‖r‖ + P(d, ρ, μ) by RMSProp with momentum, d = (z_y − max_{i ≠ y} z_i) / (z_π1 − z_π3), π the order of the
    logits.

    P = μ d + μ ρ d² + ρ² d³ / 6 where d ≥ 0, else μ d / (1 − ρ d). Each step μ ← α μ + (1 − α) ∂P/∂d; every tenth,
    ρ ← γ ρ where no point was adversarial yet and d did not fall by 5 %. The step length η holds until the first
    adversarial point, then falls geometrically to a hundredth. Targets t have d = (max_{i ≠ t} z_i − z_t) / (z_π1 −
    (z_π3 + z_π4) / 2). With fewer classes than the ratio orders (3, or 4 for targets), d is the margin over its
    magnitude at the input.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l2" or "l1" (or 2, 1). The gradient of linf is a single value's, which descends too slowly.
        steps: of each run.
        step_size: how far, in ``norm`` and in units of the width of ``bounds``, η takes the gradient at the start;
            default 0.1 for l2, 0.5 for l1.
        mu: the first μ, > 0.
        rho: the first ρ, > 0.
        gamma: γ > 1.
        alpha: α in (0, 1), also the decay of RMSProp's squares and of its momentum; the paper has 0.5 for 100 steps.
        restarts: runs; those after the first start at random within the distance of the best point so far.
        targeted: find the nearest point of the target class.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random starts, and the direction taken where the gradient at the start is zero;
            int64 sample_ids (N,) default to 0 … N − 1.
        callback: called as callback(step, SearchState) after each prediction; the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the nearest adversarial point found; the input itself where none was, or where
        it is adversarial already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: restarts · steps + 1 forward and restarts · steps backward passes.
    Source: Rony et al. 2021, algorithm 1 with the penalty P2; the restarts, the targets' ratio (Croce and Hein
    2020, eq. 7) and the case of few classes are additions.
    """
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, restarts, sample_ids, seed)
    name = norm_name(norm, ("l1", "l2"))
    step_size = _STEP[name] if step_size is None else step_size
    check_positive(step_size=step_size, mu=mu, rho=rho)
    check_positive(alpha=alpha, below=1)
    check_number("gamma", gamma, 1, above=True)
    low, high = bounds
    width = high - low

    with undisturbed(model, eval_mode):
        clean = clean_logits(model, inputs, labels)
        nearest = Nearest(inputs, is_adversarial(clean, labels, targeted))
        center = inputs.to(nearest.distance.dtype)
        penalty = _Penalty(clean, labels, targeted, width, gamma, alpha)
        for run in range(restarts):
            adv = start_of(run, inputs, nearest.adv, 1 if name == "l1" else 2, bounds, seed, sample_ids).to(
                center.dtype
            )
            penalty.reset(mu, rho)
            squares, momentum = torch.ones_like(adv), torch.zeros_like(adv)
            first = torch.full_like(nearest.distance, steps + 1)  # step with an adversarial point
            length = torch.zeros_like(first)
            for step in range(steps):
                point = adv.to(inputs.dtype)
                r = point - center
                distance = ops.lp_norm(r, name)
                logits, grad = logits_and_grad(model, point, penalty.gradient)
                adversarial = is_adversarial(logits, labels, targeted)
                nearest.offer(point, distance, adversarial)
                state = SearchState(point, adversarial, nearest.adv, nearest.distance)
                if callback is not None and callback(step, state):
                    return nearest.adv
                first = torch.where(adversarial, first.clamp(max=step), first)
                grad = grad.to(center.dtype)
                if step == 0:
                    anywhere = ops.dual_normalize_(ops.sample_lp_ball(adv, 2, 1.0, seed=seed, sample_ids=sample_ids), 2)
                    grad = torch.where(rows_like(ops.lp_norm(grad, 2) <= _FLAT, grad), anywhere, grad)
                    length = _step_length(adv, grad, name, step_size * width, bounds)
                else:
                    _add_direction_(grad, r, distance, name)
                squares.mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
                momentum.mul_(alpha).addcdiv_(grad, torch.sqrt(squares, out=r).add_(1e-8))
                decay = _LAST_STEP ** ((step - first).clamp_(min=0) / (steps - first))
                adv.addcmul_(momentum, rows_like(length * decay, adv), value=-1).clamp_(low, high)
    return nearest.adv


alma.norms = ("l1", "l2")  # type: ignore[attr-defined]  # read by the evaluation before it calls


class _Penalty:
    """P of each sample: its constraint d ≤ 0, and the μ and ρ that follow it, without a word to the host."""

    def __init__(self, clean: Tensor, labels: Tensor, targeted: bool, width: float, gamma: float, alpha: float) -> None:
        self._labels, self._targeted = labels, targeted
        self._width, self._gamma, self._alpha = width, gamma, alpha
        self._scale = margin_and_seed(clean, labels, targeted)[0].abs()

    def reset(self, mu: float, rho: float) -> None:
        """Begin a run."""
        self._mu = torch.full_like(self._scale, mu)
        self._rho = torch.full_like(self._scale, rho)
        self._found = torch.zeros_like(self._scale, dtype=torch.bool)
        self._step = 0

    def gradient(self, logits: Tensor) -> Tensor:
        """∂P/∂z in units of the width of the bounds, after this step's changes of ρ and μ."""
        d, seed = self._ratio(logits)
        self._found |= d < 0
        self._step += 1
        if self._step == 1:
            self._before = d
        elif self._step % _CHECK_STEPS == 0:
            nearer = d < _NEARER * self._before
            self._rho = torch.where(self._found | nearer, self._rho, self._rho * self._gamma)
            self._before = d
        if self._step > 1:
            self._mu = self._mu.lerp(self._slope(d), 1 - self._alpha).clamp_(*_MU_RANGE)
        return seed.mul_((self._slope(d) * self._width).unsqueeze(1))

    def _slope(self, d: Tensor) -> Tensor:
        """∂P/∂d."""
        mu, rho = self._mu, self._rho
        outside = mu + 2 * mu * rho * d + (rho * d).square() / 2
        return torch.where(d >= 0, outside, mu / (1 - rho * d.clamp(max=0)).square())

    def _ratio(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """d (N,) and its gradient (N, K)."""
        margin, seed = margin_and_seed(logits, self._labels, self._targeted)
        ordered = 4 if self._targeted else 3
        if logits.shape[1] < ordered:
            scale = self._scale.clamp(min=1e-12)
            return margin / scale, seed.div_(scale.unsqueeze(1))
        top, order = logits.to(margin.dtype).topk(ordered, 1)
        spread = (top[:, 0] - top[:, 2:].mean(1)).clamp_(min=1e-12)
        d = margin / spread
        share = d.unsqueeze(1) / (ordered - 2)
        seed.scatter_add_(1, order[:, :1], -d.unsqueeze(1)).scatter_add_(1, order[:, 2:], share.expand(-1, ordered - 2))
        return d, seed.div_(spread.unsqueeze(1))


def _add_direction_(grad: Tensor, r: Tensor, distance: Tensor, norm: str) -> None:
    """grad ← grad + ∇‖r‖, 0 at r = 0; overwrites ``r``."""
    if norm == "l1":
        grad.add_(r.sign_())
    else:
        grad.addcmul_(r, rows_like(1 / distance.clamp(min=torch.finfo(r.dtype).tiny), r))


def _step_length(adv: Tensor, grad: Tensor, norm: str, reach: float, bounds: Bounds) -> Tensor:
    """(N,) η with ‖box(adv − η grad) − adv‖ = ``reach``, as far as the box has that much room."""
    plain = reach / ops.lp_norm(grad, norm)
    length = plain
    # The distance over η falls with η, since only the box bends the line: so each proportional step ends below the solution.
    for _ in range(_LINE_SEARCH):
        moved = torch.addcmul(adv, grad, rows_like(length, grad), value=-1).clamp_(*bounds).sub_(adv)
        length = torch.minimum(length * (reach / ops.lp_norm(moved, norm).clamp_(min=1e-30)), _LONGEST * plain)
    return length
