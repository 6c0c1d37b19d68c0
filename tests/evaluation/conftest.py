"""What the tests of the evaluation share: small models and a few real images."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from pyrobust.data import digits
from pyrobust.models import fit, small_cnn


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Batches here are tiny, and threads that wait for each other would be most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits_model() -> nn.Module:
    """A network that is right on most digits, after few epochs."""
    train = digits().train
    assert train is not None
    return fit(small_cnn(), *train, epochs=4)


@pytest.fixture(scope="session")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Forty test digits with their labels."""
    inputs, labels = digits().test
    return inputs[:40], labels[:40]


class Halves(nn.Module):
    """Two classes in the unit box: logits (s − mean, 0) so that class 0 is mean ≤ s; nearest points are known.

    A sample of mean m is at linf distance |m − s| from the boundary while the box does not bind.
    """

    def __init__(self, split: float = 0.5) -> None:
        super().__init__()
        self.split = nn.Parameter(torch.tensor(split))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        scores = self.split - inputs.flatten(1).mean(dim=1)
        return torch.stack([scores, torch.zeros_like(scores)], dim=1)


@pytest.fixture
def halves() -> Halves:
    """The two-class model whose distances are known."""
    return Halves().eval()


@pytest.fixture
def points() -> tuple[torch.Tensor, torch.Tensor]:
    """Ten constant samples (1, 4, 4) of means 0.05 … 0.95, the last mislabelled."""
    means = torch.arange(10) / 10 + 0.05
    labels = (means > 0.5).long()
    labels[-1] = 0
    return means.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone(), labels
