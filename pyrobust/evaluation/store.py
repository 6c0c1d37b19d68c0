"""The run folder: a manifest that says what was asked for, and one file for every finished micro-batch.

A file appears whole or not at all: it is written beside its place, flushed to the disk, then renamed. So a run may
die at any moment, and the next one finds every finished micro-batch and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pyrobust._files import is_temporary, remove_leftovers, write_atomically

MANIFEST = "run.json"
RESULTS = "results.parquet"
FORMAT = 2
# A run resumed under another of these would mix results that differ in their last bits.
COMPARED_ENVIRONMENT = ("pyrobust", "torch", "device", "threads")


class RunError(RuntimeError):
    """A run folder cannot be used as asked; the message says why and what to do."""


class Store:
    """Finished micro-batches of one run, in a folder."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Use `Store.open`."""
        self.folder, self.manifest = folder, manifest

    @classmethod
    def open(cls, folder: str | Path, manifest: dict[str, Any], resume: bool) -> Store:
        """Start a run in an empty or new folder, or go on with the one in it.

        Args:
            folder: made if it does not exist.
            manifest: ``settings`` and ``environment`` of the run that is asked for, as plain JSON data.
            resume: go on with the run in the folder; where it holds none, start one.

        Raises:
            RunError: the folder holds other files and ``resume`` is off, or it holds a run with other settings,
                model, data or environment.
        """
        folder = Path(folder)
        check_folder(folder, resume)
        if (folder / MANIFEST).exists():
            # The first start's manifest is kept, with its time and command.
            kept = read_manifest(folder)
            differences = _differences(kept, manifest)
            if differences:
                raise RunError(f"{folder} cannot be resumed, it was started differently: {'; '.join(differences)}")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            kept = complete(manifest)
            write_json(folder / MANIFEST, kept)
        remove_leftovers(folder)
        return cls(folder, kept)

    def read(self, task: int, batch: int) -> pa.Table | None:
        """The rows of a finished micro-batch, or None.

        Raises:
            RunError: the file is there but cannot be read.
        """
        path = self._path(task, batch)
        if not path.exists():
            return None
        try:
            return pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise RunError(f"{path} is damaged ({error}); delete it and resume") from error

    def write(self, task: int, batch: int, rows: pa.Table) -> None:
        """Keep the rows of a micro-batch that has just been finished."""
        path = self._path(task, batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, rows)

    def _path(self, task: int, batch: int) -> Path:
        return self.folder / "batches" / f"{task:03d}" / f"{batch:06d}.parquet"


def check_folder(folder: Path, resume: bool) -> None:
    """Raise RunError where a run cannot start in ``folder`` because something else is there."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is not a folder")
    if not folder.is_dir() or (resume and (folder / MANIFEST).exists()):
        return
    names = {path.name for path in folder.iterdir()}
    if not resume and names:
        raise RunError(f"{folder} is not empty: choose another folder, or resume the run in it (--resume)")
    foreign = sorted(name for name in names if not is_temporary(name))
    if foreign:
        raise RunError(f"{folder} holds no run to resume, but other files: {', '.join(foreign[:3])}")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the run in ``folder``.

    Raises:
        RunError: there is none, or a version of the format that this package does not know.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{folder} holds no run: {MANIFEST} is missing") from error
    except ValueError as error:
        raise RunError(f"{folder / MANIFEST} is damaged: {error}") from error
    if manifest.get("format") != FORMAT:
        raise RunError(f"{folder} is in format {manifest.get('format')!r}; this version reads format {FORMAT}")
    return manifest


def read_results(folder: Path) -> pa.Table:
    """The per-sample results of a finished run; RunError where it has not finished."""
    path = folder / RESULTS
    if not path.exists():
        raise RunError(f"{folder} has no {RESULTS}: the run has not finished; resume it")
    return pq.read_table(path)


def complete(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest as it is kept, with the version of the format and its fingerprint."""
    return {"format": FORMAT, "fingerprint": fingerprint(manifest), **manifest}


def fingerprint(manifest: dict[str, Any]) -> str:
    """SHA-256 of everything that the bits of the results depend on."""
    relevant = {
        "settings": manifest["settings"],
        "environment": {k: manifest["environment"].get(k) for k in COMPARED_ENVIRONMENT},
    }
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def write_table(path: Path, rows: pa.Table) -> None:
    """Write a Parquet file atomically; equal tables give equal bytes."""
    write_atomically(path, lambda file: pq.write_table(rows, file, compression="zstd"))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write indented JSON atomically. JSON has no infinity, so content must not either."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    if old.get("fingerprint") == fingerprint(new):
        return []
    parts = []
    settings = sorted({*old["settings"], *new["settings"]})
    for section, keys in (("settings", settings), ("environment", COMPARED_ENVIRONMENT)):
        for key in keys:
            before, now = old[section].get(key), new[section].get(key)
            if before != now:
                parts.append(f"{key} was {_short(before)}, is {_short(now)}")
    return parts or ["its fingerprint does not match its settings"]


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"
