"""The exact worst case of a linear classifier's loss, in closed form."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrobust import ops
from pyrobust._checks import Norm, norm_name
from pyrobust.attacks._common import check_number
from pyrobust.training._derivatives import tracked_logits
from pyrobust.training.term import Batch, Term

Loss = Literal["softplus", "hinge"]
_DUALS = {"linf": "l1", "l2": "l2", "l1": "linf"}


class LinearWorstCase(Term):
    """mean ℓ(m − eps · ‖∇ₓ m‖_q), with the margin m = z_y − z_other of two logits, 1/p + 1/q = 1.

    ℓ is the softplus log(1 + e^(−m)), which makes this the cross-entropy of logistic regression, or the hinge (1 − m)₊ of
    the support vector machine. Where the logits are affine in the inputs, as those of
    :class:`pyrobust.models.TwoClassLinear`, behind :class:`pyrobust.models.MeanStd` or not, this is max ℓ over
    ‖r‖_p ≤ eps, exactly; the maximum is not confined to the bounds of the inputs. With ``eps=0`` it is the plain loss.

    Training on it is training on FGSM (linf) or fast-gradient l2 examples of the true labels, without the clipping to
    bounds that these have. Decays of the weights go beside it as terms of their own.

    Args:
        loss: "softplus" or "hinge".
        norm: "linf", "l2" or "l1" (or inf, 2, 1), of the perturbation.
        eps: >= 0, in the units of the inputs.

    Raises:
        ValueError: naming the argument; at the first step, where the model has not two logits.

    Cost: one forward and one backward pass, and the second derivative of the gradient, as cheap for a linear model.
    Source: seed 000, eq. 5 (l2) and eq. 7 (linf), from Goodfellow et al. 2015, §5; the hinge: Xu, Caramanis and Mannor
    2009.
    """

    classifies = True

    def __init__(self, loss: Loss = "softplus", *, norm: Norm = "linf", eps: float) -> None:
        super().__init__()
        if loss not in get_args(Loss):
            raise ValueError(f"loss: expected one of {', '.join(get_args(Loss))}, got {loss!r}")
        self.loss: Loss = loss
        self.dual = _DUALS[norm_name(norm, tuple(_DUALS))]
        self.eps = check_number("eps", eps, 0)
        self.needs_input_grad = self.eps > 0

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = tracked_logits(model, batch) if self.eps > 0 else batch.logits(model)
        if logits.ndim != 2 or logits.shape[1] != 2:
            raise ValueError(f"model: expected two logits a sample, got shape {tuple(logits.shape)}")
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        own = batch.labels.unsqueeze(1)
        margin = (logits.gather(1, own) - logits.gather(1, 1 - own)).squeeze(1)
        if self.eps > 0:
            (grad,) = torch.autograd.grad(margin.sum(), batch.inputs, create_graph=True)
            margin = margin - self.eps * ops.lp_norm(grad, self.dual)
        return F.relu(1 - margin).mean() if self.loss == "hinge" else F.softplus(-margin).mean()
