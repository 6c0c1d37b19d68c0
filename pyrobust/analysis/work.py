"""Long computations in parts: progress while they run, and nothing computed twice when they are resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyrobust._files import remove_leftovers, write_atomically
from pyrobust._progress import Progress

PARTS = "parts"
T = TypeVar("T")


class Work:
    """Where the parts of a computation go.

    Args:
        folder: keeps every finished part as a file; a later `Work` on the folder reads it instead of computing it. The caller
            sees to it that both compute the same. None: nothing is kept.
        progress: called at the start of each computation and after each part.
    """

    def __init__(self, folder: Path | None = None, progress: Callable[[Progress], None] | None = None) -> None:
        self.folder, self.progress = folder, progress
        self._names: set[str] = set()
        if folder is not None:
            remove_leftovers(folder)

    def map(
        self,
        name: str,
        parts: Sequence[T],
        compute: Callable[[T], Mapping[str, Tensor]],
        size: Callable[[T], int] = len,  # type: ignore[assignment]
    ) -> list[dict[str, Tensor]]:
        """``compute`` of each part, in order, on the CPU.

        Args:
            name: of the computation; each name once, as `slug` writes it.
            parts: what ``compute`` is called with.
            compute: from a part to named tensors.
            size: units of progress in a part.

        Raises:
            ValueError: the name was used before, or a kept part cannot be read.
        """
        if slug(name) in self._names:
            raise ValueError(f"name: {name!r} was used before")
        self._names.add(slug(name))
        done = resumed = 0
        total = sum(map(size, parts))
        results = []
        self._tell(Progress(name, done, resumed, total))
        for number, part in enumerate(parts):
            path = None if self.folder is None else self.folder / PARTS / slug(name) / f"{number:06d}.pt"
            if path is not None and path.exists():
                result = _read(path)
                resumed += size(part)
            else:
                result = {key: value.detach().cpu() for key, value in compute(part).items()}
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _write(path, result)
            results.append(result)
            done += size(part)
            self._tell(Progress(name, done, resumed, total))
        return results

    def _tell(self, progress: Progress) -> None:
        if self.progress is not None:
            self.progress(progress)


def joined(results: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of all parts, concatenated along their first dimension."""
    return {key: torch.cat([result[key] for result in results]) for key in results[0]}


def slug(text: str) -> str:
    """The text as a name of files: lower case, digits and hyphens."""
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower())
    return "-".join(filter(None, kept.split("-")))


def _write(path: Path, result: Mapping[str, Tensor]) -> None:
    # A view would take its whole storage along.
    compact = {key: value.clone() for key, value in result.items()}
    write_atomically(path, lambda file: torch.save(compact, file))


def _read(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is damaged; delete it and resume") from error
