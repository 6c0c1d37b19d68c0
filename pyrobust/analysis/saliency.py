"""Saliency: the part of an input that a logit answers to, by backpropagation and its two variants for rectifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyrobust._checks import check_inputs, check_labels, check_logits
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import Model, check_count, undisturbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("gradient", "deconvolution", "guided")
_EVERYWHERE = (-torch.inf, torch.inf)
_IN_PLACE = (torch.relu_, torch.Tensor.relu_)
_RECTIFIERS = (torch.nn.functional.relu, torch.relu, torch.Tensor.relu, *_IN_PLACE)


@dataclass(frozen=True)
class Saliency:
    """What :func:`saliency` found, on the CPU.

    Attributes:
        inputs: (N, …), as given.
        classes: int64 (N,): whose logit was propagated back.
        maps: (N, …) like ``inputs`` for each method: what arrived at the input, with its sign.
    """

    inputs: Tensor
    classes: Tensor
    maps: dict[str, Tensor]

    def heat(self, method: str) -> Tensor:
        """max over dimension 1 (channels) of |map|: (N, H, W) of images (Simonyan et al. 2014, §3.1)."""
        return self.maps[method].abs().amax(1)

    def plot(self) -> Figure:
        """A row a sample: the image, and its map by each method; every map has a scale of its own.

        Raises:
            ValueError: the inputs are not images (N, C, H, W) with 1 or 3 channels.
        """
        from pyrobust.analysis._draw_pictures import draw_saliency

        return draw_saliency(self)


def saliency(
    model: Model,
    inputs: Tensor,
    labels: Tensor | None = None,
    *,
    methods: Sequence[str] = METHODS,
    batch_size: int = 128,
    work: Work | None = None,
) -> Saliency:
    """∂z_y / ∂x, where the error δ passes a rectifier h ↦ max(h, 0) as

    * gradient: (h > 0) · δ;
    * deconvolution: (δ > 0) · δ;
    * guided: (h > 0) · (δ > 0) · δ.

    All other layers are differentiated as they are: a max pool passes on to the place of the maximum, as the switches of a
    deconvolutional network do. Rectifiers are the calls of torch's relu, whether by an nn.ReLU or by the function, in place or
    not; the model is not touched. Others (ReLU6, GELU, …) keep their derivative.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2; run in evaluation mode.
        inputs: (N, …).
        labels: int64 (N,): the class whose logit is propagated back; None: the one predicted.
        methods: of "gradient", "deconvolution", "guided".
        batch_size: samples a pass.
        work: progress and resume.

    Returns:
        Saliency.

    Raises:
        TypeError, ValueError: naming the argument; for the latter two methods also a model that calls no relu (one that is
            scripted, or whose activations are others).

    Cost: one forward pass, and one backward pass a method.
    Source: seed 003, §2.2.5, eq. 2.10–2.12; Simonyan et al. 2014, §3; Zeiler and Fergus 2014; Springenberg et al. 2015, §3.4.
    """
    check_inputs(inputs, _EVERYWHERE)
    if labels is not None:
        check_labels(labels, inputs)
    check_count(batch_size=batch_size)
    methods = tuple(dict.fromkeys(methods))
    if not methods or not set(methods) <= set(METHODS):
        raise ValueError(f"methods: expected some of {', '.join(METHODS)}, got {methods!r}")
    model = getattr(model, "_orig_mod", model)  # what torch.compile makes of it keeps its own backward pass

    def compute(ids: Tensor) -> dict[str, Tensor]:
        rule = _Rule()
        point = inputs[ids].detach().requires_grad_()
        with rule, torch.enable_grad():
            logits = model(point)
        classes = check_logits(logits, len(ids))
        if rule.met == 0 and set(methods) != {"gradient"}:
            raise ValueError(
                "model: expected calls of torch's relu, which deconvolution and guided backpropagation change"
            )
        if labels is not None:
            check_labels(labels, inputs, classes)
        chosen = logits.argmax(1) if labels is None else labels[ids]
        seeds = torch.nn.functional.one_hot(chosen, classes).to(logits.dtype)
        maps = {}
        for method in methods:
            rule.method = method
            (maps[method],) = torch.autograd.grad(logits, point, seeds, retain_graph=method != methods[-1])
        return {"classes": chosen, **maps}

    with undisturbed(model):
        parts = torch.arange(len(inputs), device=inputs.device).split(batch_size)
        found = joined((work or Work()).map("saliency", parts, compute))
    return Saliency(inputs.detach().cpu(), found.pop("classes"), found)


class _Rule(TorchFunctionMode):
    """While active, calls of relu are computed by `_Rectifier`, whose backward pass follows ``method`` as it is then."""

    def __init__(self) -> None:
        super().__init__()
        self.method, self.met = "gradient", 0

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _RECTIFIERS:
            return func(*args, **kwargs)
        self.met += 1
        given = dict(zip(("input", "inplace"), args, strict=False)) | kwargs
        return _Rectifier.apply(given["input"], self, func in _IN_PLACE or given.get("inplace", False))


class _Rectifier(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, rule: _Rule, in_place: bool) -> Tensor:
        if in_place:
            ctx.mark_dirty(h)
        out = torch.relu_(h) if in_place else torch.relu(h)
        ctx.rule = rule
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (delta,), (out,) = grads, ctx.saved_tensors
        if ctx.rule.method != "gradient":
            delta = delta.clamp(min=0)
        return delta if ctx.rule.method == "deconvolution" else delta * (out > 0), None, None
