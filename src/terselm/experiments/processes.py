"""The processes that runs happen in."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext, SpawnContext

LONGEST_SOCKET_FOLDER = 70
"""Bytes; the server's socket lies in a folder in it, and Unix takes 107 in all."""


def run_context(modules: Sequence[str]) -> ForkServerContext | SpawnContext:
    """Return how the processes of runs are begun.

    On Linux by a server that has imported the modules already, so that a run begins at once
    rather than after the seconds that PyTorch takes to load; the server has no state of ours and
    has used no threads, so its copies are as good as new. Elsewhere, and where temporary files lie
    too deep for its socket, each process imports anew.

    Parameters
    ----------
    modules : sequence of str
        What the server imports.
    """
    is_deep = len(os.fsencode(tempfile.gettempdir())) > LONGEST_SOCKET_FOLDER
    if is_deep or not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return context


def leave_interrupts_to_the_command() -> None:
    """Ignore Ctrl-C, which the terminal sends to every process, for as long as there is no run.

    A process that waits for one would die of it, and the pool with it and all runs that it has.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def heed_interrupts() -> None:
    """Take Ctrl-C as Python does, in a process that has a run."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def stop_with_parent() -> None:
    """Wait until the process that ordered this one is gone; then stop this one by SIGTERM.

    For a thread of its own. A training takes the signal as a wish for a checkpoint.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for processes that multiprocessing began"
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
