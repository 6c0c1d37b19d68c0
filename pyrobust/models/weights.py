"""Weight files: safetensors, or torch's own format read with ``weights_only=True``. Nothing is unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from pyrobust._files import write_atomically


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Load the weights of ``path`` into ``model``, every tensor by name and shape, and return the model.

    ``*.safetensors`` is read as such; any other file by ``torch.load(weights_only=True)``, as a state dict or a
    dict that holds one under ``"state_dict"`` or ``"model_state_dict"``.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the file is safetensors, and the package is not installed.
        ValueError: the file is not a weight file, or does not fit the model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights: no such file: {path}")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    shapes = [k for k in sorted(expected.keys() & state.keys()) if expected[k].shape != state[k].shape]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(problems.values()):
        told = "; ".join(f"{kind}: {', '.join(names[:5])}" for kind, names in problems.items() if names)
        raise ValueError(f"weights: {path} does not fit the model ({told})")
    model.load_state_dict(state)
    return model


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the model's state dict as safetensors: whole, or not at all if the process dies meanwhile."""
    from safetensors.torch import save

    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    write_atomically(Path(path), lambda file: file.write(content))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError("weights: safetensors files need: pip install 'pyrobust[report]'") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"weights: {path} is not a safetensors file: {error}") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"weights: {path} cannot be read as plain tensors (weights_only=True); save model.state_dict() instead"
        ) from error
    for key in ("state_dict", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights: {path} does not hold a state dict of tensors")
    return state
