"""The plain recurrent network of Elman, with tanh or relu."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from terselm.cells.base import CELLS, RecurrentCell, State, run_fused


class PlainRNN(RecurrentCell):
    """h = activation(weight_ih x + weight_hh h + bias)."""

    gates = 1
    nonlinearity: ClassVar[str]

    def step(self, gx: Tensor, state: State) -> State:
        """Return (output,) after one step; see `RecurrentCell.step`."""
        (output,) = state
        total = gx + self.weight_hh(output)
        return (total.tanh() if self.nonlinearity == "tanh" else total.relu(),)

    def sequence(
        self, xs: Tensor, state: State, recurrent_dropout: float = 0.0
    ) -> tuple[Tensor, State]:
        """Run over a sequence with torch's fused kernel; see `RecurrentCell.sequence`."""
        weights = [
            self.weight_ih.dense(),
            self.dropped_recurrent_weight(recurrent_dropout),
            self.bias,
            torch.zeros_like(self.bias),
        ]
        kernel = torch.rnn_tanh if self.nonlinearity == "tanh" else torch.rnn_relu
        outputs, last = run_fused(kernel, xs, state[0].unsqueeze(0), weights, self.training)
        return outputs, (last[0],)


@CELLS.register("rnn_tanh")
class TanhRNN(PlainRNN):
    """Plain recurrent network with tanh."""

    kind = "rnn_tanh"
    nonlinearity = "tanh"


@CELLS.register("rnn_relu")
class ReluRNN(PlainRNN):
    """Plain recurrent network with relu."""

    kind = "rnn_relu"
    nonlinearity = "relu"
