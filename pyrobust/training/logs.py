"""What is recorded while training: losses without waiting for the device, a history, and the log files."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrobust._files import remove_leftovers, write_atomically
from pyrobust.training.distributed import World

CSV_LOG = "log.csv"
JSON_LOG = "log.jsonl"
TENSORBOARD = "tensorboard"

Row = dict[str, float]


class DivergedError(RuntimeError):
    """The loss became NaN or infinite; the message names the step and the term."""


@dataclass
class History:
    """What happened, and how it ended.

    Attributes:
        steps: a row for every interval of steps: step, epoch, lr, mean loss, mean of every term, images_per_second.
        epochs: a row an epoch: epoch (from 1), step, lr, means over the epoch, validation accuracies, seconds so far.
        best_epoch: that with the highest validation measure, the first of equals; None without validation.
        best: its measure.
        images: that were trained on.
        seconds: spent on them; validation and checkpoints are not counted.
        stopped: "" while running, then "finished", or "early" where the validation measure no longer improved.
    """

    steps: list[Row] = field(default_factory=list)
    epochs: list[Row] = field(default_factory=list)
    best_epoch: int | None = None
    best: float = -1.0
    images: int = 0
    seconds: float = 0.0
    stopped: str = ""

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0

    def spend(self, images: int, seconds: float) -> None:
        """Count images that were trained on, and the time that it took."""
        self.images += images
        self.seconds += seconds


class Record:
    """The loss and the terms of every step of an epoch, kept on the device until they are read.

    Args:
        names: of the terms.
        steps: of an epoch.
    """

    def __init__(self, names: Sequence[str], steps: int, device: torch.device) -> None:
        self.names = ("loss", *(f"loss/{name}" for name in names))
        self.values = torch.zeros(steps, len(self.names), device=device)

    def keep(self, index: int, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """Record step ``index`` of the epoch."""
        self.values[index] = torch.stack([loss.detach(), *terms.values()])

    def means(self, start: int, stop: int, first: int, world: World) -> Row:
        """The means over steps ``start`` … ``stop`` − 1 of the epoch, and over all processes.

        Args:
            first: the number, in the whole training, of the epoch's first step.

        Raises:
            DivergedError: one of the values is NaN or infinite. In all processes at once.
        """
        values = world.mean(self.values[start:stop].clone()).cpu().double()
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            row = values[bad[0, 0]]
            terms = [f"{n} = {v:g}" for n, v in zip(self.names[1:], row[1:].tolist(), strict=True)]
            raise DivergedError(
                f"the loss is not finite at step {first + start + int(bad[0, 0])} (counted from 0; {', '.join(terms)}): "
                "a lower rate, clipping or a smaller weight may help"
            )
        return dict(zip(self.names, values.mean(0).tolist(), strict=True))


class Stopwatch:
    """Time spent on training steps, and the images in it; read where the device has been waited for anyway."""

    def __init__(self) -> None:
        self.images = 0
        self._since = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time meanwhile."""
        begun = time.perf_counter()
        yield
        self._since += time.perf_counter() - begun

    def read(self) -> tuple[int, float]:
        """Images and seconds since the last reading."""
        now = time.perf_counter()
        images, seconds = self.images, now - self._since
        self.images, self._since = 0, now
        return images, seconds


class Logs:
    """``log.csv`` (a row an epoch), ``log.jsonl`` (every row), and TensorBoard's files where it is installed.

    The files are first made anew from the history, so that a resumed training leaves out what its last checkpoint does
    not know of, as well as a line that was cut off.

    Args:
        folder: None: nothing is written.
        history: so far.
        step: that TensorBoard goes on from.
    """

    def __init__(self, folder: Path | None, history: History, step: int) -> None:
        self.folder = folder
        self._tensorboard: Any = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        rows = sorted(
            [("steps", row) for row in history.steps] + [("epoch", row) for row in history.epochs],
            key=lambda entry: (entry[1]["step"], entry[0] == "epoch"),
        )
        write_atomically(folder / JSON_LOG, lambda file: file.write("".join(map(_line, rows)).encode()))
        (folder / CSV_LOG).unlink(missing_ok=True)
        for row in history.epochs:
            self._append_csv(row)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._tensorboard = SummaryWriter(str(folder / TENSORBOARD), purge_step=step)

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()

    def write(self, kind: str, row: Row) -> None:
        """Write a row of ``kind`` "steps" or "epoch"."""
        if self.folder is None:
            return
        with (self.folder / JSON_LOG).open("a", encoding="utf-8") as file:
            file.write(_line((kind, row)))
        if kind == "epoch":
            self._append_csv(row)
        if self._tensorboard is not None:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    self._tensorboard.add_scalar(f"{kind}/{name}", value, row["step"])

    def _append_csv(self, row: Row) -> None:
        assert self.folder is not None
        path = self.folder / CSV_LOG
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def _line(entry: tuple[str, Row]) -> str:
    return json.dumps({"kind": entry[0], **entry[1]}, allow_nan=False) + "\n"
