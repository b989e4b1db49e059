"""`search`: everything together."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terselm.errors import UsageError
from terselm.models.checkpoint import save
from terselm.models.language_model import LanguageModel
from terselm.pipeline.budget import Budget
from terselm.pipeline.device import DeviceProfile, read_profile
from terselm.pipeline.fingerprint import (
    check_fingerprint,
    check_folder,
    digest_of,
    mark_folder,
)
from terselm.pipeline.finish import finish
from terselm.pipeline.folder import check_unused, locked, study_url
from terselm.pipeline.helpers import helpers
from terselm.pipeline.measurement import Candidate
from terselm.pipeline.queue import Watcher
from terselm.pipeline.ray_runner import RayRunner
from terselm.pipeline.search import Request, Search, fits
from terselm.pipeline.sensitivity import check_dense
from terselm.pipeline.serve import serve
from terselm.pipeline.study import Study
from terselm.pipeline.work import HereRunner, Runner
from terselm.pipeline.workbench import Setting, Workbench


class Silent:
    """A watcher that says nothing."""

    def phase(self, text: str) -> None:
        """Say nothing."""

    def tried(self, candidate: Candidate) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Workers:
    """Who does the trials.

    Attributes
    ----------
    jobs : int
        Processes on this machine.
    storage : str or None
        Address of the study; a file in the folder of the search if None.
    study : str or None
        Its name there; one made of the model's file if None.
    ray : str or None
        Address of a Ray cluster that does the trials; "local" starts one here.
    """

    jobs: int = 1
    storage: str | None = None
    study: str | None = None
    ray: str | None = None


def search(
    model: str | Path | LanguageModel,
    budget: Budget | None = None,
    *,
    data: str,
    out: str | Path,
    time_limit: float | None = 600.0,
    rounds: int | None = None,
    seed: int = 0,
    kernels: str | None = None,
    device_profile: str | Path | None = None,
    workers: Workers | None = None,
    resume: bool = False,
    force: bool = False,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Find the smallest or best form of a model within a budget, and write it and a report.

    Parameters
    ----------
    model : str, Path or LanguageModel
        A model file, or a model, whose matrices are dense.
    budget : Budget, optional
        Without one, three answers are given: closest, balanced and smallest.
    data : str
        A corpus with train, valid and test split, see `terselm.text.corpus.open_corpus`.
    out : str or Path
        Folder for the study, the report and the models.
    time_limit : float, optional
        Seconds; None for none, and then one round.
    rounds : int, optional
        Rounds of exploring and training at most.
    seed : int
    kernels : str, optional
        Of the C library; the fastest of this machine if left out.
    device_profile : str or Path, optional
        What `tlm-bench --json` wrote on another device; latencies are then estimates for it.
    workers : Workers, optional
    resume : bool
        Go on with the search in `out`; where there is none yet, one begins.
    force : bool
        Search although the model keeps the budget as it is.
    watcher : Watcher, optional
        Told what is done.

    Returns
    -------
    dict
        The contents of results.json; with key "fits" alone where the model keeps the budget as
        it is and nothing was done.

    Raises
    ------
    UsageError
        If something asked for is impossible, or the folder holds another search.
    TerselmError
        If the budget cannot be met; the message has the nearest that can.
    """
    folder, workers = Path(out), workers or Workers()
    watcher = watcher or Silent()
    request = Request(budget, math.inf if time_limit is None else time_limit, rounds)
    profile = None if device_profile is None else Path(device_profile)
    if not isinstance(model, LanguageModel):
        _check_there(Path(model))
    with locked(folder, resume=resume), _as_file(model, folder) as path:
        bench = Workbench(Setting(path, data, folder, seed, kernels, _profile(profile)))
        check_folder(bench, study_name(path, workers))
        check_dense(bench.source)
        study = open_study(folder, path, workers, seed)
        check_fingerprint(study, bench)
        where = f"--out {folder}" if workers.storage is None else f"--study {study.name}"
        check_unused(where, used=study.begun, resume=resume)
        if resume and not study.begun:
            watcher.phase(f"{where} has nothing to go on with; a search begins")
        mark_folder(bench, study)
        if workers.storage is None:
            study.drop_running()
        runner: Runner = HereRunner(bench, study)
        if workers.ray is not None:
            runner = RayRunner(bench.setting, study, workers.ray)
        made = Search(bench, study, runner, request, watcher)
        if budget is not None and fits(made.source, made.limits) and not force:
            study.note("state", "done")
            return {"fits": True, "source": made.source.as_dict(), "limits": made.limits.as_dict()}
        url = workers.storage or study_url(folder)
        with helpers(bench.setting, profile, url=url, study=study.name, jobs=workers.jobs):
            candidates = made.run()
        return finish(made, candidates)


def work(
    model: Path,
    *,
    data: str,
    out: Path,
    seed: int,
    kernels: str | None,
    device_profile: Path | None,
    workers: Workers,
    parent: int | None,
    watcher: Watcher,
) -> None:
    """Do trials of a search that another process runs; see `terselm.pipeline.serve`.

    Parameters
    ----------
    device_profile : Path or None
        The same as the search has.
    parent : int or None
        A process without which there is nothing to do.
    """
    out.mkdir(parents=True, exist_ok=True)
    bench = Workbench(Setting(model, data, out, seed, kernels, _profile(device_profile)))
    check_folder(bench, study_name(model, workers))
    study = open_study(out, model, workers, seed + os.getpid())
    serve(bench, study, watcher, parent)


def open_study(folder: Path, model: Path, workers: Workers, seed: int) -> Study:
    """Return the study of a search."""
    url = workers.storage or study_url(folder)
    return Study(url, study_name(model, workers), seed)


def study_name(model: Path, workers: Workers) -> str:
    """Return the name of the study of a search for a model."""
    return workers.study or f"{model.stem}-{digest_of(model)[:8]}"


def _profile(path: Path | None) -> DeviceProfile | None:
    return None if path is None else read_profile(path)


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"there is no model file {path}")


@contextmanager
def _as_file(model: str | Path | LanguageModel, folder: Path) -> Iterator[Path]:
    if not isinstance(model, LanguageModel):
        yield Path(model)
        return
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = Path(name) / "source.safetensors"
        save(model, path)
        yield path
