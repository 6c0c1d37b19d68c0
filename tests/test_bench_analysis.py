"""The benchmark of the analyses runs at a tiny size, and its peers compute what it does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import analysis_peers
from pyrobust.analysis import jacobian_spectrum
from tests.test_bench import positive, run
from tests.training.pieces import batch_of, relu_net


def test_analysis(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    content = run(tmp_path, "analysis", "--rounds", "1")
    peers = {"pyrobust", *analysis_peers.SPECTRA}
    assert {row["by"] for row in content["spectra"] if row["what"] == "all of the logits"} == peers
    for row in content["spectra"]:
        assert positive(row["per_s"], row["over_ours"]), row
        # float32, on networks whose values do not differ by more than that; the largest few to 1e-4 of the first.
        assert row["error"] < 1e-4, row
    assert {row["sweep"] for row in content["sweeps"]} == {"hinge", "softplus"}
    for row in content["sweeps"]:
        assert positive(row["seconds"], row["over_ours"]), row
    assert max(row["excess"] for row in content["sweeps"]) < 1e-3, "times are compared at equal accuracy"


@pytest.mark.parametrize("peer", analysis_peers.SPECTRA.values(), ids=analysis_peers.SPECTRA)
def test_peers_compute_the_same(peer) -> None:
    model, x = relu_net(), batch_of(3).inputs
    torch.testing.assert_close(peer(model, x), jacobian_spectrum(model, x).values, rtol=0, atol=1e-14)
