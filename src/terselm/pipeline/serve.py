"""A worker: takes trials of a study that a search, here or on another host, adds to."""

from __future__ import annotations

import os
import time
from functools import cache

import optuna

from terselm.errors import TerselmError, UsageError
from terselm.pipeline.fingerprint import check_fingerprint, mark_folder
from terselm.pipeline.job import Job
from terselm.pipeline.queue import Queue, Watcher
from terselm.pipeline.sensitivity import Sensitivity
from terselm.pipeline.space import Space
from terselm.pipeline.study import Study
from terselm.pipeline.work import HereRunner, sampled_job
from terselm.pipeline.workbench import Workbench

PAUSE = 0.5
PATIENCE = 120.0
"""Seconds that a worker waits for a search to begin."""


def serve(bench: Workbench, study: Study, watcher: Watcher, parent: int | None = None) -> None:
    """Do trials until the search is done.

    Parameters
    ----------
    bench : Workbench
    study : Study
    watcher : Watcher
    parent : int, optional
        A process without which the worker has nothing to do.

    Raises
    ------
    UsageError
        If the search is of another model, text, seed or device profile.
    TerselmError
        If no search begins.
    """
    _wait_for_search(study)
    check_fingerprint(study, bench)
    mark_folder(bench, study)
    queue = Queue(study, HereRunner(bench, study), watcher)

    @cache
    def noted() -> tuple[Sensitivity, Space]:
        # They are there, and stay as they are, once the search samples.
        sensitivity = Sensitivity.from_dict(study.noted("sensitivity"))
        return sensitivity, Space.from_dict(study.noted("space"))

    def sampler(trial: optuna.Trial) -> Job | None:
        return sampled_job(trial, study, *noted())

    while study.noted("state") != "done" and (parent is None or os.getppid() == parent):
        sampling = study.noted("state") == "sampling"
        if not queue.take_one(sampler if sampling else None):
            time.sleep(PAUSE)


def _wait_for_search(study: Study) -> None:
    deadline = time.monotonic() + PATIENCE
    while study.noted("fingerprint") is None:
        if time.monotonic() > deadline:
            raise TerselmError(
                f"no search has begun in the study {study.name!r}; start one with the same "
                "--storage and --study, without --worker"
            )
        time.sleep(PAUSE)
    if study.noted("state") == "done":
        raise UsageError(f"the search of the study {study.name!r} is over; nothing is left to do")
