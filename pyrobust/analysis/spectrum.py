"""Singular values of a network's Jacobian at data: how much it stretches small changes of its inputs, and along what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Model, check_inputs
from pyrobust.analysis.jacobian import ANY, CAP, layer_outputs, map_jacobians, push_forward
from pyrobust.analysis.lanczos import SingularTriples, largest_singular
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import check_count, check_number, undisturbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Method = Literal["auto", "gram", "svd"]
_METHODS = ("auto", "gram", "svd")


@dataclass(frozen=True)
class JacobianSpectrum:
    """What :func:`jacobian_spectrum` found at N samples, in float64.

    Attributes:
        values: (N, r) singular values, descending; r = min(m, D), or the k asked for.
        vectors: (N, r, …) right singular vectors, directions in the space of the inputs, of unit l2 norm and arbitrary
            sign; None unless asked for.
        residuals: (N, r) ‖Jᵀu − σ v‖₂ of each value where the k largest were sought; None for all of them. Some
            singular value is within it of σ.
        steps: products by J and by Jᵀ that a sample took to find the k largest, at most; 0 for all of them.
    """

    values: Tensor
    vectors: Tensor | None = None
    residuals: Tensor | None = None
    steps: int = 0

    def plot(self) -> Figure:
        """Singular values by rank: median, middle half and middle nine tenths of the samples."""
        from pyrobust.analysis._draw_spectrum import draw_spectra

        return draw_spectra({"": self})


def jacobian_spectrum(
    model: Model,
    inputs: Tensor,
    layer: str | None = None,
    *,
    k: int | None = None,
    vectors: bool = False,
    method: Method = "auto",
    tolerance: float = 1e-4,
    steps: int = 100,
    batch_size: int = 128,
    seed: int = 0,
    work: Work | None = None,
    name: str = "Jacobian spectrum",
) -> JacobianSpectrum:
    """J(x) = U Σ Vᵀ at each input, J the Jacobian of the logits or of a layer's output.

    All values come from the full Jacobian. Method "gram" takes the eigenvalues σ² of J Jᵀ or JᵀJ, whichever is smaller, in
    float64; "svd" factorises J. The first is off by up to about √(2⁻⁵³) σ₁ = 1e-8 σ₁, in values near zero. The entries of
    a float32 Jacobian are rounded to 6e-8 of theirs, so that for it nothing is lost: "auto" is "gram" for float32 and "svd"
    for float64.

    The k largest come from Lanczos bidiagonalisation, which needs products J v and Jᵀu alone: for layers whose
    Jacobian is too large, or has so many rows that few of its values cost less.

    Args:
        model: from (N, …) to logits (N, K); run in evaluation mode.
        inputs: (N, …).
        layer: J is of the flat output of this module (a name among ``model.named_modules()``); None: of the logits.
        k: how many of the largest; None: all.
        vectors: right singular vectors too.
        method: of all values: "gram", "svd" or "auto".
        tolerance: of the k largest: stop when every residual is below this times σ₁, > 0. An error of a value is of
            the order of its residual squared.
        steps: of the k largest: at most of each run, >= k.
        batch_size: samples a pass, at most.
        seed: of the start of the k largest; sample i depends on (seed, i) alone.
        work: progress and resume.
        name: of the computation in ``work``, unique there.

    Returns:
        JacobianSpectrum, on the CPU. Where the steps end before the tolerance is met, its residuals say so.

    Raises:
        TypeError, ValueError: naming the argument; for k, a model that has neither forward-mode nor second derivatives.

    Cost: all: a forward and m backward passes, then O(N m D min(m, D)). k: a forward pass, then ``steps`` forward passes on
        dual numbers and ``steps`` backward passes; about 2 k + 10 where the values fall, and where k > 1 about as many again for a
        second look, which finds the copies of values that are equal, and once more for each copy.
    Source: seed 004, §5.2 and fig. 2 (left).
    """
    if method not in _METHODS:
        raise ValueError(f"method: expected one of {', '.join(_METHODS)}, got {method!r}")
    if k is None:
        check_inputs(inputs, ANY)
        gram = method == "gram" or (method == "auto" and inputs.dtype != torch.float64)

        def reduce(_: Tensor, jacobians: Tensor) -> dict[str, Tensor]:
            values, directions = singular_values(jacobians, gram, vectors)
            return {"values": values} if directions is None else {"values": values, "vectors": directions}

        found = map_jacobians(name, model, inputs, layer, reduce, batch_size, work)
    else:
        found = _largest(model, inputs, layer, k, vectors, tolerance, steps, batch_size, seed, work, name)
    directions = found["vectors"].unflatten(2, inputs.shape[1:]) if vectors else None
    most = 0 if k is None else int(found["steps"].max())
    return JacobianSpectrum(found["values"], directions, found.get("residuals"), most)


def singular_values(jacobians: Tensor, gram: bool, vectors: bool) -> tuple[Tensor, Tensor | None]:
    """Singular values (n, r), descending, and right singular vectors (n, r, D), of float64 (n, m, D)."""
    if not gram:
        if not vectors:
            return torch.linalg.svdvals(jacobians), None
        _, values, directions = torch.linalg.svd(jacobians, full_matrices=False)
        return values, directions
    wide = jacobians.shape[1] <= jacobians.shape[2]
    products = jacobians @ jacobians.mT if wide else jacobians.mT @ jacobians
    if not vectors:
        return torch.linalg.eigvalsh(products).flip(1).clamp_min(0).sqrt(), None
    squares, basis = torch.linalg.eigh(products)
    values, basis = squares.flip(1).clamp_min(0).sqrt(), basis.flip(2)
    # Jᵀu = σ v: QR normalises, and completes the basis where σ = 0; the largest come first and are changed least.
    return values, (torch.linalg.qr((basis.mT @ jacobians).mT)[0] if wide else basis).mT


def _largest(
    model: Model, inputs: Tensor, layer: str | None, k: int, vectors: bool, tolerance: float, steps: int,
    batch_size: int, seed: int, work: Work | None, name: str,
) -> dict[str, Tensor]:  # fmt: skip
    check_inputs(inputs, ANY)
    check_count(k=k, steps=steps, batch_size=batch_size)
    check_number("tolerance", tolerance, 0, above=True)
    function = layer_outputs(model, layer)
    with undisturbed(model):
        with torch.no_grad():
            width = function(inputs[:1]).shape[1]
        size = inputs[0].numel()
        if k > min(width, size, steps):
            raise ValueError(f"k: expected at most {min(width, size)} = min(m, D) and at most steps = {steps}, got {k}")

        def reduce(ids: Tensor) -> dict[str, Tensor]:
            triples = _triples(function, inputs[ids], k, tolerance, steps, seed, ids)
            right = triples.outer if width <= size else triples.inner
            found = {"values": triples.values, "residuals": triples.residuals}
            found["steps"] = torch.full_like(ids, triples.steps)
            return found | ({"vectors": right} if vectors else {})

        part = max(1, min(batch_size, CAP // ((width + size) * min(steps, width, size))))
        parts = torch.arange(len(inputs), device=inputs.device).split(part)
        return joined((work or Work()).map(name, parts, reduce))


def _triples(
    function: Model, points: Tensor, k: int, tolerance: float, steps: int, seed: int, ids: Tensor
) -> SingularTriples:
    """Of J, or of Jᵀ where that has fewer columns."""
    point = points.detach().requires_grad_()
    with torch.enable_grad():
        outputs = function(point)

    def forward(v: Tensor) -> Tensor:
        return push_forward(function, points, v.reshape(points.shape).to(points.dtype))

    def backward(u: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(outputs, point, u.to(outputs.dtype), retain_graph=True)
        return product.flatten(1)

    wide = outputs.shape[1] <= point[0].numel()
    start = ops.sample_lp_ball(outputs.detach() if wide else points.flatten(1), 2.0, seed=seed, sample_ids=ids)
    product, transposed = (backward, forward) if wide else (forward, backward)
    return largest_singular(product, transposed, start, k, tolerance, steps)
