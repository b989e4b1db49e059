"""Getting jobs done: those of a list, and those that the sampler chooses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

import optuna

from terselm.pipeline.job import Job
from terselm.pipeline.measurement import Candidate
from terselm.pipeline.study import Study, job_of
from terselm.pipeline.work import LOST, Runner, settle

PAUSE = 0.2
Sampler = Callable[[optuna.Trial], Job | None]


class Watcher(Protocol):
    """Told what the search is doing."""

    def phase(self, text: str) -> None:
        """Say that something new begins, or what went wrong."""

    def tried(self, candidate: Candidate) -> None:
        """Say that a candidate was measured."""


class Queue:
    """Takes jobs from the study and has them done, beside any other worker of the same study.

    Parameters
    ----------
    study : Study
    runner : Runner
    watcher : Watcher
    """

    def __init__(self, study: Study, runner: Runner, watcher: Watcher) -> None:
        self._study = study
        self._runner = runner
        self._watcher = watcher
        self._under_way = 0

    def run(self, jobs: Iterable[Job], deadline: float | None = None) -> list[Candidate]:
        """Do the jobs that were not done before, here or elsewhere.

        Parameters
        ----------
        jobs : iterable of Job
        deadline : float, optional
            By `time.monotonic`; what has not begun by then is not done.

        Returns
        -------
        list of Candidate
            What came of those that are done and did not fail.
        """
        wanted = {job.key: job for job in jobs}
        for job in self._open(wanted):
            self._study.put(job)
        again: set[str] = set()
        while not over(deadline):
            self._fill(self._study.has_waiting, None)
            if not self._collect():
                time.sleep(PAUSE)
            self._study.drop_stale()
            for job in self._open(wanted):
                # What a lost process was doing is done once more; what failed is not.
                if self._study.failures(job.key)[-1:] in ([""], [LOST]) and job.key not in again:
                    again.add(job.key)
                    self._study.put(job)
            if not wanted.keys() & self._study.open_keys():
                break
        self._drain()
        if over(deadline):
            self._study.drop_waiting()
        return [each for each in self._study.candidates() if each.key in wanted]

    def sample(self, sampler: Sampler, many: int, deadline: float | None = None) -> None:
        """Let the sampler choose until it has chosen so often in all, or the time is over."""

        def more() -> bool:
            return self._study.sampled() < many and not over(deadline)

        while more():
            self._fill(more, sampler)
            self._collect()
        self._drain()

    def take_one(self, sampler: Sampler | None) -> bool:
        """Do a job that waits, or one of the sampler's; return whether there was any."""
        if sampler is None and not self._study.has_waiting():
            return False
        self._take(sampler)
        self._drain()
        return True

    def _open(self, wanted: dict[str, Job]) -> list[Job]:
        known = self._study.known_keys()
        return [job for key, job in wanted.items() if key not in known]

    def _fill(self, more: Callable[[], bool], sampler: Sampler | None) -> None:
        while self._under_way < self._runner.slots and more():
            self._take(sampler)

    def _take(self, sampler: Sampler | None) -> None:
        trial = self._study.take()
        job = job_of(trial)
        if job is None and sampler is not None:
            job = sampler(trial)
        elif job is None:
            # Somebody else was faster to take the job that waited.
            self._study.skip(trial)
        if job is not None:
            self._under_way += 1
            self._runner.start(trial, job)

    def _collect(self) -> bool:
        ended = self._runner.finished()
        for trial, job, outcome in ended:
            self._under_way -= 1
            candidate = settle(self._study, trial, job, outcome)
            if candidate is None:
                self._watcher.phase(f"{job.label} is not possible: {outcome.reason}")
            else:
                self._watcher.tried(candidate)
        return bool(ended)

    def _drain(self) -> None:
        while self._under_way > 0:
            if not self._collect():
                time.sleep(PAUSE)


def over(deadline: float | None) -> bool:
    """Return whether a moment, by `time.monotonic`, has passed."""
    return deadline is not None and time.monotonic() >= deadline
