"""Linear and piecewise-linear classifiers for the attack tests, with inputs whose nearest adversarial point is
known."""

from __future__ import annotations

import torch
from oracles import AllPieces, AnyPiece, Linear
from torch import Tensor

SHAPE = (3, 4, 4)
SIZE = 48
NORMS = ("linf", "l2", "l1", "l0")
# How far, relative and absolute, a point found in float32 may be nearer than the nearest. Logits of 48 terms are off by up
# to 49·2⁻²⁴·Σ|w·x| < 6e-5 each, mostly by a tenth of that, over a boundary's slope, the dual norm of w_i − w_j: about 50 in linf, 10 in
# l2, 3 in l1.
ROUNDING = 1e-5


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(count: int = 24, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform in a box well inside [0, 1], so that a small perturbation meets no bound."""
    return (0.4 + 0.2 * torch.rand(count, *SHAPE, generator=generator(seed), dtype=torch.float64)).to(dtype)


def linear(classes: int, seed: int = 1, reach: float = 0.3, dtype: torch.dtype = torch.float32) -> Linear:
    """A linear classifier with its boundaries through the middle of the inputs' box; a larger ``reach`` moves them to
    the bounds."""
    weight = torch.randn(classes, SIZE, generator=generator(seed), dtype=torch.float64)
    bias = -(weight * 0.5).sum(1) + reach * torch.randn(classes, generator=generator(seed + 1), dtype=torch.float64)
    return Linear(weight.to(dtype), bias.to(dtype)).requires_grad_(False)


def two_sided(binding: bool) -> tuple[Linear, Tensor, Tensor]:
    """Two classes; with ``binding`` the inputs lie at the bounds, so that half of the useful directions are shut."""
    model = linear(2, reach=0.2)
    x = inputs()
    if binding:
        x = (torch.rand(x.shape, generator=generator(5)) < 0.5).float() * 0.96 + 0.02
        x[:, :, ::2] = x[:, :, ::2].round()
        model.bias[0] = model.bias[0] + 1.0
    with torch.no_grad():
        labels = model(x).argmax(1)
    return model, x, labels


def union() -> tuple[AnyPiece, Tensor]:
    """Class 1 is a union of half-spaces; all inputs are of class 0."""
    weight = torch.randn(4, SIZE, generator=generator(7))
    x = inputs(seed=8)
    bias = -(x.flatten(1) @ weight.T).amin(0) + torch.tensor([0.5, 0.7, 0.9, 1.1])
    return AnyPiece(weight, bias).requires_grad_(False), x


def intersection() -> tuple[AllPieces, Tensor]:
    """Class 1 needs three pieces on disjoint pixels to give way together; all inputs are of class 0."""
    weight = torch.zeros(3, 3, 16)
    values = torch.randn(3, 16, generator=generator(9)).abs() + 0.2
    for piece in range(3):
        weight[piece, :, 5 * piece : 5 * piece + 5] = values[:, 5 * piece : 5 * piece + 5]
    weight = weight.reshape(3, SIZE)
    x = inputs(seed=10)
    bias = -(x.flatten(1) @ weight.T).amin(0) + 0.3
    return AllPieces(weight, bias).requires_grad_(False), x
