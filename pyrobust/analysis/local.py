"""The linear classifier that a network is around an input, and the sizes of the weights that scale it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrobust import ops
from pyrobust._checks import Model, Norm, check_inputs, check_labels, check_logits, norm_name
from pyrobust.analysis.jacobian import ANY, SEEDS
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import check_count, undisturbed
from pyrobust.attacks._jacobian import pull_back

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DUAL = {"l1": "linf", "l2": "l2", "linf": "l1"}


@dataclass(frozen=True)
class LocalClassifier:
    """What :func:`local_classifier` found, a row a sample; s(x') = w·x' + b near x, positive where the label wins.

    Attributes:
        others: int64 (N,) the class j that the label y is compared with.
        weights: (N, …) w = ∇(z_y − z_j)(x).
        offsets: (N,) b = s(x) − w·x.
        scores: (N,) s(x) = z_y − z_j.
        scales: (N,) ‖w‖ in the dual of ``norm``: what the local distance is multiplied by to give the score.
        distances: (N,) d(x) = s(x) / ‖w‖, signed: the distance to the boundary of the local classifier.
        norm: in which the distance is measured.
    """

    others: Tensor
    weights: Tensor
    offsets: Tensor
    scores: Tensor
    scales: Tensor
    distances: Tensor
    norm: str

    def plot(self, found: Tensor | None = None) -> Figure:
        """Histogram of the distances; or, with ``found`` (N,), distances that an attack found, one over the other."""
        from pyrobust.analysis._draw_local import draw_local

        return draw_local(self, found)


def local_classifier(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    batch_size: int = 128,
    work: Work | None = None,
) -> LocalClassifier:
    """s(x') = w·x' + b with w = ∇s(x), s = z_y − z_j, and d(x) = s(x) / ‖w‖, j the class whose boundary is nearest.

    Where the network is linear between x and the boundary, d(x) is the distance to the nearest adversarial point, bounds
    apart; elsewhere a linear model of it.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: x, (N, …).
        labels: y, int64 (N,).
        norm: of the distance: "l2", "linf" or "l1" (or 2, inf, 1).
        batch_size: samples a pass.
        work: progress and resume.

    Returns:
        LocalClassifier, weights in the dtype of the inputs, numbers in float64. j has the least s / ‖w‖: of a correct input the
        nearest boundary, of a misclassified one the furthest, all of which it is behind. Where ‖w‖ = 0, d(x) is ±inf.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: a forward pass and K gradients a sample.
    Source: seed 001, "First Step: a 2-Layer Binary Network" (W₂W₁ˣ is w) and "Second Step: General Case".
    """
    name = norm_name(norm, tuple(_DUAL))
    check_inputs(inputs, ANY)
    check_count(batch_size=batch_size)

    def linearise(ids: Tensor) -> dict[str, Tensor]:
        x, y = inputs[ids].detach().requires_grad_(), labels[ids].unsqueeze(1)
        with torch.enable_grad():
            logits = model(x)
        rivals = torch.arange(classes - 1, device=y.device).expand(len(ids), -1)
        rivals = rivals + (rivals >= y)

        def differences(others: Tensor) -> Tensor:
            """(k, N, K): the seeds of z_y − z_j, j of (N, k)."""
            return (F.one_hot(y, classes) - F.one_hot(others, classes)).transpose(0, 1).to(logits.dtype)

        slopes = torch.stack(
            [
                ops.lp_norm(row, _DUAL[name]).double()
                for part in rivals.split(max(1, SEEDS // logits.numel()), dim=1)
                for chunk in pull_back(logits, x, differences(part), keep=True)
                for row in chunk
            ],
            1,
        )
        values = logits.detach().double()
        gaps = values.gather(1, y) - values.gather(1, rivals)
        signed = (gaps / slopes).nan_to_num(torch.inf, torch.inf, -torch.inf)
        nearest = signed.argmin(1, keepdim=True)
        other = rivals.gather(1, nearest)
        (weights,) = torch.autograd.grad(logits, x, differences(other)[0])
        scores = gaps.gather(1, nearest).squeeze(1)
        return {
            "others": other.squeeze(1),
            "weights": weights,
            "offsets": scores - (weights.double() * x.detach().double()).flatten(1).sum(1),
            "scores": scores,
            "scales": slopes.gather(1, nearest).squeeze(1),
            "distances": signed.gather(1, nearest).squeeze(1),
        }

    with undisturbed(model):
        with torch.no_grad():
            classes = check_logits(model(inputs[:1]), 1)
        check_labels(labels, inputs, classes)
        ids = torch.arange(len(inputs), device=inputs.device)
        found = joined((work or Work()).map(f"local classifiers {name}", ids.split(batch_size), linearise))
    return LocalClassifier(**found, norm=name)


class LayerWeights(NamedTuple):
    """The weights of one layer.

    Attributes:
        name, kind: of the module: its path in the network, and its class.
        shape: of the weights.
        rms: root of their mean square.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    rms: float


def layer_weights(model: nn.Module) -> list[LayerWeights]:
    """The matrices and filters of a network, in the order of its modules: what weight decay scales.

    Every module's own parameter ``weight`` of two or more dimensions; scales of normalisations and biases are left out.

    Source: seed 001, "Example: LeNet on MNIST".
    """
    layers = []
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 1:
            rms = float(weight.detach().double().square().mean().sqrt())
            layers.append(LayerWeights(name, type(module).__name__, tuple(weight.shape), rms))
    return layers
