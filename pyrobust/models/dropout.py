"""Dropout for networks that are defined without."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from pyrobust.attacks._common import check_positive


def with_dropout(model: nn.Module, share: float = 0.5) -> nn.Sequential:
    """The same layers, with dropout after the ReLU of every hidden dense layer.

    The dropout joins the ReLU under its name, so weights are saved and loaded as those of ``model``.

    Args:
        model: a `torch.nn.Sequential`; its layers are shared with the result.
        share: of the units that are set to 0 in training mode, in (0, 1).

    Raises:
        ValueError: ``share``; a model without a ReLU right after a dense layer.

    Source: Srivastava et al. 2014; a baseline of seed 003, table 3.1.
    """
    check_positive(share=share, below=1)
    layers: Iterable[nn.Module] = model if isinstance(model, nn.Sequential) else ()
    result, before, found = nn.Sequential(), None, False
    for layer in layers:
        hidden = isinstance(layer, nn.ReLU) and isinstance(before, nn.Linear)
        result.append(nn.Sequential(layer, nn.Dropout(share)) if hidden else layer)
        before, found = layer, found or hidden
    if not found:
        raise ValueError("dropout: expected a torch.nn.Sequential with a ReLU right after a dense layer")
    return result
