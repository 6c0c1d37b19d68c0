"""Processes of their own for the tests, started and killed: forked by a server that has the imports already."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pyrobust._files as files_module

CONTEXT = multiprocessing.get_context("forkserver") if os.name == "posix" else None
if CONTEXT is not None:
    CONTEXT.set_forkserver_preload(["pyrobust.evaluation.console", "pyrobust.training"])


def start(target, *arguments) -> multiprocessing.process.BaseProcess:
    assert CONTEXT is not None
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def die_at_call(name: str, calls: int, before: bool) -> None:
    """From now on, die by SIGKILL at the given call of ``os.<name>`` by the writer of files, right before or right after."""
    original, count = getattr(os, name), 0

    def counted(*arguments):
        nonlocal count
        count += 1
        if count == calls and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments)
        if count == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(files_module.os, name, counted)
