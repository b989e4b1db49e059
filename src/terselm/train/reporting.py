"""Telling the metrics file and the observer how a run goes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from terselm.errors import TerselmError
from terselm.train.metrics import (
    EpochRecord,
    Meter,
    MetricsFile,
    Observer,
    StepRecord,
    perplexity_of,
)

LINES_AN_EPOCH = 20
SECONDS_BETWEEN_LOOKS = 0.5


@dataclass
class Position:
    """How far a run is.

    Attributes
    ----------
    epoch : int
        The epoch to train now, from 1.
    step, total_steps : int
        Windows done in it, and since the start of the run.
    tokens : int
        Trained on since the start, by all processes.
    training_seconds, seconds : float
        Spent on training steps, and on everything.
    """

    epoch: int = 1
    step: int = 0
    total_steps: int = 0
    tokens: int = 0
    training_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens trained on a second of training."""
        return self.tokens / max(self.training_seconds, 1e-9)


class Reporter:
    """Reads the meter when a line is due, and passes records on.

    Parameters
    ----------
    meter : Meter
    metrics : MetricsFile
    observer : Observer or None
    """

    def __init__(self, meter: Meter, metrics: MetricsFile, observer: Observer | None) -> None:
        self.metrics = metrics
        self.observer = observer
        self._meter = meter
        self._looked = time.monotonic()

    def after_step(self, position: Position, steps: int, rate: float, norm: Tensor | None) -> None:
        """Write a line where one is due, some twenty an epoch; show progress twice a second.

        Parameters
        ----------
        position : Position
        steps : int
            Windows of the epoch.
        rate : float
            The learning rate.
        norm : Tensor or None
            The gradient's norm before clipping, a scalar.

        Raises
        ------
        TerselmError
            If the loss is not finite.
        """
        now = time.monotonic()
        line = position.step % max(1, steps // LINES_AN_EPOCH) == 0 or position.step == steps
        look = self.observer is not None and now - self._looked >= SECONDS_BETWEEN_LOOKS
        if not line and not look:
            return
        self.check(position, rate)
        loss = self._meter.recent_loss()
        record = StepRecord(
            epoch=position.epoch,
            step=position.step,
            total_steps=position.total_steps,
            epoch_done=position.step / steps,
            loss=loss,
            perplexity=perplexity_of(loss),
            tokens_per_second=position.tokens_per_second,
            learning_rate=rate,
            gradient_norm=None if norm is None else float(norm),
            seconds=position.seconds,
        )
        if line:
            self.metrics.write(record)
            self._meter.mark()
        if self.observer is not None:
            self.observer.on_step(record)
        self._looked = now

    def check(self, position: Position, rate: float, weights: Sequence[Tensor] = ()) -> None:
        """Fail where the loss, or one of the weights, has become NaN or infinite.

        Raises
        ------
        TerselmError
            The message says where and what to try.
        """
        loss = self._meter.epoch_loss()
        if math.isfinite(loss) and not all(bool(torch.isfinite(w).all()) for w in weights):
            loss = math.nan
        if not math.isfinite(loss):
            raise TerselmError(
                f"the loss is {loss} in epoch {position.epoch} at step {position.step}; try a "
                f"lower learning rate (it was {rate:g}) or clip; the last checkpoint is kept"
            )

    def after_epoch(
        self,
        position: Position,
        rate: float,
        valid_perplexity: float | None,
        improved: bool,
        complete: bool,
    ) -> EpochRecord:
        """Write the line that ends an epoch and return its record; see `EpochRecord`."""
        loss = self._meter.epoch_loss()
        record = EpochRecord(
            epoch=position.epoch,
            step=position.step,
            total_steps=position.total_steps,
            loss=loss,
            perplexity=perplexity_of(loss),
            valid_perplexity=valid_perplexity,
            improved=improved,
            learning_rate=rate,
            tokens_per_second=position.tokens_per_second,
            seconds=position.seconds,
            complete=complete,
        )
        self.metrics.write(record)
        if self.observer is not None:
            self.observer.on_epoch(record)
        return record
