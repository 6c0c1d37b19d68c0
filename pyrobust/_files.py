"""Files that appear whole or not at all, however the process ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_SUFFIX = ".tmp"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call ``write`` on a file that takes the place of ``path`` only once it is complete and on the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if os.name == "posix":  # the rename itself is on the disk once the folder is
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether a file of that name is one that was being written."""
    return name.startswith(".") and name.endswith(_SUFFIX)


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that died while writing left in ``folder`` and below."""
    for path in folder.rglob(f".*{_SUFFIX}"):
        path.unlink(missing_ok=True)
