"""The adversary critic: adversarial examples that a second network cannot tell from data of the class they imitate."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrobust import ops
from pyrobust.attacks import high_confidence
from pyrobust.attacks._common import check_count, check_number, check_positive, undisturbed
from pyrobust.attacks._confidence import nearest_class
from pyrobust.training._ascent import evaluated, uniform
from pyrobust.training._losses import wide
from pyrobust.training.critic_network import critic_mlp
from pyrobust.training.term import Batch, Term

Targets = Literal["closest", "sampled"]
_CERTAIN = 1e-6  # the attack asks for confidences inside (0, 1)


class _Attacked(NamedTuple):
    """Adversarial examples with their graph, the classes they imitate, which of them count (1, else 0), and the
    confidence of the model in the labels."""

    batch: Batch
    adv: Tensor
    targets: Tensor
    counts: Tensor
    confidence: Tensor


class AdversaryCritic(Term):
    """−log D_t(A(x; t)) + cycle · ‖A(A(x; t); y) − x‖₂²: the critic D takes x̂ = A(x; t) for data of class t, and the way back
    ends where it began.

    A is :func:`pyrobust.attacks.high_confidence`; it drives x to the class t with the confidence that the model has on data
    of that class, a running mean. Each of its steps is differentiated with respect to the parameters, at a point that is
    held constant: through all steps at once gradients explode. Samples count that the model classifies right and the attack
    brings to t. D_k is the logistic function of the critic's output k. Before each step of the classifier the critic takes
    one of Adam (β₁ = 0.5) on

        −log D_y(x) − log(1 − D_t(x̂)) + gradient · [(‖∇D̃_y(x)‖₂ − 1)² + (‖∇D̃_t(x̂)‖₂ − 1)²],   D̃ the outputs before
        the logistic function.

    The mean is over the samples of a process that count: several processes (DDP) give another than one where the counts
    differ.

    The critic and its optimiser's state are in ``state_dict``. The critic is trained here alone, in full precision: its
    parameters require gradients in ``prepare`` only.

    Args:
        classes: K.
        features: values of an input, from which :func:`critic_mlp` makes the critic; needed without ``critic``.
        critic: another one, from inputs (N, …) to (N, K).
        cycle: weight >= 0 of the way back, in units of this term's weight (the seed: 0.01 / 0.5).
        gradient: weight >= 0 of the gradient penalty.
        steps: of the attack, at least 1.
        top_k: how many of the likeliest classes t is chosen from.
        targets: t is the class of the "closest" boundary, or "sampled" uniformly from the others.
        pretrain: epochs in which the term is 0, and the confidences alone are learnt.
        lr: of the critic, > 0.
        halve_every: epochs, > 0, after which that rate is halved, and again.
        momentum: in [0, 1): share that the running confidences keep at each step.

    Raises:
        ValueError: naming the argument.

    Cost: 2 forward passes without a graph, one forward pass and min(top_k, K − 1) + 1 gradients for t; for each step of the
        attack a forward pass without a graph, and a forward and a backward pass that are both differentiated again; as many
        steps for the way back; the critic's own. The attack checks its arguments, for which the host waits.
    Source: seed 003, §4.4–4.5, eq. 4.3 (corrected: the critic maximises), 4.4 (corrected: minimises −log D), 4.5, algorithm 1
        and eq. 4.8 (corrected). The authors' published code is followed for what is held constant, for the square in the
        way back, and in that failed attacks do not count.
    """

    compilable = False

    def __init__(
        self,
        classes: int,
        features: int | None = None,
        critic: nn.Module | None = None,
        cycle: float = 0.02,
        gradient: float = 10.0,
        steps: int = 5,
        top_k: int = 10,
        targets: Targets = "closest",
        pretrain: float = 1.0,
        lr: float = 1e-3,
        halve_every: float = 40.0,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        check_count(classes=classes, steps=steps, top_k=top_k)
        check_positive(lr=lr, halve_every=halve_every)
        if targets not in get_args(Targets):
            raise ValueError(f"targets: expected one of {', '.join(get_args(Targets))}, got {targets!r}")
        self.cycle = check_number("cycle", cycle, 0)
        self.gradient = check_number("gradient", gradient, 0)
        self.pretrain = check_number("pretrain", pretrain, 0)
        self.momentum = check_number("momentum", momentum, 0, 1, below=True)
        self.steps, self.top_k = steps, top_k
        self.targets: Targets = targets
        self.lr, self.halve_every = lr, halve_every
        if (features is None) == (critic is None):
            raise ValueError("critic: expected either a network, or features to make one from")
        if features is not None:
            critic = critic_mlp(features, classes)
        assert critic is not None
        self.critic = critic.requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=lr, betas=(0.5, 0.999))
        # Sums of confidences and of samples, both decaying: their ratio is a running mean from the first step on.
        self.register_buffer("seen", torch.zeros(2, classes))
        self.seen: Tensor
        self._attacked: _Attacked | None = None  # made by prepare for the loss of the same step

    def get_extra_state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)

    def confidences(self) -> Tensor:
        """(K,): the mean confidence on data of each class; 1/2 where there was none yet."""
        total, count = self.seen
        return torch.where(count > 0, total / count, 0.5)

    def prepare(self, model: nn.Module, batch: Batch) -> None:
        """Update the running confidences; after pre-training attack the batch and take a step of the critic."""
        clean = evaluated(model, batch.inputs)
        self._observe(clean)
        if batch.epoch < self.pretrain:
            return
        attacked = self._attacked = self._attack(model, batch, clean)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * 0.5 ** (batch.epoch // self.halve_every)
        self.optimizer.zero_grad()
        self.critic.requires_grad_(True)
        with torch.enable_grad(), torch.autocast(batch.inputs.device.type, enabled=False):
            self._critic_loss(attacked).backward()
        self.critic.requires_grad_(False)
        self.optimizer.step()

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        if batch.epoch < self.pretrain:
            return batch.inputs.new_zeros(())
        attacked, self._attacked = self._attacked, None
        if attacked is None or attacked.batch is not batch:
            attacked = self._attack(model, batch, evaluated(model, batch.inputs))
        loss = _mean(F.softplus(-self._scores(attacked.adv, attacked.targets)), attacked.counts)
        if self.cycle == 0:
            return loss
        # From a point that is held constant, or the classifier would learn to be attacked so that the way back is short.
        back = self._drive(model, batch, attacked.adv.detach(), batch.labels, attacked.confidence)
        distance = (back - batch.inputs.detach()).flatten(1).square().sum(1)
        return loss + self.cycle * _mean(distance, attacked.counts)

    def _observe(self, clean: Tensor) -> None:
        """Take the confidences of a batch into the running means, by predicted class."""
        confidence, predicted = clean.softmax(1).max(1)
        members = F.one_hot(predicted, clean.shape[1]).to(self.seen.dtype)
        now = torch.stack([confidence.to(members.dtype), torch.ones_like(confidence, dtype=members.dtype)]) @ members
        # A class that is absent keeps its mean: both of its sums stay as they are.
        self.seen.copy_(torch.where(now[1] > 0, self.momentum * self.seen + (1 - self.momentum) * now, self.seen))

    def _attack(self, model: nn.Module, batch: Batch, clean: Tensor) -> _Attacked:
        inputs, labels = batch.inputs.detach(), batch.labels
        if self.targets == "closest":
            with undisturbed(model):
                targets = nearest_class(model, inputs, labels, clean, self.top_k)
        else:
            others = clean.shape[1] - 1
            step = (others * uniform(batch, 1, "critic").squeeze(1)).long().clamp_(max=others - 1)
            targets = (labels + 1 + step) % clean.shape[1]
        adv = self._drive(model, batch, inputs, targets, self.confidences()[targets])
        right = clean.argmax(1) == labels
        counts = right & (evaluated(model, adv.detach()).argmax(1) == targets)
        confidence = clean.softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
        return _Attacked(batch, adv, targets, counts.to(clean.dtype), confidence)

    def _drive(self, model: nn.Module, batch: Batch, points: Tensor, classes: Tensor, confidence: Tensor) -> Tensor:
        """The points that the model takes for the classes with that confidence, with their graph to its parameters."""
        confidence = confidence.clamp(_CERTAIN, 1 - _CERTAIN)
        adv, changes = points, torch.zeros_like(points)
        for _ in range(self.steps):
            moved = high_confidence(
                model, adv, classes, confidence=confidence, steps=1, max_step=None, differentiable=True, targeted=True,
                bounds=batch.bounds,
            )  # fmt: skip
            adv = moved.detach()
            changes = changes + (moved - adv)  # zeros, with the graph of this step alone
        return adv + changes

    def _scores(self, points: Tensor, classes: Tensor) -> Tensor:
        """The critic's outputs before the logistic function, (N,)."""
        return wide(self.critic(points)).gather(1, classes.unsqueeze(1)).squeeze(1)

    def _critic_loss(self, attacked: _Attacked) -> Tensor:
        everyone = torch.ones_like(attacked.counts)
        loss = attacked.counts.new_zeros(())
        for points, classes, sign, counts in (
            (attacked.batch.inputs, attacked.batch.labels, -1, everyone),
            (attacked.adv, attacked.targets, 1, attacked.counts),
        ):
            leaf = points.detach().requires_grad_()
            scores = self._scores(leaf, classes)
            loss = loss + _mean(F.softplus(sign * scores), counts)
            if self.gradient > 0:
                (grad,) = torch.autograd.grad(scores.sum(), leaf, create_graph=True)
                loss = loss + self.gradient * _mean((ops.lp_norm(grad, 2) - 1).square(), counts)
        return loss


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """The mean over the samples that count; 0 where none does."""
    return (values * counts).sum() / counts.sum().clamp(min=1)
