"""adv-lib, imported without what its attacks never use; a peer that is missing is None and a reason."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any, ClassVar

_UNUSED = (
    "visdom", "tqdm", "torchvision", "torchvision.models", "torchvision.transforms", "torchvision.utils",
    "torchvision.datasets", "distutils", "distutils.version",
)  # fmt: skip


class _Placeholder(ModuleType):
    """Any name is a class that does nothing."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Version:
    """distutils.version.LooseVersion, as far as adv-lib compares versions of torch."""

    def __init__(self, text: str) -> None:
        self.parts = [int(part) for part in text.split("+")[0].split(".") if part.isdigit()]

    def __lt__(self, other: _Version) -> bool:
        return self.parts < other.parts

    def __ge__(self, other: _Version) -> bool:
        return self.parts >= other.parts


def adv_lib() -> tuple[ModuleType | None, str]:
    """adv-lib's module of PDGD and PDPGD, or None and why not.

    What it imports and never uses is stood in for, where it is not installed, until the import is over.
    """
    if importlib.util.find_spec("adv_lib") is None:
        return None, "adv-lib is not installed"
    placed = [name for name in _UNUSED if name.split(".")[0] not in sys.modules and not _installed(name.split(".")[0])]
    for name in placed:
        sys.modules[name] = _Placeholder(name)
    if "distutils.version" in placed:
        sys.modules["distutils.version"].LooseVersion = _Version  # type: ignore[attr-defined]
    try:
        return importlib.import_module("adv_lib.attacks.primal_dual_gradient_descent"), ""
    except Exception as error:
        return None, f"adv-lib cannot be imported: {type(error).__name__}: {error}"
    finally:
        for name in placed:
            del sys.modules[name]


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
