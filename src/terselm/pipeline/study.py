"""The list of trials of a search: Optuna's study, in SQLite or PostgreSQL."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.exceptions import (
    ExperimentalWarning,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    ProgrammingError,
    SQLAlchemyError,
)

from terselm.errors import TerselmError, UsageError
from terselm.pipeline.job import Job
from terselm.pipeline.measurement import Candidate, Measurement

HEARTBEAT = 5
"""Seconds between two signs of life of whoever runs a trial."""
GRACE = 60
"""Seconds without one after which a trial counts as lost."""
TRIES = 5
OBJECTIVES = 3
"""Bytes, perplexity, microseconds; less of each is better."""
WAITING = (TrialState.WAITING,)
UNFINISHED = (TrialState.WAITING, TrialState.RUNNING)


class Study:
    """Trials that any number of processes take from and add to.

    Parameters
    ----------
    url : str
        Of the storage, as SQLAlchemy has it.
    name : str
        Of the study in it; made if it is not there.
    seed : int
        Of the sampler.
    """

    def __init__(self, url: str, name: str, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name = name
        with _quiet(), _storage_errors(url):
            self._storage = _opened(url)
            sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=12)
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                directions=["minimize"] * OBJECTIVES,
                sampler=sampler,
                load_if_exists=True,
            )

    def note(self, key: str, value: Any) -> None:
        """Keep a JSON value with the study."""
        self._study.set_user_attr(key, value)

    def noted(self, key: str) -> Any:
        """Return what was kept under a key, None if nothing was."""
        return self._study.user_attrs.get(key)

    @property
    def begun(self) -> bool:
        """Whether a search has got so far that its budget can be met."""
        return self.noted("space") is not None

    def put(self, job: Job) -> None:
        """Add a job for whoever comes first."""
        self._study.enqueue_trial({}, user_attrs={"job": job.as_dict(), "key": job.key})

    def has_waiting(self) -> bool:
        """Return whether a job waits to be taken."""
        return bool(self._study.get_trials(deepcopy=False, states=WAITING))

    def take(self) -> optuna.Trial:
        """Return the trial that waits longest, or a new one without a job if none waits."""
        with _quiet():
            trial = self._study.ask()
            self._storage.record_heartbeat(trial._trial_id)
        return trial

    def finish(self, trial: optuna.Trial, candidate: Candidate) -> None:
        """Keep what came of a trial."""
        measured = candidate.measured
        values = [float(measured.bytes), measured.perplexity, measured.microseconds]
        # Another process may have given the trial up: its worker was silent, or time was over.
        with suppress(UpdateFinishedTrialError):
            trial.set_user_attr("candidate", _stored(candidate))
            self._study.tell(trial, values, skip_if_finished=True)

    def fail(self, trial: optuna.Trial, reason: str) -> None:
        """Give a trial up."""
        with suppress(UpdateFinishedTrialError):
            trial.set_user_attr("reason", reason)
            self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def skip(self, trial: optuna.Trial) -> None:
        """Give a trial up that nothing can be made of."""
        self._study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)

    @contextmanager
    def alive(self, trial: optuna.Trial) -> Iterator[None]:
        """Show signs of life while a trial runs."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(HEARTBEAT):
                # A storage that is away for a moment must not end the trial.
                with _quiet(), _ignored_storage_errors():
                    self._storage.record_heartbeat(trial._trial_id)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def drop_stale(self) -> None:
        """Fail the trials of processes that show no sign of life."""
        with _quiet():
            optuna.storages.fail_stale_trials(self._study)

    def drop_running(self) -> None:
        """Fail all trials that run; for the only process there is."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def drop_waiting(self) -> None:
        """Fail the trials that nobody has taken."""
        for trial in self._study.get_trials(deepcopy=False, states=WAITING):
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def candidates(self) -> list[Candidate]:
        """Return what came of all finished trials, in their order."""
        finished = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [_candidate(trial) for trial in finished]

    def open_keys(self) -> set[str]:
        """Return the keys of the jobs that wait or run."""
        return self._keys(UNFINISHED)

    def known_keys(self) -> set[str]:
        """Return the keys of the jobs that are done, wait or run; not of those that failed."""
        return self._keys((*UNFINISHED, TrialState.COMPLETE))

    def is_anothers(self, trial: optuna.Trial, key: str) -> bool:
        """Return whether a job is another trial's: done, waiting, or run by an earlier one."""
        states = (*UNFINISHED, TrialState.COMPLETE)
        return any(
            each.user_attrs.get("key") == key
            and each.number != trial.number
            and (each.state != TrialState.RUNNING or each.number < trial.number)
            for each in self._study.get_trials(deepcopy=False, states=states)
        )

    def _keys(self, states: tuple[TrialState, ...]) -> set[str]:
        trials = self._study.get_trials(deepcopy=False, states=states)
        return {trial.user_attrs["key"] for trial in trials if "key" in trial.user_attrs}

    def failures(self, key: str) -> list[str]:
        """Return why trials of a job failed; "" for a lost process."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        return [
            str(trial.user_attrs.get("reason", ""))
            for trial in trials
            if trial.user_attrs.get("key") == key
        ]

    def sampled(self) -> int:
        """Return how many trials without a fixed job there are, whatever came of them."""
        ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        states = (*ended, TrialState.RUNNING)
        trials = self._study.get_trials(deepcopy=False, states=states)
        return sum(bool(trial.params) for trial in trials)


def note_job(trial: optuna.Trial, job: Job) -> None:
    """Write into a sampled trial what it tries."""
    with suppress(UpdateFinishedTrialError):
        trial.set_user_attr("job", job.as_dict())
        trial.set_user_attr("key", job.key)


def job_of(trial: optuna.Trial) -> Job | None:
    """Return the job of a trial; None for one that is to be sampled."""
    values = trial.user_attrs.get("job")
    return None if values is None else Job.from_dict(values)


def _stored(candidate: Candidate) -> dict[str, Any]:
    return {
        "measured": candidate.measured.as_dict(),
        "file": candidate.file,
        "seconds": candidate.seconds,
        "digest": candidate.digest,
    }


def _candidate(trial: FrozenTrial) -> Candidate:
    job: Mapping[str, Any] = trial.user_attrs["job"]
    found: Mapping[str, Any] = trial.user_attrs["candidate"]
    return Candidate(
        number=trial.number,
        origin=job["origin"],
        label=job["label"],
        recipe=job["recipe"],
        measured=Measurement.from_dict(found["measured"]),
        file=found["file"],
        seconds=found["seconds"],
        parent=job["parent"],
        knobs=job["knobs"],
        key=trial.user_attrs["key"],
        digest=found.get("digest", ""),
    )


def _opened(url: str) -> RDBStorage:
    """Return the storage, its tables made; others may be making them at the same moment."""
    for attempt in range(TRIES):
        try:
            return RDBStorage(
                _with_driver(url),
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                engine_kwargs=_engine(url),
            )
        except (IntegrityError, ProgrammingError):
            if attempt == TRIES - 1:
                raise
            time.sleep(1.0)
    raise AssertionError("unreachable")


def _with_driver(url: str) -> str:
    """Return an address that names the driver, which else depends on SQLAlchemy's version."""
    scheme, _, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if scheme in ("postgresql", "postgres") else url


def _engine(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        # Several processes write: wait for one another.
        return {"connect_args": {"timeout": 60}}
    return {"pool_pre_ping": True}


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # The signs of life are given by `Study.alive`.
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        yield


@contextmanager
def _ignored_storage_errors() -> Iterator[None]:
    with suppress(StorageInternalError, SQLAlchemyError):
        yield


@contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """Turn what a storage that does not answer raises into one line."""
    try:
        yield
    except ArgumentError:
        raise UsageError(
            f"--storage {url!r} is no storage address; write postgresql://user@host/database "
            "or sqlite:///file"
        ) from None
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--storage {url!r} needs {error.name}; pip install 'terselm[distributed]'"
        ) from None
    except ImportError:
        raise UsageError(
            f"--storage {url!r} needs a database driver; pip install 'terselm[distributed]'"
        ) from None
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = " ".join(str(getattr(error, "orig", None) or error).split())
        raise TerselmError(f"the storage {_hidden(url)} does not answer: {cause}") from None


def _hidden(url: str) -> str:
    """Return an address without its password."""
    head, at, tail = url.rpartition("@")
    scheme, colon, user = head.partition("://")
    return f"{scheme}{colon}{user.partition(':')[0]}@{tail}" if at else url
