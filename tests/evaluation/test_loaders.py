from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pyrobust.data import digits, load


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


LABELS = np.array([0, 1, 2], dtype=np.uint8)


def test_digits_split_into_parts_that_share_nothing() -> None:
    data = digits()
    assert data.train is not None
    (train, train_labels), (test, test_labels) = data.train, data.test
    assert train.shape == (1198, 1, 8, 8)
    assert test.shape == (599, 1, 8, 8)
    assert (train.min(), train.max()) == (0, 1)
    assert len(train_labels) == 1198
    assert torch.bincount(test_labels, minlength=10).min() > 40
    assert all(torch.equal(a, b) for a, b in zip(digits().test, data.test, strict=True))


def test_two_classes_are_kept_and_relabelled() -> None:
    whole, pair = load("digits"), load("digits:7,3")
    assert pair.name == "digits:7,3"
    for (inputs, labels), (x, y) in ((whole.train, pair.train), (whole.test, pair.test)):
        assert torch.equal(x[y == 0], inputs[labels == 7])
        assert torch.equal(x[y == 1], inputs[labels == 3])
        assert len(y) == int(((labels == 7) | (labels == 3)).sum())
        assert y.dtype == torch.int64
    for wrong in ("digits:3,3", "digits:3,12"):
        with pytest.raises(ValueError, match="expected two of those in digits"):
            load(wrong)


def test_bytes_are_scaled_and_grey_images_get_a_channel(tmp_path: Path) -> None:
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2) * 23
    data = load(save(tmp_path / "d.npz", x_test=images, y_test=LABELS, x_train=images, y_train=LABELS))
    assert data.name == "d"
    assert data.test[0].shape == (3, 1, 2, 2)
    assert data.test[0].dtype == torch.float32
    assert torch.equal(data.test[0].flatten(), torch.from_numpy(images).flatten().float() / 255)
    assert data.test[1].tolist() == [0, 1, 2]
    assert data.test[1].dtype == torch.int64
    assert data.train is not None


def test_colour_images_are_read_in_either_layout(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 5, 4), dtype=np.uint8)
    first = load(save(tmp_path / "a.npz", x=images, y=LABELS)).test[0]
    last = load(save(tmp_path / "b.npz", x=images.transpose(0, 2, 3, 1), y=LABELS[:, None])).test[0]
    assert first.shape == (3, 3, 5, 4)
    assert torch.equal(first, last)


def test_floats_and_features_are_taken_as_they_are(tmp_path: Path) -> None:
    features = np.random.default_rng(0).random((3, 7))
    data = load(save(tmp_path / "d.npz", x=features, y=LABELS))
    assert data.train is None
    assert torch.equal(data.test[0], torch.from_numpy(features).float())


def test_names_are_looked_up_under_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "my-set_1.npz", x=np.zeros((3, 4)), y=LABELS)
    monkeypatch.setenv("PYROBUST_DATA", str(tmp_path))
    assert load("my-set_1").name == "my-set_1"
    with pytest.raises(FileNotFoundError, match=r"other\.npz"):
        load("other")
    monkeypatch.delenv("PYROBUST_DATA")
    with pytest.raises(FileNotFoundError, match="PYROBUST_DATA"):
        load("my-set_1")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3)}, "it has a"),
        ({"x": np.zeros((3, 4)), "y": LABELS[:2]}, "3 inputs in x but 2 labels"),
        ({"x": np.zeros((3, 4)) + 2, "y": LABELS}, r"lie in \[0, 1\]"),
        ({"x": np.full((3, 4), np.nan), "y": LABELS}, r"lie in \[0, 1\]"),
        ({"x": np.zeros((3, 4), dtype=np.int32), "y": LABELS}, "expected uint8 or a floating"),
        ({"x": np.zeros(3), "y": LABELS}, "got shape"),
        ({"x": np.zeros((0, 4)), "y": LABELS[:0]}, "got shape"),
        ({"x": np.zeros((3, 4)), "y": np.zeros(3)}, "expected integers"),
        ({"x": np.zeros((3, 4)), "y": np.array([0, -1, 2])}, "0 or larger"),
        ({"x": np.array([{}, {}, {}], dtype=object), "y": LABELS}, "plain arrays"),
    ],
)
def test_unfit_files_are_told(tmp_path: Path, arrays: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(save(tmp_path / "d.npz", **arrays))


def test_files_that_are_no_archives_are_told(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path / "one.npy")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "missing.npz")
