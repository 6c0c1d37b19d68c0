"""Transfer: adversarial points made on a substitute, of which those that fool the model count."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds
from pyrobust.attacks._common import Callback, Model, check_call, check_positive, clean_logits, undisturbed
from pyrobust.attacks._judge import judged_as_it_is
from pyrobust.attacks._polish import bisect_to_boundary
from pyrobust.attacks._search import Nearest, is_adversarial


@judged_as_it_is
def transfer(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    substitute: Model,
    attack: Callable[..., Tensor],
    stretch: float = 1.0,
    search_steps: int = 0,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """attack(substitute, inputs, labels) where the model is fooled by it, the input elsewhere.

    The model is asked for predictions alone. Points at the very boundary of the substitute seldom fool another model:
    attacks within a budget (:func:`pyrobust.attacks.pgd`) transfer better than those that minimise a norm, unless these
    perturbations are prolonged, and then shortened to the model's own boundary.

    Args:
        model: the model under attack, from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels (of the model under attack, where they are not known), or targets where
            ``targeted``.
        substitute: the model that the points are made on; like ``model``, with the same classes.
        attack: a function of this package, an adapter's (:mod:`pyrobust.adapters`), or any with such a signature; its own
            arguments are bound beforehand, as in functools.partial(pgd, eps=8 / 255). Of those below it gets by name
            what its signature has.
        stretch: > 0: what the perturbation is multiplied with, and clipped to ``bounds``, before the model is asked.
        search_steps: >= 0: bisections along what fools the model, back towards the input.
        targeted: reach the class ``labels``; passed on only where True, for attacks that have such a form.
        bounds: (low, high) of the inputs.
        seed, sample_ids: passed on.
        callback: passed on; it sees the attack on the substitute, which must take one then.
        eval_mode: run both models in evaluation mode; False leaves their modes, and restores their buffers afterwards.

    Returns:
        Like ``inputs``: the points that fool the model and lie in ``bounds``; the input itself elsewhere, and where it
        is misclassified already.

    Raises:
        TypeError, ValueError: naming the argument, or from ``attack``.

    Cost: 2 + search_steps forward passes of the model; that of the attack for the substitute.
    Source: Papernot et al. 2017, §4; seed 003, §2.4.3.
    """
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, 1, 1, sample_ids, seed)
    for name, value in (("substitute", substitute), ("attack", attack)):
        if not callable(value):
            raise ValueError(f"{name}: expected a callable, got {value!r}")
    check_positive(stretch=stretch)
    if isinstance(search_steps, bool) or not isinstance(search_steps, int) or search_steps < 0:
        raise ValueError(f"search_steps: expected an integer >= 0, got {search_steps!r}")
    taken = inspect.signature(attack).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    offered = {"bounds": bounds, "seed": seed, "sample_ids": sample_ids, "eval_mode": eval_mode}
    options: dict[str, Any] = {name: value for name, value in offered.items() if takes_any or name in taken}
    for name, asked in (("targeted", targeted or None), ("callback", callback)):
        if asked is not None:
            if not takes_any and name not in taken:
                raise ValueError(f"{name}: {getattr(attack, '__name__', attack)!s} takes none")
            options[name] = asked
    with undisturbed(model, eval_mode):
        already = is_adversarial(clean_logits(model, inputs, labels), labels, targeted)
        adv = attack(substitute, inputs, labels, **options)
        if not isinstance(adv, Tensor) or adv.shape != inputs.shape or adv.dtype != inputs.dtype:
            got = f"{tuple(adv.shape)} of {adv.dtype}" if isinstance(adv, Tensor) else type(adv).__name__
            raise ValueError(f"attack: expected a result like inputs, got {got}")
        if stretch != 1:
            wide = torch.promote_types(inputs.dtype, torch.float32)
            adv = torch.lerp(inputs.to(wide), adv.to(wide), stretch).clamp(*bounds).to(inputs.dtype)
        inside = ((adv >= bounds[0]) & (adv <= bounds[1])).flatten(1).all(1)
        with torch.no_grad():
            fooled = is_adversarial(model(adv), labels, targeted) & inside & ~already
            nearest = Nearest(inputs, already)
            nearest.offer(adv, ops.lp_norm(adv - inputs, 2), fooled)
            bisect_to_boundary(model, inputs, labels, nearest, "l2", search_steps, targeted)
    return nearest.adv


transfer.norms = ("l0", "l1", "l2", "linf")  # type: ignore[attr-defined]  # the attack's own
