"""Doing one trial, and doing them one after the other."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import optuna

from terselm.errors import TerselmError
from terselm.pipeline.fingerprint import digest_of
from terselm.pipeline.job import Job
from terselm.pipeline.measurement import Candidate, Measurement
from terselm.pipeline.sensitivity import Sensitivity
from terselm.pipeline.space import Space, planned, suggest_knobs
from terselm.pipeline.study import Study, note_job
from terselm.pipeline.workbench import Workbench

MODELS = "models"
LOST = "lost with a worker"
"""Why a trial failed whose process went away, if anybody could still say so."""


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes
    ----------
    measured : Measurement or None
        None if it failed.
    seconds : float
    file : str
        Name of the model file in the folder of the search.
    reason : str
        Why it failed.
    digest : str
        Of the file that was measured.
    """

    measured: Measurement | None
    seconds: float
    file: str = ""
    reason: str = ""
    digest: str = ""


class Runner(Protocol):
    """Whoever makes and measures models: this process, or others."""

    @property
    def slots(self) -> int:
        """How many jobs can be under way at once."""

    def start(self, trial: optuna.Trial, job: Job) -> None:
        """Begin a job."""

    def finished(self) -> list[tuple[optuna.Trial, Job, Outcome]]:
        """Return what has ended since the last call; waits a little if nothing has."""


def file_name(number: int) -> str:
    """Return the name of a candidate's file in the folder of a search."""
    return f"{MODELS}/{number}.safetensors"


def do_job(bench: Workbench, job: Job, number: int) -> Outcome:
    """Make and measure a candidate; what does not work is a reason and no exception."""
    started = time.perf_counter()
    folder = bench.setting.folder
    name = file_name(number if job.same_as is None else job.same_as)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    try:
        if job.same_as is None or not path.exists():
            bench.make(job.recipe, path)
        measured = bench.measure(path, whole_text=job.whole_text)
    except TerselmError as error:
        return Outcome(None, time.perf_counter() - started, reason=str(error))
    return Outcome(measured, time.perf_counter() - started, name, digest=digest_of(path))


class HereRunner:
    """Does jobs in this process, one at a time."""

    slots = 1

    def __init__(self, bench: Workbench, study: Study) -> None:
        self._bench = bench
        self._study = study
        self._done: list[tuple[optuna.Trial, Job, Outcome]] = []

    def start(self, trial: optuna.Trial, job: Job) -> None:
        """Do the job."""
        try:
            with self._study.alive(trial):
                outcome = do_job(self._bench, job, trial.number)
        except KeyboardInterrupt:
            self._study.fail(trial, "interrupted")
            raise
        self._done.append((trial, job, outcome))

    def finished(self) -> list[tuple[optuna.Trial, Job, Outcome]]:
        """Return what was done."""
        done, self._done = self._done, []
        return done


def sampled_job(
    trial: optuna.Trial, study: Study, sensitivity: Sensitivity, space: Space
) -> Job | None:
    """Return what the sampler chooses for a trial.

    None, and the trial is given up, where there is no such plan or it was tried already.
    """
    job = planned(sensitivity, suggest_knobs(trial, space), space, "sampled")
    if job is not None:
        # Noted before looking, so that of two processes with the same plan one sees the other.
        note_job(trial, job)
    if job is None or study.is_anothers(trial, job.key):
        study.skip(trial)
        return None
    return job


def settle(study: Study, trial: optuna.Trial, job: Job, outcome: Outcome) -> Candidate | None:
    """Write the outcome of a job into the study and return the candidate, if it became one."""
    if outcome.measured is None:
        study.fail(trial, outcome.reason)
        return None
    candidate = Candidate(
        number=trial.number,
        origin=job.origin,
        label=job.label,
        recipe=job.recipe,
        measured=outcome.measured,
        file=outcome.file,
        seconds=round(outcome.seconds, 2),
        parent=job.parent,
        knobs=job.knobs,
        key=job.key,
        digest=outcome.digest,
    )
    study.finish(trial, candidate)
    return candidate
