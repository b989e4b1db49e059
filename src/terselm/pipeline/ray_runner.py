"""Doing trials as tasks of a Ray cluster."""

from __future__ import annotations

import socket
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna

from terselm.errors import TerselmError, UsageError
from terselm.files import write_bytes
from terselm.pipeline.job import Job
from terselm.pipeline.study import Study
from terselm.pipeline.work import LOST, Outcome, do_job, file_name
from terselm.pipeline.workbench import Setting, Workbench

PAUSE = 1.0
PATIENCE = 5.0


class RayRunner:
    """Hands jobs to a Ray cluster, as many at once as it has processors.

    The model travels to the tasks and the files that they make travel back; the corpus must be
    known by the same name on every host.

    Parameters
    ----------
    setting : Setting
    study : Study
    address : str
        Of the cluster; "local" starts one on this machine.

    Raises
    ------
    UsageError
        If Ray is not installed.
    TerselmError
        If the cluster does not answer.
    """

    def __init__(self, setting: Setting, study: Study, address: str) -> None:
        try:
            self._ray: Any = import_module("ray")
        except ImportError:
            raise UsageError("--ray needs ray; pip install 'terselm[distributed]'") from None
        _check_answers(address)
        try:
            self._ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                include_dashboard=False if address == "local" else None,
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            cause = str(error).splitlines()[0]
            raise TerselmError(f"--ray {address}: no cluster answers: {cause}") from None
        self._setting = setting
        self._study = study
        self._model = self._ray.put(setting.model.read_bytes())
        self._task = self._ray.remote(max_retries=0)(remote_job)
        self._running: dict[Any, tuple[optuna.Trial, Job, Any]] = {}
        self.slots = max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def start(self, trial: optuna.Trial, job: Job) -> None:
        """Hand a job to the cluster."""
        alive = self._study.alive(trial)
        alive.__enter__()
        # A measurement that is repeated makes the model again, wherever it runs.
        plain = replace(job, same_as=None)
        future = self._task.remote(self._setting, self._model, plain.as_dict(), trial.number)
        self._running[future] = trial, job, alive

    def finished(self) -> list[tuple[optuna.Trial, Job, Outcome]]:
        """Return the jobs that have ended; waits a second for one."""
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), timeout=PAUSE)
        ended = []
        for future in ready:
            trial, job, alive = self._running.pop(future)
            alive.__exit__(None, None, None)
            ended.append((trial, job, self._outcome(future, trial.number)))
        return ended

    def _outcome(self, future: Any, number: int) -> Outcome:
        try:
            outcome, data = self._ray.get(future)
        except self._ray.exceptions.RayError:
            return Outcome(None, 0.0, reason=LOST)
        if outcome.measured is None:
            return Outcome(None, outcome.seconds, reason=outcome.reason)
        path = self._setting.folder / file_name(number)
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, data)
        return replace(outcome, file=file_name(number))


def _check_answers(address: str) -> None:
    """Refuse an address of the form host:port that nothing listens at; Ray waits for minutes.

    Raises
    ------
    TerselmError
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise TerselmError(f"--ray {address}: no cluster answers: {cause}") from None


def remote_job(
    setting: Setting, model: bytes, job: dict[str, Any], number: int
) -> tuple[Outcome, bytes]:
    """Do a job in a folder of its own; return what came of it and the bytes of the file.

    What training made is not shared between tasks, so recipes that begin alike train again.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / setting.model.name
        write_bytes(source, model)
        bench = Workbench(replace(setting, model=source, folder=folder))
        outcome = do_job(bench, Job.from_dict(job), number)
        data = b"" if outcome.measured is None else (folder / outcome.file).read_bytes()
        return outcome, data
