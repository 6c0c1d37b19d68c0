"""The command line, called from the tests."""

from __future__ import annotations

import pytest

from pyrobust.cli import main


def run(*arguments: str) -> int:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a failing command writes to stderr."""
    assert run(*arguments) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]
