"""sample_lp_ball: the generator by its published definition, the distribution exactly, and the keys."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyrobust.ops import sample_lp_ball

INF = math.inf
NORMS = (1, 2, INF)


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 as Salmon et al. 2011 define it."""
    mask = 2**32 - 1
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [(b >> 32) ^ counter[1] ^ key[0], b & mask, (a >> 32) ^ counter[3] ^ key[1], a & mask]
        key = [(key[0] + 0x9E3779B9) & mask, (key[1] + 0xBB67AE85) & mask]
    return counter


def test_the_oracle_is_philox():
    """Known answers of the Random123 distribution."""
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0]
    assert philox(*pi) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_numbers_are_those_of_philox(device):
    seed, step = 0x123456789ABCDEF0 >> 1, 0xFEDCBA98
    ids = torch.tensor([0, 1, 2**31 + 5, 2**40 + 7, -3], device=device)
    got32 = sample_lp_ball(torch.empty(5, 9, device=device), INF, seed=seed, step=step, sample_ids=ids)
    got64 = sample_lp_ball(
        torch.empty(5, 9, dtype=torch.float64, device=device), INF, seed=seed, step=step, sample_ids=ids
    )
    for row, sample in enumerate(ids.tolist()):
        sample %= 2**64
        for i in range(9):
            w = philox([i, step, sample & 0xFFFFFFFF, sample >> 32], [seed & 0xFFFFFFFF, seed >> 32])
            assert got32[row, i].item() == 2 * ((w[0] >> 8) + 1) * 2.0**-24 - 1
            assert got64[row, i].item() == 2 * (((w[0] << 21) | (w[1] >> 11)) + 1) * 2.0**-53 - 1


def kolmogorov(values: Tensor) -> float:
    """√n times the largest distance of the empirical distribution from uniform on (0, 1)."""
    ordered = values.double().sort().values
    n = len(ordered)
    place = torch.arange(n + 1, dtype=torch.float64) / n
    return max((place[1:] - ordered).max().item(), (ordered - place[:-1]).max().item()) * n**0.5


BAR = 1.95  # of Kolmogorov's distribution: passed by 99.9 % of true samples; the seed is fixed
N = 20000


def marginal(t: Tensor, p: float) -> Tensor:
    """The distribution function of one coordinate of a uniform point of the three-dimensional unit ball."""
    if p == INF:
        return (t + 1) / 2
    if p == 2:
        return 0.5 + 0.75 * t - 0.25 * t**3  # density ¾ (1 − t²)
    return 0.5 + 0.5 * t.sign() * (1 - (1 - t.abs()) ** 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("p", NORMS)
def test_uniform_in_the_ball(p, dtype, device):
    for d in (1, 3, 20):
        v = sample_lp_ball(torch.empty(N, d, dtype=dtype, device=device), p, 2.5, seed=1).cpu().double() / 2.5
        size = torch.linalg.vector_norm(v, p, dim=1)
        assert size.max() <= 1 + 1e-6
        assert kolmogorov(size**d) < BAR, "the volume inside the radius is uniform"
        variance = {1: 2 / ((d + 1) * (d + 2)), 2: 1 / (d + 2), INF: 1 / 3}[p]
        noise = 5 / N**0.5  # five standard errors
        assert v.mean(0).abs().max() < noise * variance**0.5
        covariance = v.T @ v / N / variance - torch.eye(d, dtype=torch.float64)
        assert covariance.fill_diagonal_(0).abs().max() < noise
        assert (v.square().mean(0) / variance - 1).abs().max() < 3 * noise  # kurtosis up to 10
        signs = (v > 0).double()
        assert (signs.mean(0) - 0.5).abs().max() < noise / 2
        if d == 3:
            for c in range(3):
                assert kolmogorov(marginal(v[:, c], p)) < BAR, "each coordinate"
            order = v.abs().argsort(1)
            assert (torch.bincount(order[:, 0], minlength=3) / N - 1 / 3).abs().max() < noise / 2


@pytest.mark.parametrize("p", NORMS)
def test_high_dimensional_samples_fill_the_shell(p):
    """‖v‖^D is uniform even where almost all volume is at the surface; float32 knows ‖v‖ to (a + 8) u only, so D u must stay small."""
    d = 3072
    v = sample_lp_ball(torch.empty(1500, d, dtype=torch.float64), p, seed=9)
    assert kolmogorov(torch.linalg.vector_norm(v, p, dim=1) ** d) < BAR


@pytest.mark.parametrize("p", NORMS)
def test_a_row_depends_on_its_key_alone(p, device):
    like = torch.empty(6, 3, 50, device=device)
    ids = torch.tensor([4, 0, 17, 2**35, 3, 5], device=device)
    whole = sample_lp_ball(like, p, 0.3, seed=11, sample_ids=ids, step=2)
    assert whole.shape == like.shape
    for row in range(6):
        alone = sample_lp_ball(like[:1], p, 0.3, seed=11, sample_ids=ids[row : row + 1], step=2)
        assert torch.equal(alone[0], whole[row])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(whole, sample_lp_ball(like.flip(0), p, 0.3, seed=11, sample_ids=ids, step=2))
    assert torch.equal(state, torch.get_rng_state()), "torch's generator is not used"
    first = sample_lp_ball(like, p, 0.3, seed=11, step=2)
    assert torch.equal(first[4], whole[0]), "ids default to 0 … N − 1"
    flat = [whole]
    for changed in (
        {"seed": 12},
        {"seed": 11 + 2**32},
        {"step": 3},
        {"sample_ids": ids + 100},
        {"sample_ids": ids + 2**33},
    ):
        arguments = {"seed": 11, "sample_ids": ids, "step": 2} | changed
        flat.append(sample_lp_ball(like, p, 0.3, **arguments))
    together = torch.stack(flat).reshape(-1, 150)
    together = together / together.norm(dim=1, keepdim=True)
    correlation = (together @ together.T).fill_diagonal_(0)
    assert correlation.abs().max() < 0.6, (
        "36 rows, no two alike (0.08 is one standard deviation for p = 2, less even for sparse l1)"
    )


@pytest.mark.parametrize("p", NORMS)
def test_sixteen_bit_samples_are_rounded_float32_samples(p, device):
    wide = sample_lp_ball(torch.empty(5, 200, device=device), p, 2.0, seed=3)
    for dtype in (torch.float16, torch.bfloat16):
        samples = sample_lp_ball(torch.empty(5, 200, dtype=dtype, device=device), p, 2.0, seed=3)
        if device.type == "cpu" or p == math.inf:
            assert torch.equal(samples, wide.to(dtype))
        else:  # a thread adds packs of another size, so the row's norm may round the other way, and then a sample
            torch.testing.assert_close(samples, wide.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)


def test_radii_a_row_and_zero(device):
    like = torch.empty(3, 40, device=device)
    radii = torch.tensor([0.0, 1.0, 4.0], device=device)
    for p in NORMS:
        one, many = sample_lp_ball(like, p), sample_lp_ball(like, p, radii)
        assert not many[0].any()
        assert torch.equal(many[1], one[1])
        assert torch.equal(many[2], 4 * one[2])
        norms = torch.linalg.vector_norm(many, p, dim=1)
        assert (norms <= radii * (1 + 1e-6)).all()
