"""Long short-term memory, with or without a recurrent projection."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from terselm.cells.base import CELLS, CellSizes, RecurrentCell, State, UnitGroups, run_fused
from terselm.cells.lstm_training import is_better, train_sequence
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense


@CELLS.register("lstm")
class LSTM(RecurrentCell):
    """LSTM in torch's convention: gates stacked as input, forget, cell, output.

    With a projection (Sak et al. 2014) the output is weight_hr · h and is what recurs; this is
    also the low-rank LSTM of arXiv 1902.02380, section 3.2.

    The state is (output [batch, output], cell [batch, hidden]).
    """

    kind = "lstm"
    gates = 4
    has_projection = True

    def __init__(self, sizes: CellSizes) -> None:
        super().__init__(sizes)
        self.weight_hr: LinearOp | None = None
        if sizes.projection:
            bound = 1 / math.sqrt(sizes.hidden)
            self.weight_hr = Dense.initialize(sizes.projection, sizes.hidden, bound)

    def weight_names(self) -> tuple[str, ...]:
        """Return the attributes that are matrices, in the order they are computed."""
        names = super().weight_names()
        return names if self.weight_hr is None else (*names, "weight_hr")

    def state_sizes(self) -> tuple[int, ...]:
        """Return (output size, hidden size)."""
        return (self.output_size, self.hidden_size)

    def step(self, gx: Tensor, state: State) -> State:
        """Return (output, cell) after one step; see `RecurrentCell.step`."""
        output, cell = state
        i, f, g, o = (gx + self.weight_hh(output)).chunk(4, dim=-1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        return (hidden if self.weight_hr is None else self.weight_hr(hidden)), cell

    def sequence(
        self, xs: Tensor, state: State, recurrent_dropout: float = 0.0
    ) -> tuple[Tensor, State]:
        """Run over a sequence, with torch's kernel where it is the better one.

        See `RecurrentCell.sequence` and `cells.lstm_training`.
        """
        weight_ih = self.weight_ih.dense()
        weight_hh = self.dropped_recurrent_weight(recurrent_dropout)
        weight_hr = None if self.weight_hr is None else self.weight_hr.dense()
        output, cell = state
        if is_better(xs, self.hidden_size, self.weight_hr is not None):
            kept = (weight_ih, weight_hh, self.bias)
            return train_sequence(xs, (output, cell), kept, weight_hr)
        weights = [weight_ih, weight_hh, self.bias, torch.zeros_like(self.bias)]
        if weight_hr is not None:
            weights.append(weight_hr)
        states = [part.unsqueeze(0) for part in state]
        outputs, output, cell = run_fused(torch.lstm, xs, states, weights, self.training)
        return outputs, (output[0], cell[0])

    def unit_groups(self) -> UnitGroups:
        """Return what shrinks with a hidden unit; with a projection the output stays."""
        groups = super().unit_groups()
        if self.weight_hr is None:
            return groups
        return UnitGroups(groups.units, groups.rows, ("weight_hr",), output_is_unit=False)
