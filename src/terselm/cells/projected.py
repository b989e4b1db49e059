"""What cells with a recurrent projection and no fused kernel have in common."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from terselm.cells.base import CellSizes, RecurrentCell, State, UnitGroups
from terselm.cells.dropout import dropout
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense


class ProjectedCell(RecurrentCell):
    """A cell whose output is weight_hr h, smaller than its hidden vector h.

    It runs step by step: torch has fused kernels with a projection for LSTM only.
    """

    has_projection: ClassVar[bool] = True
    needs_projection: ClassVar[bool] = True

    def __init__(self, sizes: CellSizes) -> None:
        if sizes.projection is None:
            raise ValueError(f"a {self.kind} cell needs a projection")
        super().__init__(sizes)
        bound = 1 / math.sqrt(sizes.hidden)
        self.weight_hr: LinearOp = Dense.initialize(sizes.projection, sizes.hidden, bound)

    def weight_names(self) -> tuple[str, ...]:
        """Return the attributes that are matrices, in the order they are computed."""
        return (*super().weight_names(), "weight_hr")

    def unit_groups(self) -> UnitGroups:
        """Return what shrinks with a hidden unit; the output keeps its size."""
        rows = {"weight_ih": self.gates, "weight_hh": self.gates, "bias": self.gates}
        return UnitGroups(self.hidden_size, rows, ("weight_hr",), output_is_unit=False)

    def step(self, gx: Tensor, state: State) -> State:
        """Return (output,) after one step; see `RecurrentCell.step`."""
        return self.step_with(self.recurrent_ops(), gx, state)

    def recurrent_ops(self) -> tuple[nn.Module, ...]:
        """Return the recurrent matrices, in the order in which `step_with` takes them."""
        return (self.weight_hh,)

    def step_with(self, recurrent: tuple[nn.Module, ...], gx: Tensor, state: State) -> State:
        """Return the state after one step with the recurrent matrices given.

        Parameters
        ----------
        recurrent : tuple of Module
            `recurrent_ops()`, or the same with weights left out.
        gx : Tensor
            float32 [batch, rows], one step of what `project` returns.
        state : State
            (output [batch, output],).
        """
        raise NotImplementedError

    def sequence(
        self, xs: Tensor, state: State, recurrent_dropout: float = 0.0
    ) -> tuple[Tensor, State]:
        """Run over a sequence step by step; see `RecurrentCell.sequence`."""
        recurrent = self.recurrent_ops()
        if self.training and recurrent_dropout > 0:
            # Once for the whole sequence, so that every step misses the same weights.
            recurrent = tuple(_Dropped(op, recurrent_dropout) for op in recurrent)
        outputs = []
        for gx in self.project(xs):
            state = self.step_with(recurrent, gx, state)
            outputs.append(state[0])
        return torch.stack(outputs), state


class _Dropped(nn.Module):
    """A matrix with weights left out, the rest scaled up."""

    def __init__(self, op: nn.Module, probability: float) -> None:
        super().__init__()
        assert isinstance(op, LinearOp)
        self._weight = dropout(op.dense(), probability)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self._weight)
