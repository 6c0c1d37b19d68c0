"""What is evaluated: the samples in memory, and the hashes that tell one model or data set from another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from pyrobust._checks import Bounds, check_count, check_inputs, check_labels
from pyrobust._checks import Model as Model
from pyrobust.data import Data, load

DataLike = str | Path | Data | tuple[Any, Any] | Dataset[Any] | DataLoader[Any]


@dataclass(frozen=True)
class Samples:
    """Inputs (N, …) and labels (N,) on the CPU, with the name that reports use."""

    name: str
    inputs: Tensor
    labels: Tensor


def gather(data: DataLike, samples: int | None, bounds: Bounds) -> Samples:
    """Bring the first ``samples`` samples (None: all) into memory.

    Args:
        data: the name or path of a data set (see `pyrobust.data.load`; its test part is used), a `Data`, a pair
            (inputs, labels) of tensors or arrays, a map-style Dataset of such pairs, or a DataLoader in fixed order.
        samples: at least 1, or None.
        bounds: that the inputs must lie in.

    Raises:
        TypeError: ``data`` is none of these.
        ValueError: there are fewer samples than asked for, the loader shuffles, or the values are not as they should.
    """
    if samples is not None:
        check_count(samples=samples)
    name, inputs, labels = _read(data, samples)
    if inputs.ndim > 0 and samples is not None:
        if len(inputs) < samples:
            raise ValueError(f"samples: {samples} asked for, but {name} has {len(inputs)}")
        inputs, labels = inputs[:samples], labels[:samples]
    check_inputs(inputs, bounds)
    check_labels(labels, inputs)
    return Samples(name, inputs, labels)


def _read(data: DataLike, samples: int | None) -> tuple[str, Tensor, Tensor]:
    if isinstance(data, (str, Path)):
        data = load(data)
    if isinstance(data, Data):
        return data.name, *data.test
    if isinstance(data, (tuple, list)):
        if len(data) != 2:
            raise TypeError(f"data: expected a pair (inputs, labels), got {len(data)} items")
        return "tensors", _tensor(data[0]), _labels(data[1])
    if isinstance(data, DataLoader):
        if isinstance(data.sampler, RandomSampler):
            raise ValueError("data: the DataLoader shuffles; samples are known by their index, so pass shuffle=False")
        return _name(data.dataset), *_collect(((x, y) for x, y in data), samples, torch.cat)
    if isinstance(data, Dataset) and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        count = len(data) if samples is None else min(samples, len(data))
        pairs = ((torch.as_tensor(x), torch.as_tensor(y)) for x, y in (data[i] for i in range(count)))
        return _name(data), *_collect(pairs, None, torch.stack)
    raise TypeError(
        f"data: expected a name, a path, (inputs, labels), a Dataset or a DataLoader, got {type(data).__name__}"
    )


def _collect(
    pairs: Iterable[tuple[Tensor, Tensor]], samples: int | None, join: Callable[[list[Tensor]], Tensor]
) -> tuple[Tensor, Tensor]:
    inputs: list[Tensor] = []
    labels: list[Tensor] = []
    for x, y in pairs:
        inputs.append(_tensor(x))
        labels.append(_labels(y))
        if samples is not None and sum(map(len, labels)) >= samples:
            break
    if not inputs:
        raise ValueError("data: there are no samples")
    return join(inputs), join(labels)


def _tensor(values: object) -> Tensor:
    if not isinstance(values, (Tensor, np.ndarray)):
        raise TypeError(f"data: expected tensors or arrays, got {type(values).__name__}")
    return torch.as_tensor(values).detach().cpu()


def _labels(values: object) -> Tensor:
    """As int64; what is not whole numbers would be cut off unseen."""
    labels = _tensor(values)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels: expected an integer dtype, got {labels.dtype}")
    return labels.long()


def _name(dataset: object) -> str:
    return type(dataset).__name__


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_model(model: Model) -> str:
    """A hash of a module's structure and weights; of the name alone for any other callable, whose state is hidden."""
    if not isinstance(model, nn.Module):
        return hashlib.sha256(f"{getattr(model, '__module__', '?')}:{model_name(model)}".encode()).hexdigest()
    tensors = hash_tensors((k, v) for k, v in sorted(model.state_dict().items()) if isinstance(v, Tensor))
    return hashlib.sha256(f"{model}|{tensors}".encode()).hexdigest()


def model_name(model: Model) -> str:
    """The name of a function, or of a module's class."""
    return str(getattr(model, "__qualname__", type(model).__name__))


def device_of(model: Model, device: str | torch.device | None) -> torch.device:
    """Where the evaluation runs: ``device``, or where the model's parameters are, or the CPU.

    Raises:
        ValueError: the device is not available, or the model's parameters are elsewhere. Nothing is moved for the
            caller.
    """
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    homes = {t.device for t in tensors}
    if device is None:
        return tensors[0].device if tensors else torch.device("cpu")
    try:
        chosen = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: {device} cannot be used: {str(error).splitlines()[0]}") from error
    if homes - {chosen}:
        raise ValueError(f"device: the model is on {', '.join(map(str, homes))}; move it to {chosen} first")
    return chosen
