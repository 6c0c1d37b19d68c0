"""``python -m bench.sanitize``: every op once on a GPU, at small and awkward sizes, for compute-sanitizer to watch.

Whether the results are right is for the tests to say; here they only have to be finite. The first error ends the run, since a
GPU that has met one may take no further work.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from bench.cases import SIGMA, cases

# Rows of a warp, of a block, of just the shared memory that is had without asking, of a cluster, and of none.
SHAPES = ((1, 1, 1, 1), (3, 1, 1, 129), (2, 3, 32, 32), (1, 3, 64, 64), (1, 3, 224, 224), (1, 3, 400, 400))
DTYPES = (torch.float32, torch.bfloat16)


def main(device: str = "cuda") -> int:
    torch.manual_seed(0)
    ran, bad = 0, []
    for shape in SHAPES:
        for dtype in DTYPES:
            for case in cases():
                if case.name == "attack_seed" and shape[1:] == (1, 1, 1):
                    continue  # needs two classes
                x = (torch.randn(shape, device=device) * SIGMA).to(dtype)
                ran += 1
                try:
                    finite = [bool(t.isfinite().all()) for t in _tensors(case.build(x).run()) if t.numel() == x.numel()]
                except RuntimeError as error:
                    print(f"{case.name} {shape} {dtype}: {error}")
                    return 1
                if not all(finite):
                    bad.append(f"{case.name} {shape} {dtype}")
    print(f"{ran} calls on {device}, not finite: {', '.join(bad) or 'none'}")
    return int(bool(bad))


def _tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    if hasattr(result, "adv"):
        return [result.adv]
    return [part for part in result if isinstance(part, Tensor)]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
