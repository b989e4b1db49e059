"""Averages of the weights over the steps of training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terselm.train.config import TrainingConfig


class Average:
    """No average: the weights are what is validated and kept. The base of the others.

    Parameters
    ----------
    parameters : sequence of nn.Parameter
        The trained parameters; averages are of the same shapes, on the same device.
    config : TrainingConfig
    """

    def __init__(self, parameters: Sequence[nn.Parameter], config: TrainingConfig) -> None:
        self._parameters = [parameter.detach() for parameter in parameters]
        self._config = config
        self._means: list[Tensor] | None = None
        self._steps = 0

    def update(self) -> None:
        """Take the weights after a step into the average."""

    def end_epoch(self, perplexity: float | None) -> None:
        """Take note of the validation perplexity after an epoch."""

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Put the average in the place of the weights while the block runs."""
        if self._means is None:
            yield
            return
        with torch.no_grad():
            current = [parameter.clone() for parameter in self._parameters]
            torch._foreach_copy_(self._parameters, self._means)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._parameters, current)

    def put_in(self) -> None:
        """Put the average in the place of the weights for good."""
        if self._means is not None:
            with torch.no_grad():
                torch._foreach_copy_(self._parameters, self._means)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"steps": self._steps, "means": self._means}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        self._steps = state["steps"]
        means = state["means"]
        if means is not None:
            means = [
                mean.to(parameter.device)
                for mean, parameter in zip(means, self._parameters, strict=True)
            ]
        self._means = means

    def _start(self) -> list[Tensor]:
        self._means = [parameter.clone() for parameter in self._parameters]
        return self._means

    def _move(self, share: float) -> None:
        if self._means is not None:
            with torch.no_grad():
                torch._foreach_lerp_(self._means, self._parameters, share)


class MovingAverage(Average):
    """Exponential moving average over steps.

    The decay rises to `average_decay` as (1 + n) / (10 + n) over the first steps, so that the
    initial weights do not linger.
    """

    def update(self) -> None:
        """Move the average towards the weights."""
        self._steps += 1
        if self._means is None:
            self._start()
            return
        warm = (1 + self._steps) / (10 + self._steps)
        self._move(1 - min(self._config.average_decay, warm))


class TriggeredAverage(Average):
    """The mean of all weights since validation stopped improving (Merity et al. 2018, NT-ASGD).

    It begins after the first epoch whose perplexity is above the best of those more than
    `average_patience` epochs before it.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], config: TrainingConfig) -> None:
        super().__init__(parameters, config)
        self._perplexities: list[float] = []

    def update(self) -> None:
        """Take the weights into the mean, once triggered."""
        if self._means is not None:
            self._steps += 1
            self._move(1 / self._steps)

    def end_epoch(self, perplexity: float | None) -> None:
        """Trigger where the perplexity does not fall any more."""
        if self._means is not None or perplexity is None:
            return
        before = self._perplexities[: -self._config.average_patience]
        self._perplexities.append(perplexity)
        if before and not perplexity <= min(before):
            self._start()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {**super().state(), "perplexities": list(self._perplexities)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        super().load_state(state)
        self._perplexities = list(state["perplexities"])


def make_average(parameters: Sequence[nn.Parameter], config: TrainingConfig) -> Average:
    """Return the average that the settings ask for."""
    kinds = {"none": Average, "ema": MovingAverage, "nt_asgd": TriggeredAverage}
    return kinds[config.averaging](parameters, config)
