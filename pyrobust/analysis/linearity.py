"""How far the linear model of a network at an input holds, along random and adversarial directions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Model, check_bounds, check_inputs, check_labels, check_logits
from pyrobust.analysis.jacobian import ANY, layer_outputs, push_forward
from pyrobust.analysis.spectrum import jacobian_spectrum
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import check_count, check_positive, logits_and_grad, undisturbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ALL = 24  # outputs up to which all of J costs less than the iteration for its largest singular value
_TOLERANCE = 1e-2  # of a residual: the value's error is of the order of its square


@dataclass(frozen=True)
class LocalLinearity:
    """What :func:`local_linearity` measured, by direction: (T, N), a row a distance, in float64.

    Attributes:
        distances: (T,) ‖z‖₂.
        deviation: ‖f(x + z) − f(x) − J(x) z‖₂.
        change: ‖f(x + z) − f(x)‖₂, the scale of the deviation.
        largest_singular: σ(J(x + z)).
    """

    distances: Tensor
    deviation: dict[str, Tensor]
    change: dict[str, Tensor]
    largest_singular: dict[str, Tensor]

    def relative(self, direction: str) -> Tensor:
        """(T, N) deviation over change: the share of what the network does that its linear model does not tell; NaN where
        nothing changes."""
        return self.deviation[direction] / self.change[direction]

    def plot(self) -> Figure:
        """Deviation and largest singular value over the distance: medians over samples, and the middle half shaded."""
        from pyrobust.analysis._draw_linearity import draw_linearity

        return draw_linearity({"": self})


def local_linearity(
    model: Model,
    inputs: Tensor,
    directions: Mapping[str, Tensor],
    layer: str | None = None,
    *,
    distances: Sequence[float],
    batch_size: int = 128,
    seed: int = 0,
    work: Work | None = None,
) -> LocalLinearity:
    """‖f(x + t v) − f(x) − t J(x) v‖₂ and σ(J(x + t v)) over the distance t, v a unit vector in l2.

    x + t v is not cut off at the bounds of the inputs: along a line nothing but the network bends.

    Args:
        model: from (N, …) to logits (N, K).
        inputs: x, (N, …).
        directions: like ``inputs``, by name; normalised here, no row of zeros.
        layer: f is the flat output of this module (a name among ``model.named_modules()``), in the seed the features that the
            last layer takes; None: the logits.
        distances: t, >= 0, in the units of the inputs.
        batch_size: samples a pass.
        seed: of the iteration for σ.
        work: progress and resume.

    Returns:
        LocalLinearity. Where f has more than 24 values σ is found by iteration, to about 1e-4 of itself.

    Raises:
        TypeError, ValueError: naming the argument; a model that has neither forward-mode nor second derivatives.

    Cost: per direction a forward pass on dual numbers; per direction and distance a forward pass, and what
        :func:`jacobian_spectrum` takes for one value: about ten forward passes on dual numbers and as many backward.
    Source: seed 004, §5.4 and fig. 4.
    """
    check_inputs(inputs, ANY)
    check_count(batch_size=batch_size)
    units = {name: unit_rows(name, direction, inputs) for name, direction in directions.items()}
    if not units:
        raise ValueError("directions: expected at least one")
    lengths, function = check_distances(distances), layer_outputs(model, layer)

    def sigma(points: Tensor, width: int) -> Tensor:
        k = None if width <= _ALL else 1
        found = jacobian_spectrum(model, points, layer, k=k, tolerance=_TOLERANCE, batch_size=len(points), seed=seed)
        return found.values[:, 0]

    def measure(ids: Tensor) -> dict[str, Tensor]:
        x, parts = inputs[ids], []
        with torch.no_grad():
            before = function(x).double()
        for unit in units.values():
            v = unit[ids]
            slope = push_forward(function, x, v).double()
            for t in lengths:
                point = torch.add(x, v, alpha=t)
                with torch.no_grad():
                    moved = function(point).double() - before
                bent = torch.linalg.vector_norm(moved - t * slope, dim=1)
                size = torch.linalg.vector_norm(moved, dim=1)
                parts.append(torch.stack((bent, size, sigma(point, before.shape[1]).to(size)), 1))
        return {"found": torch.stack(parts, 1).unflatten(1, (len(units), len(lengths)))}

    with undisturbed(model):
        ids = torch.arange(len(inputs), device=inputs.device)
        found = joined((work or Work()).map("local linearity", ids.split(batch_size), measure))["found"]
    by_name = [dict(zip(units, found[..., i].permute(1, 2, 0), strict=True)) for i in range(3)]
    return LocalLinearity(torch.tensor(lengths, dtype=torch.float64), *by_name)


def random_directions(inputs: Tensor, *, seed: int = 0) -> Tensor:
    """Like ``inputs``: uniform on the unit sphere of l2, row i a function of (seed, i) alone."""
    noise = ops.sample_lp_ball(inputs, 2.0, 1.0, seed=seed)
    return unit_rows("random", noise, inputs)


def adversarial_directions(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 10,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 128,
    seed: int = 0,
) -> Tensor:
    """(x* − x) / ‖x* − x‖₂, x* the last point of projected gradient ascent of the cross-entropy in the l2 ball.

    Unlike an attack it goes on where the prediction is wrong, already or on the way.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …), inside ``bounds``.
        labels: int64 (N,).
        eps: radius of the ball, > 0, in the units of the inputs.
        steps: of 2.5 · eps / steps each, from a point uniform in the ball.
        bounds: (low, high) that x* keeps.
        batch_size: samples a pass.
        seed: of the starts; sample i depends on (seed, i) alone.

    Returns:
        Like ``inputs``. Where the gradients are zero x* is the random start.

    Raises:
        TypeError, ValueError: naming the argument; the ascent ended at the input itself.

    Cost: ``steps`` forward and backward passes, and a forward pass.
    Source: seed 004, eq. 15 and §5.4.
    """
    bounds = check_bounds(bounds)
    check_inputs(inputs, bounds)
    check_count(steps=steps, batch_size=batch_size)
    check_positive(eps=eps)
    parts = []
    with undisturbed(model):
        with torch.no_grad():
            check_labels(labels, inputs, check_logits(model(inputs[:1]), 1))
        for ids in torch.arange(len(inputs), device=inputs.device).split(batch_size):
            x, y = inputs[ids].detach(), labels[ids].unsqueeze(1)
            point = (x + ops.sample_lp_ball(x, 2.0, eps, seed=seed, sample_ids=ids)).clamp_(*bounds)
            for _ in range(steps):
                # (softmax(z) − onehot(y)) / (1 − p_y): the gradient of −log p_y up to its length, also where p_y rounds to 1.
                _, grad = logits_and_grad(
                    model,
                    point,
                    lambda z, y=y: z.scatter(1, y, -math.inf).softmax(1).scatter_(1, y, -1.0),  # type: ignore[misc]
                )
                ops.pgd_step_(point, grad, x, 2.0, float(eps), 2.5 * eps / steps, bounds)
            parts.append(point - x)
    return unit_rows("adversarial", torch.cat(parts), inputs)


def unit_rows(name: str, direction: Tensor, inputs: Tensor) -> Tensor:
    """The direction with rows of length 1 in l2.

    Raises:
        ValueError: it is not like the inputs, or a row is zero or not finite.
    """
    like = isinstance(direction, Tensor) and (direction.shape, direction.dtype, direction.device) == (
        inputs.shape,
        inputs.dtype,
        inputs.device,
    )
    if not like:
        raise ValueError(f"directions: expected {name!r} as inputs, {inputs.dtype} {tuple(inputs.shape)}")
    lengths = torch.linalg.vector_norm(direction.detach().double().flatten(1), dim=1)
    if not bool(((lengths > 0) & lengths.isfinite()).all()):
        raise ValueError(f"directions: expected rows of {name!r} that are finite and not zero")
    return (direction.detach() / lengths.reshape(-1, *[1] * (inputs.ndim - 1))).to(inputs.dtype)


def check_distances(distances: Sequence[float]) -> list[float]:
    """As floats.

    Raises:
        ValueError: none, or one that is not a finite number >= 0.
    """
    lengths = [float(t) for t in distances]
    if not lengths or not all(0 <= t < math.inf for t in lengths):
        raise ValueError(f"distances: expected finite numbers >= 0, got {distances!r}")
    return lengths
