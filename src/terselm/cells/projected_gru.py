"""The gated recurrent unit of arXiv 1902.02380, with a state of low dimension."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from terselm.cells.base import CELLS, CellSizes, State
from terselm.cells.projected import ProjectedCell
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense


@CELLS.register("projected_gru")
class ProjectedGRU(ProjectedCell):
    """GRU whose state m has r numbers and whose candidate has k > r (its section 3.2).

    r = σ(W_r x + U_r m + b_r), z = σ(W_z x + U_z m + b_z)          [r], U_r and U_z r × r
    h = tanh(weight_ih x + weight_hh (r ⊙ m) + bias)                [k], weight_hh k × r
    m' = z ⊙ m + (1 - z) ⊙ weight_hr h                              [r], weight_hr r × k

    The gates are stacked as reset, update in `gates_ih`, `gates_hh` and `gates_bias`. The reset
    gate multiplies before the recurrent product, as in Cho et al. 2014 (arXiv 1406.1078): it has
    the size of the state, not of the candidate. `z` keeps the state where it is one, as in
    torch. Row k of `weight_ih`, `weight_hh` and `bias` belongs to hidden unit k.
    """

    kind = "projected_gru"
    gates = 1

    def __init__(self, sizes: CellSizes) -> None:
        super().__init__(sizes)
        bound = 1 / math.sqrt(sizes.hidden)
        rows = 2 * self.output_size
        self.gates_ih: LinearOp = Dense.initialize(rows, sizes.input, bound)
        self.gates_hh: LinearOp = Dense.initialize(rows, self.output_size, bound)
        self.gates_bias = nn.Parameter(torch.empty(rows).uniform_(-bound, bound))

    def weight_names(self) -> tuple[str, ...]:
        """Return the attributes that are matrices, in the order they are computed."""
        return ("gates_ih", "gates_hh", *super().weight_names())

    def bias_names(self) -> tuple[str, ...]:
        """Return the attributes that are bias vectors."""
        return ("gates_bias", *super().bias_names())

    def project(self, xs: Tensor) -> Tensor:
        """Return the input's part, [..., 2 r + k]: reset, update, candidate."""
        gates = self.gates_ih(xs) + self.gates_bias
        return torch.cat([gates, super().project(xs)], dim=-1)

    def recurrent_ops(self) -> tuple[nn.Module, ...]:
        """Return the recurrent matrices of the gates and of the candidate."""
        return (self.gates_hh, self.weight_hh)

    def step_with(self, recurrent: tuple[nn.Module, ...], gx: Tensor, state: State) -> State:
        """Return (output,) after one step; see `ProjectedCell.step_with`."""
        (output,) = state
        gates_hh, weight_hh = recurrent
        size = self.output_size
        gates = (gx[..., : 2 * size] + gates_hh(output)).sigmoid()
        reset, update = gates.chunk(2, dim=-1)
        candidate = (gx[..., 2 * size :] + weight_hh(reset * output)).tanh()
        new = self.weight_hr(candidate)
        return (new + update * (output - new),)
