"""What a training objective is made of: terms that map a model and a batch to a loss, and their weighted sum."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn


@dataclass
class Batch:
    """The samples of one training step, and the model's logits there, computed once for all terms that ask.

    Attributes:
        inputs: (N, …) inside ``bounds``, augmented already; a leaf that requires its gradient where a term needs that.
        labels: int64 (N,).
        sample_ids: int64 (N,), indices in the training set: with ``seed`` and ``step`` they key all randomness.
        step: of the whole training, from 0.
        epoch: passes over the data so far, as a fraction.
        bounds: (low, high) of the inputs.
        seed: of the training.
    """

    inputs: Tensor
    labels: Tensor
    sample_ids: Tensor
    step: int = 0
    epoch: float = 0.0
    bounds: tuple[float, float] = (0.0, 1.0)
    seed: int = 0
    _logits: Tensor | None = field(default=None, repr=False)

    def logits(self, model: nn.Module) -> Tensor:
        """model(inputs), with its graph: one forward pass a step, however many terms ask."""
        if self._logits is None:
            self._logits = model(self.inputs)
        return self._logits


class Term(nn.Module):
    """A loss or a penalty. What it learns or remembers (a critic, warm starts) are its parameters and buffers, so that a
    checkpoint holds them.

    Attributes:
        classifies: it holds the classification loss; else the cross-entropy goes beside it.
        needs_input_grad: it differentiates the clean logits with respect to ``batch.inputs``. They are those of training mode:
            behind batch norm a sample's gradient also holds what the sample does to the others through the batch's mean and
            variance. The forms by differences (`OperatorNorm` with ``eps``, `LogitDistance`) find their directions in
            evaluation mode, sample by sample.
        compilable: it differentiates no gradient of the model's once more in another way; compiled models do not allow that.
    """

    classifies: ClassVar[bool] = False
    needs_input_grad: bool = False
    compilable: ClassVar[bool] = True

    def prepare(self, model: nn.Module, batch: Batch) -> None:
        """What is to be done before the loss of a step is computed, as an update of a critic. Default: nothing."""

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean over the batch, a scalar with its graph to the model's parameters."""
        raise NotImplementedError


class Objective(nn.Module):
    """loss = Σ weight · term.

    Args:
        terms: the term, or (weight, term) with a weight >= 0, by the name that logs use.

    Raises:
        TypeError, ValueError: naming the term.
    """

    def __init__(self, **terms: Term | tuple[float, Term]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("terms: expected at least one")
        self.terms = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        for name, given in terms.items():
            weight, term = given if isinstance(given, tuple) else (1.0, given)
            if not isinstance(term, Term):
                raise TypeError(f"{name}: expected a Term or (weight, Term), got {type(term).__name__}")
            if not (0 <= weight < math.inf):
                raise ValueError(f"{name}: expected a weight >= 0, got {weight}")
            self.terms[name] = term
            self.weights[name] = float(weight)

    @property
    def needs_input_grad(self) -> bool:
        return any(term.needs_input_grad for term in self._terms())

    @property
    def compilable(self) -> bool:
        return not self.needs_input_grad and all(term.compilable for term in self._terms())

    def prepare(self, model: nn.Module, batch: Batch) -> None:
        for term in self._terms():
            term.prepare(model, batch)

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the value of every term (without its weight and graph), for the logs."""
        if self.needs_input_grad:
            batch.inputs.requires_grad_()
        values = {name: term(model, batch) for name, term in self.terms.items()}
        loss = torch.stack([self.weights[name] * value for name, value in values.items()]).sum()
        return loss, {name: value.detach() for name, value in values.items()}

    def _terms(self) -> list[Term]:
        return [term for term in self.terms.values() if isinstance(term, Term)]
