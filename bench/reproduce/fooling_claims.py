"""What was measured for figures 8, 9 and 13 of seed 000, and what the paper says of it."""

from __future__ import annotations

from dataclasses import dataclass

from bench.reproduce._common import Claim
from bench.reproduce.weight_decay_networks import CNN, CNN_L2, CNN_NAT, CNN_NAT_L2, WRN
from pyrobust.analysis import FoolingCurve, Recognised

EPS = (0, 4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 224, 255)  # grey levels of 255
PAPER_CONFIDENCE = {CNN: (32, 63), CNN_L2: (41, 81)}  # lowest and highest of the fooling images, in %
PAPER_STEPS = 250 * (50_000 // 128)
STRICT = 0.5  # the threshold of Goodfellow 2015
UNTRAINED = "untrained"


@dataclass(frozen=True)
class Curves:
    """Of one network: ASR and margin of a single step over `EPS`, and the ASR at eps 16/255 with the threshold `STRICT`."""

    free: FoolingCurve
    strict: float


@dataclass(frozen=True)
class Kernels:
    """The roughness of the first layer's filters; how many filters each convolution has, and how many have vanished."""

    roughness: float
    filters: list[int]
    vanished: list[int]


def judge(
    seen: dict[str, Recognised], found: dict[str, Curves], kernels: dict[str, Kernels], steps: int
) -> list[Claim]:  # fmt: skip
    """What §6.1 and §6.4 say of the networks that there are, trained for so many steps."""
    trained = f"after {steps:,} of the paper's {PAPER_STEPS:,} steps"
    with_decay, without = found[CNN_L2].free, found[CNN].free
    peak = int(with_decay.success.argmax())
    strict = found[CNN_L2].strict
    beyond = with_decay.success[peak:]
    lowest, highest = (float(getattr(with_decay.margin, end)()) for end in ("min", "max"))
    stated = [
        Claim(
            f"figure 8: fooling images of {CNN_L2} are classified with more confidence than those of {CNN}",
            bool(seen[CNN_L2].confidence.mean() > seen[CNN].confidence.mean()),
            f"mean {100 * seen[CNN_L2].confidence.mean():.0f} % against {100 * seen[CNN].confidence.mean():.0f} %",
            f"{trained} adversarial training has made {CNN} less sure than {CNN_NAT}, mean {_mean(seen[CNN])} against "
            f"{_mean(seen[CNN_NAT])}, but not as unsure as the paper's, whose highest is {PAPER_CONFIDENCE[CNN][1]} %",
        ),
        Claim(
            f"figure 9: the ASR of {CNN_L2} peaks at eps around 20/255, then falls",
            10 <= EPS[peak] <= 40 and bool((beyond.diff() <= 0.01).all()),
            f"peak {100 * with_decay.success[peak]:.0f} % at {EPS[peak]}/255; {100 * with_decay.success[-1]:.0f} % at 255/255",
        ),
        Claim(
            f"figure 9: the margin of {CNN_L2} remains small, slightly increasing",
            highest < 0.3 and bool(with_decay.margin[-1] > with_decay.margin[0]),
            f"between {lowest:.2f} and {highest:.2f}; {with_decay.margin[0]:.2f} at 0, {with_decay.margin[-1]:.2f} at 255/255; "
            f"of {CNN} up to {without.margin.max():.2f}",
            f"{trained} it is {with_decay.margin[peak]:.2f} where the ASR peaks, at {EPS[peak]}/255, and grows beyond, as it does "
            f"without decay (to {without.margin[-1]:.2f}); without PGD it grows to {found[CNN_NAT_L2].free.margin[-1]:.2f} with "
            f"decay and {found[CNN_NAT].free.margin[-1]:.2f} without",
        ),
        Claim(
            f"§6.1: with the threshold 0.5 the ASR of {CNN_L2} is 0 % at eps 16/255",
            strict < 0.005,
            f"{100 * strict:.1f} %",
        ),
        Claim(
            f"figure 13: filters of {CNN_L2} are smoother than those of {CNN}",
            kernels[CNN_L2].roughness < kernels[CNN].roughness,
            f"roughness {kernels[CNN_L2].roughness:.2f} against {kernels[CNN].roughness:.2f}",
            f"{trained} both are still near the noise that they began as, which has {kernels[UNTRAINED].roughness:.2f}",
        ),
        Claim(
            f"figure 13: some filters of {CNN_L2} vanish, those of {CNN} do not",
            kernels[CNN_L2].vanished[0] > 0 and kernels[CNN].vanished[0] == 0,
            f"{kernels[CNN_L2].vanished[0]} and {kernels[CNN].vanished[0]} of {kernels[CNN].filters[0]}; in all convolutions "
            f"{sum(kernels[CNN_L2].vanished)} and {sum(kernels[CNN].vanished)} of {sum(kernels[CNN].filters)}",
            f"{trained} decay has removed {gone(kernels[CNN_L2])} of the three convolutions' filters, and without it "
            f"{gone(kernels[CNN])} are gone",
        ),
    ]
    if WRN in found:
        wide = found[WRN].free
        stated.append(
            Claim(
                f"§6.1: {WRN} is more than twice as confident as {CNN_L2} for all eps",
                bool((wide.margin > 2 * with_decay.margin).all()),
                f"smallest ratio of margins {(wide.margin / with_decay.margin).min():.2f}",
            )
        )
    return stated


def _mean(one: Recognised) -> str:
    return f"{100 * one.confidence.mean():.0f} %"


def gone(one: Kernels) -> str:
    """How many filters of each convolution have vanished."""
    return ", ".join(f"{gone} of {all_}" for gone, all_ in zip(one.vanished, one.filters, strict=True))
