"""Random numbers that follow from a key: the order of the samples, and what the model draws itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from torch import Tensor

ORDER, SPLIT, DRAWS = range(3)  # the first number of a key says what it is for


def keyed_seed(*key: int) -> int:
    """A seed of 63 bits that follows from the integers; other keys give unrelated ones."""
    return int.from_bytes(blake2b(repr(key).encode(), digest_size=8).digest(), "little") >> 1


def shuffled(ids: Tensor, *key: int) -> Tensor:
    """``ids`` (N,) in an order that follows from the key."""
    return ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(keyed_seed(*key)))]


@contextmanager
def torch_random_state(device: torch.device) -> Iterator[None]:
    """Put torch's global random state back at the end."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def seed_torch(device: torch.device, *key: int) -> None:
    """Set torch's global random state, on the CPU and on ``device``, so that dropout draws by the key."""
    seed = keyed_seed(*key)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
