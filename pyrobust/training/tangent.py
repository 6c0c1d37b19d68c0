"""Invariance along the manifold on which the data lie."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyrobust.attacks._common import check_count
from pyrobust.training._derivatives import jacobian_rows, pull_back, tracked_logits
from pyrobust.training._losses import summed_cross_entropy, wide
from pyrobust.training.contractive import check_tangents
from pyrobust.training.term import Batch, Term


class Tangent(Term):
    """Σ_t ‖J t‖₂² of the logits (eq. 4), or ‖Π ∇ₓCE‖₂ of the loss (eq. 13), over tangents t at x.

    Π projects onto the span of the tangents, which are orthonormal: r ‖Π ∇ₓCE‖₂ is how much the loss grows, to first order,
    along the manifold within distance r.

    Args:
        tangents: (n, T, …), those of every training sample, by its id: T unit vectors shaped like an input, orthonormal for
            "loss" (:func:`local_pca_tangents`); they fit inputs that are not augmented. Or a function from inputs (N, …) to
            (N, T, …), such as :meth:`ContractiveAutoencoder.tangents` with its count fixed.
        of: "logits" or "loss".

    Raises:
        ValueError: naming the argument.

    Cost: K backward passes ("logits") or one ("loss"), differentiated once more; besides the clean forward pass. The
        buffer ``tangents`` holds n · T · D values.
    Source: seed 002, eq. 4 and 13; Rifai et al. 2011, "The manifold tangent classifier".
    """

    needs_input_grad = True
    tangents: Tensor | None

    def __init__(self, tangents: Tensor | Callable[[Tensor], Tensor], of: str = "logits") -> None:
        super().__init__()
        if of not in ("logits", "loss"):
            raise ValueError(f'of: expected "logits" or "loss", got {of!r}')
        self.of = of
        self.register_buffer("tangents", tangents if isinstance(tangents, Tensor) else None)
        self.find: Callable[[Tensor], Tensor] | None = None if isinstance(tangents, Tensor) else tangents

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = tracked_logits(model, batch)
        tangents = self._tangents(batch).flatten(2)
        if self.of == "loss":
            slopes = _along(tangents, pull_back(summed_cross_entropy(logits, batch.labels), batch))
            return torch.linalg.vector_norm(slopes, dim=1).mean()
        return torch.stack([_along(tangents, row).square().sum() for row in jacobian_rows(logits, batch)]).sum() / len(
            logits
        )

    def _tangents(self, batch: Batch) -> Tensor:
        if self.tangents is not None:
            found = self.tangents.index_select(0, batch.sample_ids)
        else:
            assert self.find is not None
            with torch.no_grad():
                found = self.find(batch.inputs.detach())
        shape = batch.inputs.shape
        if found.ndim != len(shape) + 1 or (len(found), *found.shape[2:]) != tuple(shape):
            expected = ", ".join(map(str, (shape[0], "T", *shape[1:])))
            raise ValueError(f"tangents: expected ({expected}) for these inputs, got {tuple(found.shape)}")
        return wide(found.to(batch.inputs.dtype))


def _along(tangents: Tensor, grad: Tensor) -> Tensor:
    """⟨t, grad⟩ for each tangent, (N, T)."""
    return (tangents * grad.flatten(1).unsqueeze(1)).sum(2)  # as a matrix product, autocast would round it


@torch.no_grad()
def local_pca_tangents(inputs: Tensor, count: int, neighbours: int = 20, chunk: int = 256) -> Tensor:
    """(n, count, …): the principal directions of each sample's nearest neighbours (l2), orthonormal, widest first.

    Args:
        inputs: (n, …).
        count: of tangents a sample, at most min(neighbours, D).
        neighbours: besides the sample itself, in 1 … n − 1.
        chunk: samples at a time: memory is chunk · max(n, (neighbours + 1) · D) values, and the result's.

    Raises:
        ValueError: naming the argument.

    Source: seed 002, eq. 4 and 13, for the tangents that they take as given.
    """
    check_count(neighbours=neighbours, chunk=chunk)
    flat = inputs.flatten(1)
    if neighbours >= len(flat):
        raise ValueError(f"neighbours: expected fewer than the {len(flat)} samples, got {neighbours}")
    check_tangents(count, min(neighbours, flat.shape[1]))
    found = []
    for part in flat.split(chunk):
        nearest = torch.cdist(part, flat).topk(neighbours + 1, largest=False).indices
        patch = flat[nearest]
        found.append(torch.linalg.svd(patch - patch.mean(1, keepdim=True), full_matrices=False).Vh[:, :count])
    return torch.cat(found).reshape(len(inputs), count, *inputs.shape[1:])
