"""What is recorded of a run, and who may watch it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from terselm.errors import TerselmError

Stopped = Literal["epochs", "early", "time", "interrupted"]


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run when it starts.

    Attributes
    ----------
    epochs, epoch : int
        How many epochs, and the one to begin with (from 1; later after a resume).
    tokens_per_epoch : int
        Over all processes.
    device : str
    processes : int
    """

    epochs: int
    epoch: int
    tokens_per_epoch: int
    device: str
    processes: int


@dataclass(frozen=True)
class StepRecord:
    """The training since the line before.

    Attributes
    ----------
    epoch : int
        From 1.
    step, total_steps : int
        Windows done in this epoch and since the start of the run.
    epoch_done : float
        Share of the epoch that is done, in [0, 1].
    loss, perplexity : float
        Mean nats a token over these windows, dropout included, and its exponential.
    tokens_per_second : float
        Of training, over the whole run.
    learning_rate : float
    gradient_norm : float or None
        Of the last step, before clipping; None without clipping.
    seconds : float
        Since the start of the run, validation and earlier parts of a resumed run included.
    """

    epoch: int
    step: int
    total_steps: int
    epoch_done: float
    loss: float
    perplexity: float
    tokens_per_second: float
    learning_rate: float
    gradient_norm: float | None
    seconds: float


@dataclass(frozen=True)
class EpochRecord:
    """A finished epoch.

    Attributes
    ----------
    epoch, step, total_steps : int
        The epoch, from 1; its windows; and those since the start of the run.
    loss, perplexity : float
        Mean nats a token over the epoch, dropout included, and its exponential.
    valid_perplexity : float or None
        None without validation.
    improved : bool
        Whether the model is the best so far.
    learning_rate, tokens_per_second, seconds
        See `StepRecord`.
    complete : bool
        False where the time limit cut the epoch short.
    """

    epoch: int
    step: int
    total_steps: int
    loss: float
    perplexity: float
    valid_perplexity: float | None
    improved: bool
    learning_rate: float
    tokens_per_second: float
    seconds: float
    complete: bool = True


class Observer(Protocol):
    """Watches a run; called in the main process only."""

    def on_start(self, info: RunInfo) -> None:
        """Take note of the run before its first step."""

    def on_step(self, record: StepRecord) -> None:
        """Take note of some steps, about twice a second."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Take note of a finished epoch."""

    def on_end(self, stopped: Stopped | None) -> None:
        """Take note of the end; None where the run failed."""


class Meter:
    """Sums the loss where the model is, and is read now and then.

    Reading waits for the device, so adding must not read.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Begin an epoch."""
        self._sum = torch.zeros((), dtype=torch.float64, device=self._device)
        self._tokens = 0
        self._marked_sum = 0.0
        self._marked_tokens = 0

    def add(self, nll: Tensor, tokens: int) -> None:
        """Add a window's mean loss, a scalar, with its number of tokens."""
        self._sum += nll.double() * tokens
        self._tokens += tokens

    def epoch_loss(self) -> float:
        """Return the mean loss of a token since the epoch began."""
        return float(self._sum) / max(self._tokens, 1)

    def recent_loss(self) -> float:
        """Return the mean loss of a token since the last `mark`."""
        tokens = self._tokens - self._marked_tokens
        return (float(self._sum) - self._marked_sum) / tokens if tokens else self.epoch_loss()

    def mark(self) -> None:
        """Let the next `recent_loss` begin here."""
        self._marked_sum, self._marked_tokens = float(self._sum), self._tokens

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "sum": float(self._sum),
            "tokens": self._tokens,
            "marked_sum": self._marked_sum,
            "marked_tokens": self._marked_tokens,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        self._sum.fill_(state["sum"])
        self._tokens = state["tokens"]
        self._marked_sum = state["marked_sum"]
        self._marked_tokens = state["marked_tokens"]


class MetricsFile:
    """One JSON object a line: a line with `valid_perplexity` ends an epoch.

    Parameters
    ----------
    path : Path or None
        None writes nothing.
    length : int
        Bytes to keep of an earlier file: what comes after the checkpoint is done again.
    """

    def __init__(self, path: Path | None, length: int = 0) -> None:
        self.path = path
        if path is None:
            return
        try:
            with path.open("ab") as file:
                file.truncate(min(length, file.seek(0, os.SEEK_END)))
        except OSError as error:
            raise TerselmError(f"cannot write {path}: {error.strerror}") from None

    def write(self, record: StepRecord | EpochRecord) -> None:
        """Append a line.

        Raises
        ------
        TerselmError
            If the file cannot be written.
        """
        if self.path is None:
            return
        values = {name: _finite(value) for name, value in asdict(record).items()}
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(values).encode() + b"\n")
        except OSError as error:
            raise TerselmError(f"cannot write {self.path}: {error.strerror}") from None

    def length(self) -> int:
        """Return the bytes written so far; 0 where somebody removed the file."""
        try:
            return 0 if self.path is None else self.path.stat().st_size
        except FileNotFoundError:
            return 0


def perplexity_of(loss: float) -> float:
    """Return e to the loss, infinity where it is too large."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def _finite(value: Any) -> Any:
    # JSON has no infinity.
    return None if isinstance(value, float) and not math.isfinite(value) else value
