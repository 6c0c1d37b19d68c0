"""BANG: batch adjusted network gradients, by which samples that are classified well still move the weights."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust.attacks._common import check_number, rows_like
from pyrobust.training._losses import cross_entropy
from pyrobust.training.term import Batch, Term

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Bang(Term):
    """CE(x), where every layer scales the gradient κ_i that sample i sends to its weights (not to the layer before):

        κ_i ← κ_i · (max_j ‖κ_j‖₂ / ‖κ_i‖₂)^{ρ_i},   ρ_i = ε_i · (1 − ‖κ_i‖₂ / max_j ‖κ_j‖₂)

    with κ_i the gradient with respect to the layer's output and ε_i = epsilon, for misclassified samples ratio · epsilon.
    Layers are the linear ones and the convolutions of the model. Small gradients grow, the largest stays.

    Args:
        epsilon: in [0, 1]: 0 leaves all gradients, 1 raises the smallest to the size of the largest.
        ratio: in [0, 1]: for the samples that are misclassified.

    Raises:
        ValueError: naming the argument.

    Cost: one forward and one backward pass of its own (the clean logits of other terms must stay as they are), and for each
        layer three passes over the gradient at its output and one over that at its input.
    Source: Rozsa et al. 2016, eq. 1–3, and their published code for ``ratio``; the local learning rate β is left to the
        parameter groups of the optimiser. Seed 000, §2 and §5.2.
    """

    classifies = True

    def __init__(self, epsilon: float = 0.8, ratio: float = 1.0) -> None:
        super().__init__()
        self.epsilon = check_number("epsilon", epsilon, 0, 1)
        self.ratio = check_number("ratio", ratio, 0, 1)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        exponents = batch.inputs.new_empty(len(batch.inputs))  # known once the logits are
        with ExitStack() as hooks:
            for layer in model.modules():
                if isinstance(layer, LAYERS):
                    adjusted = _Adjusted(exponents)
                    hooks.callback(layer.register_forward_pre_hook(adjusted.before).remove)
                    hooks.callback(layer.register_forward_hook(adjusted.after).remove)
            logits = model(batch.inputs)
        wrong = logits.detach().argmax(1) != batch.labels
        exponents.fill_(self.epsilon).masked_fill_(wrong, self.ratio * self.epsilon)
        return cross_entropy(logits, batch.labels)


class _Adjusted:
    """Around one layer: scales the rows of the gradient at its output, from which those of its weights follow, and takes
    that back from the gradient at its input, which is linear in it."""

    def __init__(self, exponents: Tensor) -> None:
        self.exponents = exponents
        self.scale: dict[str, Tensor] = {}  # of the call in progress; a layer may be called more than once

    def before(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        scale = self.scale = {}
        first = inputs[0]
        if first.requires_grad:
            first = first.view_as(first)  # its gradient is the layer's alone, whoever else reads the same tensor
            first.register_hook(lambda grad: grad / rows_like(scale["rows"], grad))
        return (first, *inputs[1:])

    def after(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if len(output) != len(self.exponents):
            count, shape = len(self.exponents), tuple(output.shape)
            raise ValueError(
                f"model: expected layers that keep the {count} samples apart, got an output of shape {shape}"
            )
        scale, exponents = self.scale, self.exponents

        def adjust(grad: Tensor) -> Tensor:
            size = ops.lp_norm(grad, 2)
            share = size / size.amax()
            scale["rows"] = torch.where(share > 0, share.pow(exponents * (share - 1)), 1.0).to(grad.dtype)
            return grad * rows_like(scale["rows"], grad)

        if output.requires_grad:
            output.register_hook(adjust)
