"""Which runs are done when: what others need first, as many at once as fit."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from terselm.cells.base import UNFUSED
from terselm.errors import TerselmError
from terselm.experiments.experiment import Experiment, key_of
from terselm.experiments.suite import Suite
from terselm.experiments.work import (
    Order,
    label_of,
    lock_of,
    model_file,
    perform,
    stored_result,
)

BYTES_A_RUN = 1.5e9
"""Of memory, beside what grows with the model: torch, text, the scores of a window."""
BYTES_A_PARAMETER = 24
"""Weights, gradients, two moments, the best weights and a copy."""
USUAL_WORDS = 10_000
KILLED = "a process was killed, most likely for want of memory; what was trained is kept"
MOST_ON_A_GPU = 4
SECONDS_BETWEEN_LOOKS = 1.0
"""At what other processes do in the same folder."""


@dataclass(frozen=True)
class Plan:
    """What is to be run, and how.

    Attributes
    ----------
    suite : mapping of str to Experiment
    rows : sequence of str
        In an order in which each comes after those that it needs.
    folder : Path
    data : str
    device : {"cpu", "cuda"}
    jobs : int
        Runs at once.
    seeds : frozenset of int or None
        Of the rows' seeds only these, and those that they need models of; None: all.
    """

    suite: Suite
    rows: Sequence[str]
    folder: Path
    data: str
    device: str
    jobs: int
    seeds: frozenset[int] | None = None


@dataclass
class Progress:
    """Which runs are done, which were lost, and which another process does, by label."""

    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)


def finished(plan: Plan, name: str, seed: int) -> dict[str, Any] | None:
    """Return the result of a run that was made as the experiment now says, or None."""
    return stored_result(
        plan.folder, label_of(name, seed), key_of(name, seed, plan.suite, plan.data)
    )


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
    waiting = [run for run in _runs(plan) if label_of(*run) not in progress.done]
    (plan.folder / "logs").mkdir(parents=True, exist_ok=True)
    while waiting:
        # A process that was killed takes the pool along; the rest goes on in another one.
        with contextlib.suppress(BrokenProcessPool):
            _run_in_a_pool(plan, waiting, progress, remark)
    return progress


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
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(plan.jobs, mp_context=context, max_tasks_per_child=1) as pool:
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
        else:
            running[pool.submit(_perform_logged, ready, os.getpid())] = ready
            remark(f"{ready.label}: begun, log in {_log(ready)}")
        waiting.remove((name, seed))


def _in_work_elsewhere(order: Order) -> bool:
    lock = lock_of(order)
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def stored_results(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return the results that are there, by label, made as the experiments now say."""
    found = {label_of(name, seed): finished(plan, name, seed) for name, seed in _runs(plan)}
    return {label: result for label, result in found.items() if result is not None}


def jobs_that_fit(experiments: Sequence[Experiment], device: str) -> int:
    """Return how many of these runs may go on at once: by memory, and on CPU by cores."""
    need = max(BYTES_A_RUN + BYTES_A_PARAMETER * _parameters(each) for each in experiments)
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return max(1, min(MOST_ON_A_GPU, int(free // need), len(experiments)))
    cores = len(os.sched_getaffinity(0))
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return max(1, min(cores, int(free // need), len(experiments)))


def _runs(plan: Plan) -> list[tuple[str, int]]:
    """Return name and seed of every run; those that others need get the seeds of those too."""
    seeds: dict[str, dict[int, None]] = {name: {} for name in plan.rows}
    for name in reversed(plan.rows):
        own = plan.suite[name].seeds
        seeds[name] |= dict.fromkeys(s for s in own if plan.seeds is None or s in plan.seeds)
        for seed in seeds[name]:
            for other, needed in plan.suite[name].needed_runs(seed):
                seeds[other][needed] = None
    return [(name, seed) for name in plan.rows for seed in sorted(seeds[name])]


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
        data=experiment.data or plan.data,
        device=plan.device,
        threads=max(1, cores // plan.jobs),
        start=None if experiment.start is None else model_of((experiment.start, seed)),
        teachers=tuple(model_of(run) for run in experiment.teacher_runs(seed)),
    )


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
    remark(
        f"{label}: {result['bytes']:,} bytes, valid {result['valid']['perplexity']:.2f}, "
        f"test {result['test']['perplexity']:.2f}, {result['seconds']:,.0f} s"
    )


def _log(order: Order) -> Path:
    return order.folder / "logs" / f"{order.label}.log"


def _perform_logged(order: Order, parent: int) -> dict[str, Any]:
    """Do a run with its progress in a log file; runs in a process of its own."""
    with (
        _log(order).open("a", encoding="utf-8", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        # Training and compression print through sys.stderr of the moment, rich among them.
        assert sys.stderr is log
        warnings.filterwarnings("ignore", message=UNFUSED)
        threading.Thread(target=_stop_with, args=(parent,), daemon=True).start()
        try:
            return perform(order)
        except TerselmError:
            raise
        except Exception:
            traceback.print_exc()
            raise


def _stop_with(parent: int) -> None:
    """Stop this process, with a checkpoint, when the one that began it is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def _parameters(experiment: Experiment) -> float:
    """Return about how many numbers the model of an experiment has in training."""
    train: Mapping[str, Any] = experiment.train or {}
    hidden = train.get("hidden", 650)
    width = max(hidden) if isinstance(hidden, list) else hidden
    layers = train.get("layers", 2)
    embedding = train.get("embedding", width)
    words = train.get("vocabulary_size", USUAL_WORDS)
    return float(words * (embedding + width) + layers * 8 * width * width)
