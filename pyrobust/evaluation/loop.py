"""Go through the work of a run in order, keep what is finished, and tell how far it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pyrobust._progress import Progress
from pyrobust.evaluation.attacks import Task
from pyrobust.evaluation.batches import micro_batches
from pyrobust.evaluation.examples import choose_examples
from pyrobust.evaluation.micro import Worker
from pyrobust.evaluation.store import Store

CLEAN = "clean predictions"


class Loop:
    """Goes through clean predictions, tasks and searches; what an earlier run finished is read instead of computed.

    Attributes:
        done, resumed: as `Progress` has them.
    """

    def __init__(
        self,
        worker: Worker,
        store: Store | None,
        tasks: Sequence[Task],
        searches: Sequence[Task],
        searched: int,
        batch_size: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        """Work for ``worker``: ``tasks`` on all samples, ``searches`` on the first ``searched`` of them."""
        self.worker, self.store, self.progress = worker, store, progress
        samples = len(worker.samples.labels)
        self.work = [(task, samples) for task in tasks] + [(task, searched) for task in searches]
        self.batch_size = batch_size
        self.done = self.resumed = 0
        self.total = samples + sum(count for _, count in self.work)

    def run(self) -> tuple[list[pa.Table], list[list[pa.Table]]]:
        """Tables of the clean predictions by [micro-batch], and of tasks and searches by [task][micro-batch]."""
        clean = self._task(0, CLEAN, self.worker.clean, len(self.worker.samples.labels))
        self.worker.keep = choose_examples(pa.concat_tables(clean))
        attacked = [
            self._task(number, task.title, partial(self.worker.attack, task), count)
            for number, (task, count) in enumerate(self.work, start=1)
        ]
        return clean, attacked

    def _task(self, number: int, title: str, compute: Callable[[range], pa.Table], samples: int) -> list[pa.Table]:
        tables = []
        self._tell(title)
        for batch, ids in enumerate(micro_batches(samples, self.batch_size)):
            rows = None if self.store is None else self.store.read(number, batch)
            if rows is None:
                rows = compute(ids)
                if self.store is not None:
                    self.store.write(number, batch, rows)
            else:
                # A batch size lowered for lack of memory stays lowered, as it would have without the interruption.
                self.worker.size = min(self.worker.size, pc.min(rows["batch_size"]).as_py())
                self.resumed += len(ids)
            self.done += len(ids)
            tables.append(rows)
            self._tell(title)
        return tables

    def _tell(self, title: str) -> None:
        if self.progress is not None:
            self.progress(Progress(title, self.done, self.resumed, self.total))
