"""The weights of a network: their root mean square layer by layer, and a random selection of filters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pyrobust._checks import check_inputs
from pyrobust.analysis.local import layer_weights
from pyrobust.attacks._common import check_count, undisturbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURED = (1, 3)  # input channels that a filter is one picture of


@dataclass(frozen=True)
class LayerFilters:
    """One layer's weights.

    Attributes:
        name: of the module.
        shape: of its weights.
        rms: √(mean of the squared weights), biases left out.
        kernels: (n, C, h, w): the filters chosen, whole (C = 1 or 3, the channels of an image) or of one input channel each
            (C = 1); None where the layer has no kernel larger than 1 × 1.
        chosen: (output, input) of each kernel; the input is −1 where the filter is whole.
    """

    name: str
    shape: tuple[int, ...]
    rms: float
    kernels: Tensor | None
    chosen: list[tuple[int, int]]


@dataclass(frozen=True)
class Filters:
    """The layers in the order in which the network holds them."""

    layers: tuple[LayerFilters, ...]

    def plot(self) -> Figure:
        """A block of kernels a layer: grey is 0, and black to white is one scale for all kernels of the layer.

        Raises:
            ValueError: no layer has kernels to draw.
        """
        from pyrobust.analysis._draw_pictures import draw_filters

        return draw_filters(self)


def filters(model: nn.Module, inputs: Tensor, *, count: int = 32, seed: int = 0) -> Filters:
    """Of every layer with weights, √(mean w²) and ``count`` filters at random.

    A dense layer that reads a flattened image or maps has filters of their size: which ones these are is seen on a pass of one
    input. Filters that read an image of 1 or 3 channels are shown whole, others one input channel at a time.

    Args:
        model: the network; run in evaluation mode.
        inputs: (N, …): the first one is passed through.
        count: filters a layer, at most.
        seed: of the choice.

    Raises:
        TypeError, ValueError: naming the argument; a model without weights of two or more dimensions.

    Cost: one forward pass of one input.
    Source: seed 001, "Example: LeNet on MNIST"; seed 000, fig. 13.
    """
    check_inputs(inputs, (-torch.inf, torch.inf))
    check_count(count=count)
    generator = torch.Generator().manual_seed(seed)
    layers = []
    with undisturbed(
        model
    ):  # also to read the weights: in training mode that moves the buffers of spectral normalisation
        weighted = layer_weights(model)
        if not weighted:
            raise ValueError("model: expected layers with weights of two or more dimensions")
        read = _maps_read(model, inputs[:1])
        for name, _, shape, rms in weighted:
            module = model.get_submodule(name)
            kernels = _kernels(module, read.get(module))
            chosen: list[tuple[int, int]] = []
            if kernels is not None:
                whole, sources = kernels.shape[1] in COLOURED, kernels.shape[1]
                pictures = kernels if whole else kernels.flatten(0, 1).unsqueeze(1)
                picked = torch.randperm(len(pictures), generator=generator)[:count].sort().values
                kernels = pictures[picked].clone()
                chosen = [(i, -1) if whole else divmod(i, sources) for i in picked.tolist()]
            layers.append(LayerFilters(name, shape, rms, kernels, chosen))
    return Filters(tuple(layers))


def _kernels(module: nn.Module, maps: tuple[int, ...] | None) -> Tensor | None:
    """(outputs, inputs, h, w) on the CPU, or None where there is nothing to draw."""
    assert isinstance(module.weight, Tensor)
    weight = module.weight.detach().cpu()
    if isinstance(module, nn.Conv2d):
        kernels = weight
    elif weight.ndim == 2 and maps is not None and weight.shape[1] == torch.Size(maps).numel():
        kernels = weight.reshape(len(weight), *maps)
    else:
        return None
    return kernels if kernels.shape[2] * kernels.shape[3] > 1 else None


def _maps_read(model: nn.Module, example: Tensor) -> dict[nn.Module, tuple[int, ...]]:
    """By module, the shape (C, H, W) of the last maps that were seen before it was called."""
    read: dict[nn.Module, tuple[int, ...]] = {}
    last: list[tuple[int, ...]] = [tuple(example.shape[1:])] if example.ndim == 4 else []

    def before(module: nn.Module, args: Any) -> None:
        if last:
            read[module] = last[-1]

    def after(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            last.append(tuple(output.shape[1:]))

    handles = []
    try:
        for module in model.modules():
            handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return read
