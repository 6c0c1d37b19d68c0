"""The command ``pyrobust``. What needs no extra is here; the rest is loaded when it is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import pyrobust

DEBUG_VARIABLE = "PYROBUST_DEBUG"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 an error (one line on stderr), 2 wrong usage, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.exit(_run(given))
    except KeyboardInterrupt:
        message = "interrupted"
        code = 130
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, (ValueError, TypeError, OSError, ImportError, RuntimeError)):
            message = f"{type(error).__name__}: {message} ({DEBUG_VARIABLE}=1 shows where)"
        code = 1
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def print_info() -> None:
    """Print how the package was built and what it runs on, one ``name: value`` a line. Needs no extra."""
    from pyrobust.ops import native_info

    facts = {"pyrobust": pyrobust.__version__, **native_info()}
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {_text(value)}")


def _text(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, (list, tuple)) else str(value)


def _run(given: list[str]) -> int:
    if given == ["--version"]:
        print(f"pyrobust {pyrobust.__version__}")
        return 0
    if given == ["info"]:
        print_info()
        return 0
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"this needs {error.name}: pip install 'pyrobust[report]' (without it, only `pyrobust info` and "
            "`pyrobust --version` work)"
        ) from error
    from pyrobust.evaluation.console import run

    return run(given)


if __name__ == "__main__":
    main()
