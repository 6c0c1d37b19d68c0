"""How far perturbations point along the singular vectors of the Jacobian, by their rank."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyrobust._checks import Model, check_inputs
from pyrobust.analysis.jacobian import ANY, map_jacobians
from pyrobust.analysis.spectrum import singular_values
from pyrobust.analysis.work import Work

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Alignment:
    """What :func:`alignment` found at N samples, in float64.

    Attributes:
        cosines: (N, r) |⟨δ, v_i⟩| / ‖δ‖₂ of the perturbation δ and the right singular vector v_i, by rank i; NaN where
            δ = 0.
        values: (N, r) singular values.
        dimension: D, of the inputs.
    """

    cosines: Tensor
    values: Tensor
    dimension: int

    @property
    def shares(self) -> Tensor:
        """(N, r) cos², the share of ‖δ‖₂² along v_i; the rest, 1 − their sum, moves no output to first order."""
        return self.cosines.square()

    @property
    def expected_cosine(self) -> float:
        """E|cos| of a direction uniform on the sphere: Γ(D/2) / (√π Γ((D + 1)/2)) ≈ √(2 / (π D))."""
        half = self.dimension / 2
        return math.exp(math.lgamma(half) - math.lgamma(half + 0.5)) / math.sqrt(math.pi)

    @property
    def expected_share(self) -> float:
        """E cos² of a direction uniform on the sphere: 1/D."""
        return 1 / self.dimension

    def plot(self) -> Figure:
        """Mean |cos| by rank with its standard error, beside that of random directions."""
        from pyrobust.analysis._draw_spectrum import draw_alignments

        return draw_alignments({"": self})


def alignment(
    model: Model,
    inputs: Tensor,
    perturbed: Tensor,
    layer: str | None = None,
    *,
    batch_size: int = 128,
    work: Work | None = None,
    name: str = "alignment",
) -> Alignment:
    """|cos| of δ = perturbed − inputs with each right singular vector of J(x), J of the logits or of a layer's output.

    To compare with a random network, give :func:`reinitialised` as the model, with the same perturbations.

    Args:
        model: from (N, …) to logits (N, K); run in evaluation mode.
        inputs: x, (N, …).
        perturbed: like ``inputs``, of any attack. A sample that an attack left as it was has no direction.
        layer: J is of the flat output of this module (a name among ``model.named_modules()``); None: of the logits.
        batch_size: samples a pass, at most.
        work: progress and resume.
        name: of the computation in ``work``, unique there.

    Returns:
        Alignment, on the CPU. Along singular vectors whose values are equal, or zero, single cosines mean nothing; their
        sum of squares does.

    Raises:
        TypeError, ValueError: naming the argument; no sample was perturbed.

    Cost: a forward and m backward passes, and an eigendecomposition or SVD of J, as :func:`jacobian_spectrum`.
    Source: seed 004, §5.2 and fig. 2 (right).
    """
    check_inputs(inputs, ANY)
    same = isinstance(perturbed, Tensor) and perturbed.shape == inputs.shape
    if not same or (perturbed.dtype, perturbed.device) != (inputs.dtype, inputs.device):
        raise ValueError("perturbed: expected a tensor of the shape, dtype and device of inputs")
    moves = (perturbed - inputs).detach().flatten(1).double()
    lengths = torch.linalg.vector_norm(moves, dim=1, keepdim=True)
    if not bool(lengths.isfinite().all()) or not bool(lengths.any()):
        raise ValueError("perturbed: expected finite values, and at least one sample that differs from its input")
    directions = moves / lengths  # NaN where nothing moved

    def reduce(ids: Tensor, jacobians: Tensor) -> dict[str, Tensor]:
        values, vectors = singular_values(jacobians, inputs.dtype != torch.float64, True)
        assert vectors is not None
        return {"cosines": (vectors @ directions[ids].unsqueeze(2)).squeeze(2).abs(), "values": values}

    found = map_jacobians(name, model, inputs, layer, reduce, batch_size, work)
    return Alignment(found["cosines"], found["values"], inputs[0].numel())


def reinitialised(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy with fresh random weights, drawn as its layers draw them when they are built; in evaluation mode.

    Raises:
        ValueError: a module has parameters of its own, and no ``reset_parameters``.
    """
    fresh = copy.deepcopy(model).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in fresh.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                raise ValueError(f"model: {name or 'the model'} ({type(module).__name__}) has no reset_parameters")
    first = next(model.parameters(), None)
    return fresh.to(first.device if first is not None else "cpu").eval()
