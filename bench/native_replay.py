"""The raw native call of an op, to time it without its Python function: what that function passed, passed again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from pyrobust.ops import _native


class _Recorder:
    def __init__(self, module: Any) -> None:
        self.module = module
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.module, name)
        if name in ("outgrows_chip", "info") or name.endswith("_space"):
            return function

        def record(*args: Any) -> Any:
            self.calls.append((function, args))
            return function(*args)

        return record


def native_call(run: Callable[[], Any]) -> Callable[[], Any]:
    """The native call that ``run()`` makes, into the output that it made once.

    For tensors on the CPU, or small ones on a GPU: a workspace is not kept alive.

    Raises:
        ValueError: ``run`` makes no native call, or more than one.
    """
    recorder = _Recorder(_native.native)
    users: list[Any] = [
        module
        for name, module in sys.modules.items()
        if name.startswith("pyrobust.ops.") and getattr(module, "native", None) is recorder.module
    ]
    for module in users:
        module.native = recorder
    try:
        result = run()
    finally:
        for module in users:
            module.native = recorder.module
    if len(recorder.calls) != 1:
        raise ValueError(f"expected one native call, got {len(recorder.calls)}")
    function, args = recorder.calls[0]

    def again(_keep: Any = (result, run)) -> None:
        function(*args)

    return again
