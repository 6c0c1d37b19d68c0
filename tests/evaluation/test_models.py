from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from pyrobust.data import digits
from pyrobust.models import accuracy, cifar_cnn, digits_cnn, fit, load_weights, mnist_cnn, save_weights, small_cnn


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("factory", "shape"), [(small_cnn, (1, 8, 8)), (mnist_cnn, (1, 28, 28)), (cifar_cnn, (3, 32, 32))]
)
def test_factories_depend_on_their_seed_alone(factory, shape: tuple) -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    model = factory()
    assert torch.equal(torch.rand(2), expected)
    assert model(torch.rand(2, *shape)).shape == (2, 10)
    assert same(model, factory(0))
    assert not same(model, factory(1))


def test_training_is_repeatable_and_learns() -> None:
    data = digits()
    assert data.train is not None
    told = []
    model = fit(small_cnn(), *data.train, epochs=6, progress=lambda done, of: told.append((done, of)))
    assert told == [(k, 6) for k in range(1, 7)]
    assert not model.training
    assert accuracy(model, *data.test) > 0.85
    assert all(p.grad is None for p in model.parameters())
    assert same(model, fit(small_cnn(), *data.train, epochs=6))
    assert not same(model, fit(small_cnn(), *data.train, epochs=6, seed=1))


def test_the_digits_network_is_good() -> None:
    assert accuracy(digits_cnn(), *digits().test) > 0.96


@pytest.mark.parametrize("arguments", [{"epochs": 0}, {"batch_size": 0}])
def test_training_needs_something_to_do(arguments: dict) -> None:
    with pytest.raises(ValueError, match="fit: needs"):
        fit(small_cnn(), torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64), **arguments)


def test_weights_go_through_files(tmp_path: Path) -> None:
    model = small_cnn(3)
    save_weights(model, tmp_path / "w.safetensors")
    torch.save(model.state_dict(), tmp_path / "w.pt")
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, tmp_path / "nested.pt")
    for name in ("w.safetensors", "w.pt", "nested.pt"):
        assert same(load_weights(small_cnn(), tmp_path / name), model)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nested.pt", "w.pt", "w.safetensors"]


class Evil:
    """Runs code when unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("owned"),))


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Evil()}, "evil.pt")
    Path("evil.pkl").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name in ("evil.pt", "evil.pkl"):
        with pytest.raises(ValueError, match="plain tensors"):
            load_weights(small_cnn(), name)
    assert not Path("owned").exists()


def test_unfit_weights_are_told(tmp_path: Path) -> None:
    save_weights(mnist_cnn(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"does not fit the model \(.*of another shape: 0\.bias"):
        load_weights(small_cnn(), tmp_path / "w.safetensors")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="state dict"):
        load_weights(small_cnn(), tmp_path / "list.pt")
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_weights(small_cnn(), tmp_path / "bad.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_weights(small_cnn(), tmp_path / "missing.pt")
