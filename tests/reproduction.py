"""The scripts of bench/reproduce, run at their smallest size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def reproduced(script: Any, folder: Path, name: str) -> tuple[str, dict[str, Any], list[str]]:
    """The Markdown, the JSON and the names of the pictures that a script leaves; every picture is shown."""
    assert script.main(["--smoke", "--device", "cpu", "--out", str(folder)]) == 0
    start = folder / f"{name}-smoke-tables"
    markdown, content = start.with_suffix(".md").read_text(), json.loads(start.with_suffix(".json").read_text())
    pictures = sorted(path.name for path in folder.glob("*.png"))
    assert all(f"]({picture})" in markdown for picture in pictures)
    return markdown, content, pictures
