"""Regularisation by the operator norm of the logits' Jacobian at the data."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from pyrobust import ops
from pyrobust._checks import Model, Norm, norm_name
from pyrobust.attacks._budget import EXPONENTS
from pyrobust.attacks._common import check_count, check_positive, undisturbed
from pyrobust.training._ascent import noise
from pyrobust.training._derivatives import check_power, mean_power, pull_back, tracked_logits
from pyrobust.training._losses import wide
from pyrobust.training.term import Batch, Term

CONJUGATES = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}


def jacobian_product(model: Model, inputs: Tensor, direction: Tensor) -> Tensor:
    """J v, (N, K): forward mode, which needs one forward pass on dual numbers and keeps nothing.

    The other exact way, differentiating Jᵀu in u, is a sixth faster on a plain CNN and a quarter to two fifths slower on CNNs
    with batch norm (whole iterations on a CPU). Both are dearer than they need be: for the derivatives of a convolution
    PyTorch also computes the part of the weights, wanted or not.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile makes of it drops the tangents without a word
    with torch.no_grad(), forward_ad.dual_level():
        product: Tensor | None = forward_ad.unpack_dual(model(forward_ad.make_dual(inputs, direction))).tangent
    if product is None:
        raise ValueError("model: expected operations with a forward-mode derivative all the way to the logits")
    return product


class PowerIteration:
    """From v₀ = dual_p(Jᵀu₀): u ← dual_q*(J v), v ← Π(v + α Jᵀu), or v ← dual_p(Jᵀu) in the limit α → ∞.

    dual_p(z) = argmax {⟨v, z⟩ : ‖v‖_p ≤ 1}; Π projects onto the sphere ‖v‖_p = 1. For p = q = 2 and α = ∞ this is the power
    method; u and v tend to the singular vectors of J of the largest singular value.

    Args:
        model: from (N, …) to logits (N, K); it is left to the caller in which mode.
        inputs: (N, …), where the Jacobian is taken.
        p, q: exponents of the norms of the inputs' and the logits' space: 1, 2 or inf.
        alpha: in (0, inf].

    Cost: one forward pass; then a backward pass for v₀, and for each step one forward pass on dual numbers and one backward
        pass.
    Source: seed 004, eq. 6 and 9–12.
    """

    def __init__(self, model: Model, inputs: Tensor, p: float, q: float, alpha: float = math.inf) -> None:
        self.model, self.p, self.q, self.alpha = model, p, q, alpha
        self.point = inputs.detach().requires_grad_()
        with torch.enable_grad():
            self.logits = model(self.point)

    def start(self, u: Tensor) -> Tensor:
        """v₀, like the inputs."""
        return ops.dual_normalize_(self._pull_back(u), self.p)

    def step(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The next (u, v)."""
        product = jacobian_product(self.model, self.point.detach(), v)
        u = ops.power_iteration_step(product, CONJUGATES[self.q]).direction
        return u, ops.power_iteration_step(self._pull_back(u), self.p, v, self.alpha).direction

    def _pull_back(self, u: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(self.logits, self.point, u, retain_graph=True)
        return product


class OperatorNorm(Term):
    """‖J(x)‖_{p,q} or ½ ‖J(x)‖²_{p,q}, J the Jacobian of the logits; ‖J‖_{p,q} = max {‖J v‖_q : ‖v‖_p = 1}.

    p is ``norm``, q ``logit_norm``. Both 2 with power 2 is data-dependent spectral norm regularisation. u and v come from the
    power iteration and are constants; then

    * by the value (``eps`` None): ‖J‖ = uᵀ J v;
    * by differences: ‖J‖ = ‖f(x + eps v) − f(x)‖_q / eps, the sum-of-squares form for q = 2, which is the same as long as
      x + eps v shares its activation pattern with x. The seed's λ of that form is the weight of this term over eps².

    (2, 2), and every pair with p = 1 or q = inf, can be computed; the others are NP-hard, and a lower bound is what one gets.
    With p = 1 or q = inf the iteration may stop at a local maximum, whichever u₀ leads to.

    Args:
        norm: of the perturbation: "linf", "l2" or "l1" (or inf, 2, 1).
        logit_norm: of the logits' change, likewise.
        steps: of the power iteration, at least 1; the default is that of the seed's adversarial training.
        alpha: weight of the gradient beside the direction of the step before, in (0, inf]; inf is the power method.
        eps: length of the differences, > 0, in the units of the inputs; None: by the value. x + eps v is not cut off at the
            bounds.
        power: 1 for the norm itself (eq. 13), 2 for half its square (eq. 7).
        warm_start: (samples, classes) of the training set: the buffer ``us`` keeps the u of every sample, and the iteration
            starts from it when the sample comes again, so that one step is enough; every process keeps those it has seen.
            None, or a sample that is new: u₀ is uniform in the unit ball, keyed by seed, sample and step.
        eval_mode: run the model in evaluation mode inside the iteration.

    Raises:
        ValueError: naming the argument; a model that has no forward-mode derivative.

    Cost: steps + 1 forward and backward passes, steps of the forward ones on dual numbers (two to four times as long); by
        the value a backward pass that is differentiated once more, by differences a forward and a backward pass. All
        besides the clean ones that other terms share.
    Source: seed 004, §4.1 (eq. 6, 7) and §4.2 (eq. 8–13). There v₀ is random; here it is Jᵀu₀, so that it lies where J does
        not vanish, and K numbers a sample remember it.
    """

    us: Tensor | None

    def __init__(
        self,
        norm: Norm = "l2",
        logit_norm: Norm = "l2",
        steps: int = 10,
        alpha: float = math.inf,
        eps: float | None = None,
        power: int = 2,
        warm_start: tuple[int, int] | None = None,
        eval_mode: bool = True,
    ) -> None:
        super().__init__()
        self.p = EXPONENTS[norm_name(norm, tuple(EXPONENTS))]
        self.q = EXPONENTS[norm_name(logit_norm, tuple(EXPONENTS))]
        check_count(steps=steps)
        if alpha != math.inf:
            check_positive(alpha=alpha)
        if eps is not None:
            check_positive(eps=eps)
        self.steps, self.alpha, self.eps = steps, float(alpha), eps
        self.power, self.eval_mode = check_power(power), eval_mode
        self.needs_input_grad = eps is None
        if warm_start is not None:
            check_count(samples=warm_start[0], classes=warm_start[1])
        self.register_buffer("us", None if warm_start is None else torch.zeros(warm_start))

    def directions(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """(u, v) after the last step; ``us`` is brought up to date."""
        # Autocast off: tangents behind a batch norm are not cast, so that the next convolution would refuse them.
        with undisturbed(model, self.eval_mode), torch.autocast(batch.inputs.device.type, enabled=False):
            iteration = PowerIteration(model, batch.inputs, self.p, self.q, self.alpha)
            v = iteration.start(self._start(iteration.logits.detach(), batch))
            for _ in range(self.steps):
                u, v = iteration.step(v)
        if self.us is not None:
            self.us.index_copy_(0, batch.sample_ids, u.to(self.us.dtype))
        return u, v

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        u, v = self.directions(model, batch)
        if self.eps is None:
            grad = pull_back(wide(tracked_logits(model, batch)), batch, u)
            values = (grad * v).flatten(1).sum(1)
        else:
            moved = model(torch.add(batch.inputs.detach(), v, alpha=self.eps))
            values = ops.lp_norm(wide(moved) - wide(batch.logits(model)), self.q) / self.eps
        return mean_power(values, self.power)

    def _start(self, logits: Tensor, batch: Batch) -> Tensor:
        start = noise(batch, logits, 2.0, 1.0, "operator norm")
        if self.us is None:
            return start
        kept = self.us.index_select(0, batch.sample_ids).to(logits.dtype)
        return torch.where(kept.any(1, keepdim=True), kept, start)
