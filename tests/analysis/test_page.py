"""The page of an analysis: its files, its JSON, and nothing it needs from elsewhere."""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyrobust.analysis.page import PAGE, SUMMARY, Section, Table, plain, write_page
from pyrobust.analysis.slider import DPI, REM, Slider
from pyrobust.evaluation.plots import panels


class Pair(NamedTuple):
    first: int
    second: Tensor


@dataclass(frozen=True)
class Result:
    values: Tensor
    pair: Pair


def figure(height: float = 1.0) -> Figure:
    made, (axis,) = panels(["x"])
    axis.plot([0, height])
    return made


def test_plain_is_json_data() -> None:
    value = {
        "result": Result(torch.tensor([1.5, math.inf]), Pair(2, torch.tensor([True]))),
        "array": np.array([[1, 2]]),
        "number": np.float64(0.5),
        3: (math.nan, "text", None),
    }
    expected = {
        "result": {"values": [1.5, "inf"], "pair": {"first": 2, "second": [True]}},
        "array": [[1, 2]],
        "number": 0.5,
        "3": [None, "text", None],
    }
    assert plain(value) == expected
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected


def test_files_and_page(tmp_path: Path) -> None:
    sections = [
        Section(
            "Shares & <more>", "Text <b>.", figure=figure(), table=Table(["what", "n"], [["a<b", "1"]]), data={"n": 1}
        ),
        Section("Sweep", "Over λ.", slider=Slider("λ", ["0.1", "</script>"], [figure(1), figure(2)], start=1)),
    ]
    path = write_page(tmp_path, "Heading <1>", sections, [("seed", "0")], {"torch": "x"}, "sub")
    assert path == tmp_path / PAGE
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([PAGE, SUMMARY, "shares-more.png"])
    assert json.loads((tmp_path / SUMMARY).read_text()) == {"environment": {"torch": "x"}, "shares-more": {"n": 1}}
    page = path.read_text(encoding="utf-8")
    for text in (
        "Heading &lt;1&gt;",
        "Shares &amp; &lt;more&gt;",
        "Text &lt;b&gt;.",
        "a&lt;b",
        "<td>seed</td><td>0</td>",
    ):
        assert text in page
    assert page.count("</script>") == 1  # a value cannot end the script
    assert len(re.findall(r"data:image/png", page)) == 3  # the first frame, and both in the script
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_the_same_sections_give_the_same_bytes(tmp_path: Path) -> None:
    pages = [write_page(tmp_path / name, "h", [Section("S", "t", figure=figure())]).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_frames_may_be_png_files(tmp_path: Path) -> None:
    file = b"\x89PNG\r\n\x1a\n" + bytes(8) + (4 * DPI).to_bytes(4, "big")
    page = write_page(tmp_path, "h", [Section("S", "t", slider=Slider("θ", ["0"], [file]))])
    text = page.read_text(encoding="utf-8")
    assert f"data:image/png;base64,{base64.b64encode(file).decode()}" in text
    assert f"width: {4 * REM:.1f}rem" in text, "as wide as a figure of 4 inches is"


def test_titles_must_differ_as_names_of_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sections: expected titles that differ, got A b, a-B"):
        write_page(tmp_path, "h", [Section("A b", ""), Section("a-B", "")])


@pytest.mark.parametrize(
    ("values", "frames", "start"), [([], [], 0), (["1"], [b"", b""], 0), (["1"], [b""], 1), (["1"], [b""], -1)]
)
def test_a_slider_has_a_value_a_frame(values: list[str], frames: list[bytes], start: int) -> None:
    with pytest.raises(ValueError, match="frames: expected as many as values"):
        Slider("x", values, frames, start)
