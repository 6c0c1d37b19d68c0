"""Measure and improve the adversarial robustness of PyTorch classifiers, on native CPU and CUDA kernels.

`pyrobust.attacks` and `pyrobust.ops` need torch and numpy alone; `pyrobust.evaluate` and the command line need
the extra `report`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__version__ = version("pyrobust")

if TYPE_CHECKING:
    from pyrobust.evaluation import evaluate

_MODULES = ("adapters", "analysis", "attacks", "data", "evaluation", "models", "ops", "training")


def __getattr__(name: str) -> Any:
    # Loaded on first use: importing pyrobust costs nothing that the caller does not need.
    if name == "evaluate":
        return import_module("pyrobust.evaluation").evaluate
    if name in _MODULES:
        return import_module(f"pyrobust.{name}")
    raise AttributeError(f"module 'pyrobust' has no attribute {name!r}")


__all__ = ["__version__", "evaluate"]
