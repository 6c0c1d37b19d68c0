from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from pyrobust.evaluation.store import MANIFEST, RunError, Store, read_manifest, read_results, write_atomically

MANIFEST_OF_RUN = {
    "settings": {"steps": 5, "tasks": []},
    "environment": {"pyrobust": "1", "torch": "2", "device": "cpu", "threads": 1, "python": "3"},
}


def changed(section: str, **values: object) -> dict:
    return {**MANIFEST_OF_RUN, section: {**MANIFEST_OF_RUN[section], **values}}


def test_what_is_written_is_read_back_and_nothing_else(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "run", MANIFEST_OF_RUN, resume=False)
    rows = pa.table({"x": [1.5, float("inf")]})
    store.write(2, 0, rows)
    again = Store.open(tmp_path / "run", MANIFEST_OF_RUN, resume=True)
    assert again.read(2, 0).equals(rows)
    assert again.read(2, 1) is None
    assert again.read(1, 0) is None


def test_a_folder_in_use_needs_resume(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        Store.open(tmp_path, MANIFEST_OF_RUN, resume=False)
    with pytest.raises(RunError, match=r"no run to resume.*notes\.txt"):
        Store.open(tmp_path, MANIFEST_OF_RUN, resume=True)
    with pytest.raises(RunError, match="not a folder"):
        Store.open(tmp_path / "notes.txt", MANIFEST_OF_RUN, resume=False)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (changed("settings", steps=6), "steps was 5, is 6"),
        (changed("settings", model_sha256="other"), "model_sha256 was null"),
        (changed("environment", torch="3"), 'torch was "2", is "3"'),
        (changed("environment", threads=2), "threads was 1, is 2"),
    ],
)
def test_resume_refuses_another_run(tmp_path: Path, manifest: dict, message: str) -> None:
    Store.open(tmp_path, MANIFEST_OF_RUN, resume=False)
    with pytest.raises(RunError, match=message):
        Store.open(tmp_path, manifest, resume=True)


def test_resume_keeps_the_first_manifest_and_ignores_what_results_do_not_depend_on(tmp_path: Path) -> None:
    Store.open(tmp_path, {**MANIFEST_OF_RUN, "started": "then"}, resume=False)
    other = {**changed("environment", python="3.99"), "started": "now"}
    assert Store.open(tmp_path, other, resume=True).manifest["started"] == "then"


def test_temporary_files_of_a_killed_run_are_cleared_and_never_read(tmp_path: Path) -> None:
    Store.open(tmp_path, MANIFEST_OF_RUN, resume=False)
    leftover = tmp_path / "batches" / "001" / ".000000.parquet.99.tmp"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half a fi")
    store = Store.open(tmp_path, MANIFEST_OF_RUN, resume=True)
    assert not leftover.exists()
    assert store.read(1, 0) is None


def test_a_killed_start_can_be_resumed(tmp_path: Path) -> None:
    (tmp_path / f".{MANIFEST}.99.tmp").write_bytes(b"{")
    Store.open(tmp_path, MANIFEST_OF_RUN, resume=True)
    assert read_manifest(tmp_path)["settings"]["steps"] == 5


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, half)
    assert path.read_bytes() == b"old"


def test_damage_is_told(tmp_path: Path) -> None:
    store = Store.open(tmp_path, MANIFEST_OF_RUN, resume=False)
    store.write(0, 0, pa.table({"x": [1]}))
    (tmp_path / "batches" / "000" / "000000.parquet").write_bytes(b"not parquet")
    with pytest.raises(RunError, match="damaged"):
        store.read(0, 0)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(RunError, match="damaged"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({"format": 99}))
    with pytest.raises(RunError, match="format 99"):
        read_manifest(tmp_path)


def test_folders_without_a_finished_run_are_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        read_manifest(tmp_path)
    with pytest.raises(RunError, match="has not finished"):
        read_results(tmp_path)
