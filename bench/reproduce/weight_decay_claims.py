"""What seed 000, §6, claims of its networks, checked against what was measured."""

from __future__ import annotations

from bench.reproduce._common import Claim
from bench.reproduce._samples import Mask, gap, percent
from bench.reproduce.weight_decay_attacks import EPS, FAR, SHARES, Measured
from bench.reproduce.weight_decay_networks import CNN, CNN_L2, CNN_NAT, WRN, WRN_NAT

CROSSES = {WRN: 0.11, WRN_NAT: 0.05}  # shares of pixels beyond which CNN-L2 is above, figure 11


def judge(found: dict[str, Measured]) -> list[Claim]:
    """The claims about the networks that there are; where one does not hold, the numbers tell why as far as measured."""
    with_decay, without = found[CNN_L2], found[CNN]
    undefended = WRN_NAT if WRN_NAT in found else CNN_NAT
    unneeded = no_overfitting(
        with_decay.fitted, float(with_decay.clean.mean()), without.fitted, float(without.clean.mean())
    )
    low = {eps: gap(with_decay.pgd[EPS.index(eps)], without.pgd[EPS.index(eps)]) for eps in EPS if eps < 16}
    high = {eps: gap(with_decay.pgd[EPS.index(eps)], without.pgd[EPS.index(eps)]) for eps in EPS if 16 < eps <= 64}
    swaps = {
        share: gap(_mean(a), _mean(b)) for share, a, b in zip(SHARES, with_decay.swapped, without.swapped, strict=True)
    }
    at = EPS.index(8)
    safer = gap(with_decay.pgd[at], found[undefended].pgd[at])
    stated = [
        Claim(
            f"§6.4: under PGD with eps below 16/255 {CNN_L2} is above {CNN} (by 3 to 6 points, at most 6.8)",
            all(mean > 0 for mean, _ in low.values()),
            _ends(low, "{}/255"),
            unneeded,
        ),
        Claim(
            f"§6.4: beyond eps 16/255 {CNN} is above {CNN_L2} (both low)",
            all(mean < 0 for mean, _ in high.values()),
            _ends(high, "{}/255"),
            both_low([float(one.pgd[EPS.index(eps)].mean()) for one in (with_decay, without) for eps in high]),
        ),
        Claim(
            f"§6.4, figure 11: weight decay helps against swapped pixels, at every share ({CNN_L2} above {CNN})",
            all(mean > 0 for mean, _ in swaps.values()),
            _ends(swaps, "{:.0%}"),
            unneeded,
        ),
        Claim(
            f"figure 10: {CNN_L2} fails less abruptly than an undefended network, {undefended}, under PGD",
            safer[0] > 0,
            f"at eps 8/255 {percent(with_decay.pgd[at])} against {percent(found[undefended].pgd[at])}",
        ),
    ]
    return stated + (_against_wide(found) if WRN in found else [])


def no_overfitting(fitted: float, clean: float, plain_fitted: float, plain_clean: float) -> str:
    """Why decay does not help: from the shares of the training and of the test images that are right, with it and without."""
    return (
        f"decay has little to prevent yet: {CNN} gets {percent(plain_fitted)} of the training and {percent(plain_clean)} of the "
        f"test images right, {CNN_L2} {percent(fitted)} and {percent(clean)}; the paper trains 250 epochs on 50,000 images"
    )


def both_low(accuracies: list[float]) -> str:
    """Why the order of two networks is not to be told, from their accuracies."""
    return f"both are at {percent(max(accuracies))} or less there, where a few images decide"


def _against_wide(found: dict[str, Measured]) -> list[Claim]:
    small, wide = found[CNN_L2], found[WRN]
    beyond = {eps: gap(small.pgd[EPS.index(eps)], wide.pgd[EPS.index(eps)]) for eps in EPS if 40 < eps < 128}
    reaching = {eps: gap(a, b) for eps, a, b in zip(FAR, small.reaching, wide.reaching, strict=True) if eps in beyond}
    lost = {
        name: max(100 * (float(fast.mean()) - float(slow.mean())) for fast, slow in zip(one.fgsm, one.pgd, strict=True))
        for name, one in ((CNN_L2, small), (WRN, wide))
    }
    pairs = list(zip(small.saliency, wide.saliency, strict=True))
    stated = [
        Claim(
            f"figure 10: {CNN_L2} overtakes {WRN} under PGD for eps > 40/255",
            all(mean > 0 for mean, _ in beyond.values()),
            f"{_ends(beyond, '{}/255')}; under PGD whose steps are long enough to cross the ball {_ends(reaching, '{}/255')}",
        ),
        Claim(
            f"§6.2: steps after the first gain an attacker less against {CNN_L2} than against {WRN}",
            lost[CNN_L2] < lost[WRN],
            f"largest loss from FGSM to PGD: {lost[CNN_L2]:.1f} and {lost[WRN]:.1f} points",
        ),
        Claim(
            f"table 2: JSMA succeeds less often on {CNN_L2} than on {WRN}, for every γ",
            all(a.success < b.success for a, b in pairs),
            ", ".join(f"{percent(a.success)} against {percent(b.success)}" for a, b in pairs),
        ),
    ]
    for name, share in CROSSES.items():
        gaps = {
            s: gap(_mean(a), _mean(b))
            for s, a, b in zip(SHARES, small.swapped, found[name].swapped, strict=True)
            if share < s < 1
        }
        stated.append(
            Claim(
                f"figure 11: {CNN_L2} is above {name} beyond {share:.0%} of the pixels",
                all(mean > 0 for mean, _ in gaps.values()),
                _ends(gaps, "{:.0%}"),
            )
        )
    return stated


def _mean(runs: Mask) -> Mask:
    """Over the runs (runs, N), so that the error is that of the samples."""
    return runs.mean(0)


def _ends(gaps: dict[float, tuple[float, float]], form: str) -> str:
    """The smallest and the largest difference, and where."""
    least, most = min(gaps, key=lambda at: gaps[at][0]), max(gaps, key=lambda at: gaps[at][0])
    return "from {:+.2f} ± {:.2f} points at {} to {:+.2f} ± {:.2f} at {}".format(
        *gaps[least], form.format(least), *gaps[most], form.format(most)
    )
