"""How long a model file takes on this machine."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from terselm.runtime.model import Model
from terselm.runtime.state import State

WARM_UP = 50
TEXT_SEED = 0
PAUSE = 0.1
"""Seconds between series that are spread."""


@dataclass(frozen=True)
class Timing:
    """What was measured; times are microseconds a token unless they say otherwise.

    Attributes
    ----------
    step : float
        Median time to read a token, without the output layer.
    token, token_p95 : float
        Median and 95th percentile of a token with the log-probabilities of all words.
    open_milliseconds : float
        From the file to the first prediction; the file is in the cache of the system.
    batch : int
        States stepped together for `tokens_per_second`, output layer included.
    working_bytes : int
        Memory beside the file.
    """

    kernels: str
    threads: int
    file_bytes: int
    working_bytes: int
    open_milliseconds: float
    step: float
    token: float
    token_p95: float
    batch: int
    tokens_per_second: float

    def as_dict(self) -> dict[str, Any]:
        """Return the measurement as JSON values."""
        return asdict(self)


def measure(
    path: str | os.PathLike[str],
    *,
    steps: int = 1000,
    batch: int = 64,
    threads: int = 1,
    kernels: str | None = None,
) -> Timing:
    """Time a model file with random tokens.

    Parameters
    ----------
    path : str or path-like
    steps : int
        Tokens that are timed one by one.
    batch : int
        States stepped together in the second part.
    threads : int
    kernels : str, optional

    Raises
    ------
    TerselmError
        If the file is no sound model.
    """
    started = time.perf_counter_ns()
    model = Model(path, threads=threads, kernels=kernels)
    state = model.state()
    model.log_probabilities(state)
    opened = time.perf_counter_ns() - started
    step, whole = _one_by_one(model, state, steps)
    return Timing(
        kernels=model.kernels,
        threads=threads,
        file_bytes=model.describe().file_bytes,
        working_bytes=model.working_bytes(),
        open_milliseconds=opened / 1e6,
        step=float(np.median(step)) / 1e3,
        token=float(np.median(whole)) / 1e3,
        token_p95=float(np.percentile(whole, 95)) / 1e3,
        batch=batch,
        tokens_per_second=_batched(path, steps, batch, threads, kernels),
    )


@dataclass(frozen=True)
class QuickTiming:
    """What a short measurement says.

    Attributes
    ----------
    step, token : float
        As of `Timing`; the least of the medians of several short series, since whatever else the
        machine does only adds to a time.
    memory : int
        Bytes of the file, the working memory and one state.
    """

    step: float
    token: float
    memory: int


def measure_quickly(
    path: str | os.PathLike[str],
    *,
    kernels: str | None = None,
    series: int = 5,
    steps: int = 60,
    seconds: float = 0.0,
) -> QuickTiming:
    """Time a model file with one thread, in well under a second for a small model.

    Parameters
    ----------
    path : str or path-like
    kernels : str, optional
    series, steps : int
        How many series at least, and tokens in each.
    seconds : float
        Over which series are spread at least, with pauses: a machine that is shared is often
        slower by half for a second.

    Raises
    ------
    TerselmError
        If the file is no sound model.
    """
    model = Model(path, kernels=kernels)
    state = model.state()
    medians: list[tuple[float, float]] = []
    end = time.monotonic() + seconds
    while len(medians) < series or time.monotonic() < end:
        step, whole = _one_by_one(model, state, steps)
        medians.append((float(np.median(whole)) / 1e3, float(np.median(step)) / 1e3))
        time.sleep(min(PAUSE, seconds / series))
    token, step_time = min(medians)
    memory = model.describe().file_bytes + model.working_bytes() + len(state.save())
    return QuickTiming(step=step_time, token=token, memory=memory)


def _one_by_one(model: Model, state: State, steps: int) -> tuple[list[int], list[int]]:
    """Return nanoseconds of each step alone and with all log-probabilities, warmed up."""
    random = np.random.default_rng(TEXT_SEED)
    tokens = random.integers(0, len(model), steps + WARM_UP).tolist()
    step, whole = [], []
    for token in tokens:
        begin = time.perf_counter_ns()
        model.step(state, token)
        middle = time.perf_counter_ns()
        model.log_probabilities(state)
        step.append(middle - begin)
        whole.append(time.perf_counter_ns() - begin)
    return step[WARM_UP:], whole[WARM_UP:]


def _batched(
    path: str | os.PathLike[str], steps: int, batch: int, threads: int, kernels: str | None
) -> float:
    """Return tokens a second of `batch` states stepped together; the median round counts."""
    model = Model(path, batch=batch, threads=threads, kernels=kernels)
    states = [model.state() for _ in range(batch)]
    random = np.random.default_rng(TEXT_SEED)
    rounds = []
    for _ in range(max(5, steps // batch)):
        tokens = random.integers(0, len(model), batch)
        begin = time.perf_counter_ns()
        model.step_many(states, tokens)
        model.log_probabilities_many(states)
        rounds.append(time.perf_counter_ns() - begin)
    return batch / (float(np.median(rounds)) / 1e9)
