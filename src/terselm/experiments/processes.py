"""The processes that runs happen in."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext, SpawnContext


def run_context(modules: Sequence[str]) -> ForkServerContext | SpawnContext:
    """Return how the processes of runs are begun.

    On Linux by a server that has imported the modules already, so that a run begins at once
    rather than after the seconds that PyTorch takes to load; the server has no state of ours and
    has used no threads, so its copies are as good as new. Elsewhere each process imports anew.

    Parameters
    ----------
    modules : sequence of str
        What the server imports.
    """
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return context


def stop_with_parent() -> None:
    """Wait until the process that ordered this one is gone; then stop this one by SIGTERM.

    For a thread of its own. A training takes the signal as a wish for a checkpoint.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for processes that multiprocessing began"
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
