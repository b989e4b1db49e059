"""The optimizer of a run, its learning rate, and the switch from Adam to SGD."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from terselm.errors import UsageError
from terselm.train.config import TrainingConfig


class ScheduledOptimizer:
    """An optimizer from `torch.optim` whose rate follows the schedule.

    "muon" is two of them: Muon (Jordan et al. 2024) changes the matrices between hidden layers,
    AdamW the rest. With the size of step of Liu et al. 2025 (arXiv 2502.16982) both take one rate.

    Parameters
    ----------
    parameters : sequence of nn.Parameter
        What it changes.
    config : TrainingConfig
    matrices : sequence of nn.Parameter
        Those of them that Muon changes, each [rows, columns].

    Raises
    ------
    UsageError
        If Muon would have nothing to change.

    Attributes
    ----------
    rate : float
        The learning rate of the last step, as scheduled: without its window's length.
    switched_after : int
        Epochs done when Adam gave way to SGD; 0 from the start on for the other optimizers.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        config: TrainingConfig,
        matrices: Sequence[nn.Parameter] = (),
    ) -> None:
        self._parameters = list(parameters)
        self._matrices = list(matrices)
        self._config = config
        self._kind = "adam" if config.optimizer == "adam_then_sgd" else config.optimizer
        self._base = config.first_rate
        self._scale = 1.0
        self.switched_after = 0
        self.rate = self._base
        self._limit_before = 0.0  # share of the time limit that was over as the schedule began
        self._optimizers = self._build()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)

    def step(
        self, epoch: int, done: float, length_scale: float = 1.0, limit_used: float = 0.0
    ) -> None:
        """Change the parameters by their gradients.

        Parameters
        ----------
        epoch : int
            The current epoch, from 1.
        done : float
            Share of it that is done, in [0, 1).
        length_scale : float
            Extra factor on the rate, for windows of varied length.
        limit_used : float
            Share of the time limit that is over, where there is one.
        """
        if self._before_schedule(epoch, done):
            self._limit_before = limit_used
        self.rate = self.scheduled_rate(epoch, done, limit_used)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate * length_scale
            optimizer.step()
        if self._fused:
            # torch's fused kernels leave the versions of what they change as they were, and forms
            # that change in training count steps by them.
            torch.autograd.graph.increment_version(self._parameters)

    def scheduled_rate(self, epoch: int, done: float, limit_used: float = 0.0) -> float:
        """Return the rate that the schedule gives at a moment; see `step`."""
        config = self._config
        start = self.switched_after + config.decay_after
        if config.schedule == "exponential":
            # The first epoch has the rate itself.
            constant = self.switched_after + max(config.decay_after, 1)
            return self._base * config.decay ** max(0, epoch - constant)
        if config.schedule == "plateau":
            return self._base * self._scale
        if config.schedule == "cosine" and not self._before_schedule(epoch, done):
            left = max(config.epochs - start, 1)
            of_time = (limit_used - self._limit_before) / max(1 - self._limit_before, 1e-9)
            # Whichever ends the run first, epochs or time, the rate is then near zero.
            share = min(max((epoch - 1 + done - start) / left, of_time, 0.0), 1.0)
            return self._base * 0.5 * (1 + math.cos(math.pi * share))
        return self._base

    def _before_schedule(self, epoch: int, done: float) -> bool:
        return epoch - 1 + done < self.switched_after + self._config.decay_after

    def end_epoch(self, epoch: int, improved: bool) -> None:
        """Take note of a finished epoch: decay on a plateau, or switch to SGD.

        Parameters
        ----------
        epoch : int
            The epoch that ended.
        improved : bool
            Whether its validation perplexity is the best so far.
        """
        config = self._config
        if config.optimizer == "adam_then_sgd" and self._kind == "adam":
            if (not improved) if config.switch_after is None else epoch >= config.switch_after:
                self._switch(epoch)
            return
        if not improved and epoch > self.switched_after + config.decay_after:
            self._scale *= config.decay

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "kind": self._kind,
            "scale": self._scale,
            "switched_after": self.switched_after,
            "rate": self.rate,
            "limit_before": self._limit_before,
            "optimizer": self._optimizers[0].state_dict(),
            "others": [each.state_dict() for each in self._optimizers[1:]],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        if state["kind"] != self._kind:
            self._switch(state["switched_after"])
        self._scale = state["scale"]
        self.switched_after = state["switched_after"]
        self.rate = state["rate"]
        self._limit_before = state.get("limit_before", 0.0)
        stored = [state["optimizer"], *state.get("others", [])]
        for optimizer, values in zip(self._optimizers, stored, strict=True):
            optimizer.load_state_dict(values)

    def _switch(self, epoch: int) -> None:
        self._kind = "sgd"
        self._base = self._config.sgd_learning_rate
        self._scale = 1.0
        self.switched_after = epoch
        self._optimizers = self._build()

    def _build(self) -> list[torch.optim.Optimizer]:
        if self._kind != "muon":
            return [self._made(self._kind, self._parameters)]
        if not self._matrices:
            raise UsageError(
                "optimizer: muon changes whole recurrent matrices, and this model trains none; "
                "use adamw"
            )
        by_muon = set(self._matrices)
        rest = [parameter for parameter in self._parameters if parameter not in by_muon]
        muon = torch.optim.Muon(
            self._matrices,
            lr=self._base,
            weight_decay=self._config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        return [self._made("adamw", rest), muon]

    def _made(self, kind: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        config = self._config
        # One pass over the memory in place of several. Measured on CPU with 4.6 million
        # parameters: Adam 6 ms a step in place of 17, SGD with momentum 4 in place of 6; SGD
        # alone is one pass either way.
        passes = kind != "sgd" or config.momentum > 0
        self._fused = passes and self._parameters[0].device.type in ("cpu", "cuda")
        common: dict[str, Any] = {
            "lr": self._base,
            "weight_decay": config.weight_decay,
            "fused" if self._fused else "foreach": True,
        }
        if kind == "sgd":
            return torch.optim.SGD(parameters, momentum=config.momentum, **common)
        if kind == "adamw":
            return torch.optim.AdamW(parameters, **common)
        return torch.optim.Adam(parameters, **common)
