"""Random swaps of pixels: a weak attack without gradients that leaves the histogram of the image as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import Callback, Model, check_call, clean_logits, undisturbed
from pyrobust.attacks._judge import judged_as_it_is
from pyrobust.attacks._queries import uniform
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial


@judged_as_it_is
def pixel_swap(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l0",
    share: float = 0.1,
    steps: int = 1,
    restarts: int = 1,
    grouping: str = "value",
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """Step k of a restart exchanges the first ⌊k / steps · share · P / 2⌋ of the disjoint pairs that a random order of
    the P places pairs up.

    With steps = 1, the share of fooled samples over ``share`` is the curve of seed 000, figure 11. More steps find the
    fewest swaps along the way.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2. No gradient is taken.
        inputs: (N, C, …): swaps stay within a channel, 1-D samples are one channel.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l0" (or 0).
        share: of the places that take part in a swap at the last step, in (0, 1].
        steps: numbers of swaps that are tried, evenly spaced.
        restarts: other random orders; of all, the fewest changes count.
        grouping: "value": each channel has its own order, as in the seed; "pixel": whole pixels are swapped (for
            (N, C, H, W)).
        targeted: a swap has to give the class ``labels``.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the orders, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(step, SearchState) after each forward pass; the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the adversarial point with the fewest values (pixels) changed; the input itself
        where there was none, or where it is misclassified already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: restarts · steps + 1 forward passes.
    Source: seed 000, §6.3.1.
    """
    norm_name(norm, ("l0",))
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, restarts, sample_ids, seed)
    if not 0 < share <= 1:
        raise ValueError(f"share: expected a share in (0, 1], got {share!r}")
    if grouping not in ("pixel", "value") or (grouping == "pixel" and inputs.ndim != 4):
        raise ValueError(
            f'grouping: expected "value", or "pixel" for inputs (N, C, H, W); got {grouping!r} for {tuple(inputs.shape)}'
        )
    count = len(inputs)
    channels = inputs.shape[1] if inputs.ndim > 2 else 1
    planes = inputs.reshape(count, channels, -1)
    places = planes.shape[2]
    orders = channels if grouping == "value" else 1
    with undisturbed(model, eval_mode), torch.no_grad():
        nearest = Nearest(inputs, is_adversarial(clean_logits(model, inputs, labels), labels, targeted))
        for restart in range(restarts):
            draws = uniform(sample_ids, orders * places, seed, restart).reshape(count, orders, places)
            order = draws.argsort(dim=2, stable=True)
            rank = order.argsort(dim=2)
            partner = order.gather(2, (rank ^ 1).clamp_(max=places - 1)).expand_as(planes)
            swapped = planes.gather(2, partner)
            for step in range(1, steps + 1):
                pairs = int(step * share * places / (2 * steps) + 1e-9)  # 0.29 · 200 / 2 is 28.999… in binary
                adv = torch.where(rank < 2 * pairs, swapped, planes).reshape(inputs.shape)
                adversarial = is_adversarial(model(adv), labels, targeted)
                nearest.offer(adv, ops.lp_norm(adv - inputs, "l0", grouping), adversarial)
                state = SearchState(adv, adversarial, nearest.adv, nearest.distance)
                if callback is not None and callback(step - 1, state):
                    return nearest.adv
    return nearest.adv


pixel_swap.norms = ("l0",)  # type: ignore[attr-defined]  # read by the evaluation before it calls
