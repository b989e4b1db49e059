"""Which runs are done when: what others need first, as many at once as fit."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from filelock import Timeout

from terselm.cells.base import UNFUSED
from terselm.errors import TerselmError
from terselm.experiments.experiment import Experiment, key_of
from terselm.experiments.lessons import forget, lessons_folder
from terselm.experiments.processes import (
    heed_interrupts,
    leave_interrupts_to_the_command,
    run_context,
    stop_with_parent,
)
from terselm.experiments.store import label_of, model_file, stored_result
from terselm.experiments.suite import Suite, needed_rows
from terselm.experiments.training import make_settings
from terselm.experiments.work import Order, lock_of, perform
from terselm.text.corpus import open_corpus

BYTES_A_RUN = 1.5e9
"""Of memory, beside what grows with the model: torch, text, the scores of a window."""
BYTES_A_PARAMETER = 24
"""Weights, gradients, two moments, the best weights and a copy."""
USUAL_WORDS = 10_000
USUAL_MODEL = {"hidden": 650, "layers": 2}
"""Of a run that starts from another one's model."""
KILLED = "a process was killed, most likely for want of memory; what was trained is kept"
MOST_ON_A_GPU = 4
NEEDED_BY_RUNS = (__name__, "torch._dynamo")
"""The second is loaded by PyTorch's optimizers, and takes as long as the rest of PyTorch."""
SECONDS_BETWEEN_LOOKS = 1.0
"""At what other processes do in the same folder."""


@dataclass(frozen=True)
class Plan:
    """What is to be run, and how.

    Attributes
    ----------
    suite : mapping of str to Experiment
        In an order in which each comes after those that it needs.
    rows : sequence of str
        Those asked for; what they need comes along, with the seeds that they need it with.
    folder : Path
    data : str
    device : {"cpu", "cuda"}
    jobs : int
        Runs at once.
    seeds : frozenset of int or None
        Of the rows' seeds only these, and those that they need models of; None: all.
    texts : mapping of str to str
        Digests of corpora; a result of another text holds no more. Empty: not looked at.
    """

    suite: Suite
    rows: Sequence[str]
    folder: Path
    data: str
    device: str
    jobs: int
    seeds: frozenset[int] | None = None
    texts: Mapping[str, str] = field(default_factory=dict)

    def data_of(self, name: str) -> str:
        """Return the corpus of a row."""
        return self.suite[name].data or self.data


@dataclass
class Progress:
    """Which runs are done, which were lost, and which another process does, by label."""

    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)


def finished(plan: Plan, name: str, seed: int) -> dict[str, Any] | None:
    """Return the result of a run that was made as the experiment now says, or None."""
    key, text = key_of(name, seed, plan.suite, plan.data), plan.texts.get(plan.data_of(name))
    result = stored_result(plan.folder, label_of(name, seed), key, text)
    wanted = _splits(plan.suite, plan.suite[name])
    return result if result is not None and all(split in result for split in wanted) else None


def run_all(plan: Plan, remark: Callable[[str], None]) -> Progress:
    """Do every run that is not done yet.

    A run that fails does not stop the others, only those that need its model. Several processes
    may be at work in one folder: a run that another one does is waited for.

    Parameters
    ----------
    plan : Plan
    remark : callable
        Told in a line when a run begins, ends, or is lost.

    Raises
    ------
    KeyboardInterrupt
        If a training was interrupted; all go on from there next time.
    """
    progress = Progress()
    progress.done.update(stored_results(plan))
    waiting = _runs(plan, progress.done)
    (plan.folder / "logs").mkdir(parents=True, exist_ok=True)
    while waiting:
        # A process that was killed takes the pool along; the rest goes on in another one.
        with contextlib.suppress(BrokenProcessPool):
            _run_in_a_pool(plan, waiting, progress, remark)
    if _none_is_left_to_teach(plan):
        forget(plan.folder)
    return progress


def _none_is_left_to_teach(plan: Plan) -> bool:
    """Whether every run of the suite that has teachers is done, asked for or not."""
    taught = [name for name, experiment in plan.suite.items() if experiment.teacher is not None]
    runs = ((name, seed) for name in taught for seed in plan.suite[name].seeds)
    return lessons_folder(plan.folder).exists() and all(finished(plan, *run) for run in runs)


def _run_in_a_pool(
    plan: Plan,
    waiting: list[tuple[str, int]],
    progress: Progress,
    remark: Callable[[str], None],
) -> None:
    """Take runs from `waiting` until there are none.

    Raises
    ------
    BrokenProcessPool
        If a process was killed; its run, and those beside it, are noted as failed.
    """
    running: dict[Future[dict[str, Any]], Order] = {}
    context = run_context(NEEDED_BY_RUNS)
    with ProcessPoolExecutor(
        plan.jobs, context, leave_interrupts_to_the_command, max_tasks_per_child=1
    ) as pool:
        try:
            while waiting or running:
                _begin(pool, plan, waiting, running, progress, remark)
                if not running and waiting:
                    time.sleep(SECONDS_BETWEEN_LOOKS)
                elif running:
                    patience = SECONDS_BETWEEN_LOOKS if waiting else None
                    ended, _ = wait(running, patience, FIRST_COMPLETED)
                    for future in ended:
                        _take(future, running[future], progress, remark)
                        del running[future]
        except BrokenProcessPool:
            for order in running.values():
                result = stored_result(order.folder, order.label, order.key)
                if result is not None:
                    _note(order.label, result, progress, remark)
                else:
                    progress.failed[order.label] = KILLED
                    remark(f"{order.label}: failed: {KILLED}")
            raise


def _begin(
    pool: ProcessPoolExecutor,
    plan: Plan,
    waiting: list[tuple[str, int]],
    running: dict[Future[dict[str, Any]], Order],
    progress: Progress,
    remark: Callable[[str], None],
) -> None:
    """Begin as many runs as are ready and fit."""
    for name, seed in list(waiting):
        if len(running) == plan.jobs:
            return
        label = label_of(name, seed)
        ready = _ready(plan, name, seed, progress)
        if ready is None:
            continue
        if isinstance(ready, str):
            progress.failed[label] = ready
            remark(f"{label}: not run, {ready}")
        elif (result := finished(plan, name, seed)) is not None:
            _note(label, result, progress, remark)
        elif _in_work_elsewhere(ready):
            if label not in progress.elsewhere:
                remark(f"{label}: another process is at work on it in this folder; waiting for it")
            progress.elsewhere.add(label)
            continue
        elif (other := _made_otherwise(plan, name, seed)) is not None:
            progress.failed[label] = f"since {other} was made otherwise in the meantime"
            remark(f"{label}: not run, {progress.failed[label]}")
        else:
            running[pool.submit(_perform_logged, ready)] = ready
            remark(f"{ready.label}: begun, log in {_log(ready)}")
        waiting.remove((name, seed))


def _made_otherwise(plan: Plan, name: str, seed: int) -> str | None:
    """Return a run whose model is needed and that another command made anew, or None.

    Looked at when a run begins and not at every look: models are read for it.
    """
    needed = plan.suite[name].needed_runs(seed)
    return next((label_of(*run) for run in needed if finished(plan, *run) is None), None)


def _in_work_elsewhere(order: Order) -> bool:
    lock = lock_of(order)
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def texts_of(suite: Suite, data: str) -> dict[str, str]:
    """Return the digests of the corpora of a suite's rows, by what they are called.

    One that cannot be read is left out: the runs that need it will say why.
    """
    found = {}
    for where in {each.data or data for each in suite.values()}:
        with contextlib.suppress(TerselmError):
            found[where] = open_corpus(where).digest()
    return found


def stored_results(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return the results that are there, by label, made as the experiments now say."""
    found = {label_of(name, seed): finished(plan, name, seed) for name, seed in _runs(plan)}
    return {label: result for label, result in found.items() if result is not None}


def jobs_that_fit(suite: Suite, rows: Sequence[str], device: str) -> int:
    """Return how many of the rows' runs may go on at once: by memory, and on CPU by cores."""
    experiments = [suite[name] for name in needed_rows(suite, rows)]
    need = max(BYTES_A_RUN + BYTES_A_PARAMETER * _parameters(each) for each in experiments)
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return max(1, min(MOST_ON_A_GPU, int(free // need), len(experiments)))
    cores = len(os.sched_getaffinity(0))
    free = psutil.virtual_memory().available
    return max(1, min(cores, int(free // need), len(experiments)))


def _runs(plan: Plan, done: Collection[str] = ()) -> list[tuple[str, int]]:
    """Return name and seed of every run: those of the rows, and those that they need.

    Less those that are done, by label, and what only these need.
    """
    seeds: dict[str, dict[int, None]] = {name: {} for name in plan.suite}
    for name in reversed(list(plan.suite)):
        if name in plan.rows:
            own = plan.suite[name].seeds
            seeds[name] |= dict.fromkeys(s for s in own if plan.seeds is None or s in plan.seeds)
        seeds[name] = {seed: None for seed in seeds[name] if label_of(name, seed) not in done}
        for seed in seeds[name]:
            for other, needed in plan.suite[name].needed_runs(seed):
                seeds[other][needed] = None
    return [(name, seed) for name in plan.suite for seed in sorted(seeds[name])]


def _ready(plan: Plan, name: str, seed: int, progress: Progress) -> Order | str | None:
    """Return the order, or why it will never be one, or None if what it needs is not done yet."""
    experiment = plan.suite[name]
    for label in (label_of(*run) for run in experiment.needed_runs(seed)):
        if label in progress.failed:
            return f"since {label} failed"
        if label not in progress.done:
            return None

    def model_of(run: tuple[str, int]) -> Path:
        return model_file(plan.folder, label_of(*run))

    cores = len(os.sched_getaffinity(0))
    return Order(
        name=name,
        experiment=experiment,
        seed=seed,
        key=key_of(name, seed, plan.suite, plan.data),
        folder=plan.folder,
        data=plan.data_of(name),
        device=plan.device,
        threads=max(1, cores // plan.jobs),
        starts=tuple(model_of(run) for run in experiment.start_runs(seed)),
        teachers=tuple(model_of(run) for run in experiment.teacher_runs(seed)),
        splits=_splits(plan.suite, experiment),
    )


def _splits(suite: Suite, experiment: Experiment) -> tuple[str, ...]:
    """Return what a model is measured on.

    Where a suite has budgets, rows without one are steps towards those; steps are chosen by
    validation text, and the test text stays unread.
    """
    judged = experiment.budget is not None or experiment.published is not None
    if judged or all(each.budget is None for each in suite.values()):
        return "valid", "test"
    return ("valid",)


def _take(
    future: Future[dict[str, Any]],
    order: Order,
    progress: Progress,
    remark: Callable[[str], None],
) -> None:
    try:
        result = future.result()
    except BrokenProcessPool:
        raise
    except Exception as error:  # whatever it is, the others go on; the log has where it was
        why = " ".join(str(error).split()) or type(error).__name__
        progress.failed[order.label] = why
        remark(f"{order.label}: failed: {why}")
        return
    _note(order.label, result, progress, remark)


def _note(
    label: str, result: dict[str, Any], progress: Progress, remark: Callable[[str], None]
) -> None:
    progress.done[label] = result
    found = [
        f"{split} {result[split]['perplexity']:.2f}"
        for split in ("valid", "test")
        if split in result
    ]
    remark(f"{label}: {result['bytes']:,} bytes, {', '.join(found)}, {result['seconds']:,.0f} s")


def _log(order: Order) -> Path:
    return order.folder / "logs" / f"{order.label}.log"


def _perform_logged(order: Order) -> dict[str, Any]:
    """Do a run with its progress in a log file; runs in a process of its own."""
    heed_interrupts()
    with (
        _log(order).open("a", encoding="utf-8", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        # Training and compression print through sys.stderr of the moment, rich among them.
        assert sys.stderr is log
        warnings.filterwarnings("ignore", message=UNFUSED)
        threading.Thread(target=stop_with_parent, daemon=True).start()
        try:
            return perform(order)
        except TerselmError:
            raise
        except Exception:
            traceback.print_exc()
            raise


def _parameters(experiment: Experiment) -> float:
    """Return about how many numbers the model of an experiment has in training."""
    own = experiment.train if experiment.start is None else None
    settings = make_settings(own or USUAL_MODEL)
    model, words = settings.model, settings.text.get("vocabulary_size") or USUAL_WORDS
    width = max(model.hidden)
    return float(words * (model.embedding + width) + len(model.hidden) * 8 * width * width)
