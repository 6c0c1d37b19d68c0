"""Pictures switched by a range input, as HTML that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 90  # of frames: a page holds many
REM = 7.5  # of the page, an inch of a figure: text in figures is a little smaller than that around them


@dataclass(frozen=True)
class Slider:
    """Frames over a quantity.

    Attributes:
        label: of the quantity.
        values: as text, one a frame.
        frames: figures, or PNG files of `DPI` pixels an inch.
        start: the frame shown first.
    """

    label: str
    values: Sequence[str]
    frames: Sequence[Figure | bytes]
    start: int = 0

    def __post_init__(self) -> None:
        if not self.frames or len(self.values) != len(self.frames) or not 0 <= self.start < len(self.frames):
            raise ValueError(
                f"frames: expected as many as values, at least one, and start among them, got {len(self.frames)} frames, "
                f"{len(self.values)} values, start {self.start}"
            )

    def html(self, name: str) -> str:
        """The slider as a ``figure``, its elements' ids beginning with ``name``; without scripts it shows that of ``start``."""
        from pyrobust.evaluation.plots import png, png_uri, styled

        with styled():
            uris = [png_uri(f if isinstance(f, bytes) else png(f, DPI)) for f in self.frames]
        width = max(_inches(frame) for frame in self.frames) * REM
        values, sources = (json.dumps(list(part)).replace("<", "\\u003c") for part in (self.values, uris))
        return (
            f'<figure class="slider"><img id="{name}-frame" style="width: {width:.1f}rem; max-width: 100%" '
            f'src="{uris[self.start]}" alt="{escape(self.label)}">'
            f'<p><label for="{name}-range">{escape(self.label)}</label> '
            f'<input id="{name}-range" type="range" min="0" max="{len(uris) - 1}" step="1" value="{self.start}"> '
            f'<output id="{name}-value">{escape(self.values[self.start])}</output></p></figure>\n'
            f"<script>(() => {{ const values = {values}, frames = {sources};\n"
            f"const at = (id) => document.getElementById('{name}-' + id), range = at('range');\n"
            "const show = () => { at('frame').src = frames[range.value]; at('value').textContent = values[range.value]; };\n"
            "range.addEventListener('input', show); show(); })();</script>"
        )


def _inches(frame: Figure | bytes) -> float:
    if isinstance(frame, bytes):
        return int.from_bytes(frame[16:20], "big") / DPI  # where PNG files have their width
    return frame.get_figwidth()
