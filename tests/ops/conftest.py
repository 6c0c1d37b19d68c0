"""The tests of the ops run on one thread, but for those of threads: their rows are short, and a busy machine makes two wait for each other."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def one_thread(threads) -> None:
    threads(1)
