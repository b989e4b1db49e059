"""Gated recurrent unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from terselm.cells.base import CELLS, CellSizes, RecurrentCell, State, UnitGroups, run_fused
from terselm.cells.gru_training import train_sequence


@CELLS.register("gru")
class GRU(RecurrentCell):
    """GRU in torch's convention: gates stacked as reset, update, new.

    The reset gate multiplies after the recurrent product (ONNX: linear_before_reset = 1), so
    the new gate's recurrent bias `bias_hn` [hidden] cannot be merged with `bias`.
    """

    kind = "gru"
    gates = 3

    def __init__(self, sizes: CellSizes) -> None:
        super().__init__(sizes)
        self.bias_hn = nn.Parameter(self.bias.detach()[: sizes.hidden].clone())
        bound = 1 / sizes.hidden**0.5
        nn.init.uniform_(self.bias_hn, -bound, bound)

    def bias_names(self) -> tuple[str, ...]:
        """Return the attributes that are bias vectors."""
        return ("bias", "bias_hn")

    def step(self, gx: Tensor, state: State) -> State:
        """Return (output,) after one step; see `RecurrentCell.step`."""
        (output,) = state
        xr, xz, xn = gx.chunk(3, dim=-1)
        hr, hz, hn = self.weight_hh(output).chunk(3, dim=-1)
        update = (xz + hz).sigmoid()
        new = (xn + (xr + hr).sigmoid() * (hn + self.bias_hn)).tanh()
        return (new + update * (output - new),)

    def sequence(
        self, xs: Tensor, state: State, recurrent_dropout: float = 0.0
    ) -> tuple[Tensor, State]:
        """Run over a sequence, with torch's kernel where it is the better one.

        See `RecurrentCell.sequence` and `cells.gru_training`.
        """
        weight_ih = self.weight_ih.dense()
        weight_hh = self.dropped_recurrent_weight(recurrent_dropout)
        if torch.is_grad_enabled() and xs.device.type == "cpu":
            outputs = train_sequence(xs, state[0], weight_ih, weight_hh, self.bias, self.bias_hn)
            return outputs, (outputs[-1],)
        zeros = self.bias.new_zeros(2 * self.hidden_size)
        weights = [weight_ih, weight_hh, self.bias, torch.cat([zeros, self.bias_hn])]
        outputs, last = run_fused(torch.gru, xs, state[0].unsqueeze(0), weights, self.training)
        return outputs, (last[0],)

    def unit_groups(self) -> UnitGroups:
        """Return what shrinks with a hidden unit."""
        groups = super().unit_groups()
        rows = {**groups.rows, "bias_hn": 1}
        return UnitGroups(groups.units, rows, groups.columns, groups.output_is_unit)
