"""What every recurrent cell can do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from terselm.cells.dropout import dropout
from terselm.cells.products import product_type
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.registry import Registry

UNFUSED = "LSTM with projections is not supported with oneDNN"
"""How torch's warning begins that tells nothing a user could change."""

CELLS: Registry[type[RecurrentCell]] = Registry("cell", "terselm.cells")

State = tuple[Tensor, ...]
"""What a cell carries from step to step, each [batch, size]; the first is its output."""


@dataclass(frozen=True)
class UnitGroups:
    """Which rows and columns belong to one hidden unit, for taking units out for real.

    Attributes
    ----------
    units : int
        How many hidden units the cell has.
    rows : Mapping[str, int]
        For each weight or bias whose rows are stacked gates: how many gates. Unit k owns rows
        k, k + units, k + 2 units, ...
    columns : tuple of str
        The weights whose column k reads unit k.
    output_is_unit : bool
        Whether output k of the cell is unit k, so that the next layer's column k goes too.
    """

    units: int
    rows: Mapping[str, int]
    columns: tuple[str, ...]
    output_is_unit: bool


@dataclass(frozen=True)
class CellSizes:
    """The sizes a cell is built from.

    Attributes
    ----------
    input : int
        Size of the input vector.
    hidden : int
        Hidden units.
    projection : int or None
        Size of the recurrent projection, where the cell has one.
    """

    input: int
    hidden: int
    projection: int | None = None


class RecurrentCell(nn.Module):
    """One recurrent layer whose matrices are `LinearOp`s.

    Attributes
    ----------
    input_size, hidden_size, output_size : int
        The output is smaller than the hidden size where the cell has a projection.
    """

    kind: ClassVar[str]
    gates: ClassVar[int]
    has_projection: ClassVar[bool] = False
    needs_projection: ClassVar[bool] = False

    def __init__(self, sizes: CellSizes) -> None:
        super().__init__()
        self.input_size = sizes.input
        self.hidden_size = sizes.hidden
        self.output_size = sizes.projection or sizes.hidden
        bound = 1 / math.sqrt(sizes.hidden)
        rows = self.gates * sizes.hidden
        self.weight_ih: LinearOp = Dense.initialize(rows, sizes.input, bound)
        self.weight_hh: LinearOp = Dense.initialize(rows, self.output_size, bound)
        self.bias = nn.Parameter(torch.empty(rows).uniform_(-bound, bound))

    def weight_names(self) -> tuple[str, ...]:
        """Return the attributes that are matrices, in the order they are computed."""
        return ("weight_ih", "weight_hh")

    def bias_names(self) -> tuple[str, ...]:
        """Return the attributes that are bias vectors."""
        return ("bias",)

    def state_sizes(self) -> tuple[int, ...]:
        """Return the size of each vector of the state."""
        return (self.output_size,)

    def initial_state(self, batch: int, device: torch.device | str = "cpu") -> State:
        """Return zeros, float32 [batch, size] each."""
        return tuple(torch.zeros(batch, size, device=device) for size in self.state_sizes())

    def project(self, xs: Tensor) -> Tensor:
        """Return the input's part of the gates, [..., gates * hidden], for xs [..., input]."""
        return self.weight_ih(xs) + self.bias

    def step(self, gx: Tensor, state: State) -> State:
        """Return the state after one step.

        Parameters
        ----------
        gx : Tensor
            float32 [batch, gates * hidden], one step of what `project` returns.
        state : State
            The state before.
        """
        raise NotImplementedError

    def sequence(
        self, xs: Tensor, state: State, recurrent_dropout: float = 0.0
    ) -> tuple[Tensor, State]:
        """Run the cell over a sequence.

        Parameters
        ----------
        xs : Tensor
            float32 [time, batch, input].
        state : State
            The state before the first step.
        recurrent_dropout : float
            Probability that a recurrent weight is left out for the whole sequence (weight
            drop, Merity et al. 2018).

        Returns
        -------
        outputs : Tensor
            float32 [time, batch, output].
        state : State
            The state after the last step.
        """
        raise NotImplementedError

    def stepwise(self, xs: Tensor, state: State) -> tuple[Tensor, State]:
        """Run the cell step by step, as it is defined; see `sequence` for the arguments."""
        gates = self.project(xs)
        outputs = []
        for gx in gates:
            state = self.step(gx, state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    def unit_groups(self) -> UnitGroups:
        """Return what must shrink together with one hidden unit."""
        rows = {"weight_ih": self.gates, "weight_hh": self.gates, "bias": self.gates}
        return UnitGroups(self.hidden_size, rows, ("weight_hh",), output_is_unit=True)

    def dropped_recurrent_weight(self, probability: float) -> Tensor:
        """Return the dense recurrent matrix, with weights left out where training asks so."""
        weight = self.weight_hh.dense()
        return dropout(weight, probability) if self.training else weight


def run_fused(
    kernel: Callable[..., tuple[Tensor, ...]],
    xs: Tensor,
    state: Tensor | Sequence[Tensor],
    weights: Sequence[Tensor],
    training: bool,
) -> tuple[Tensor, ...]:
    """Call one of torch's fused recurrent kernels for one layer in one direction.

    Parameters
    ----------
    kernel : callable
        `torch.lstm`, `torch.gru`, `torch.rnn_tanh` or `torch.rnn_relu`.
    xs : Tensor
        float32 [time, batch, input].
    state : Tensor or sequence of Tensor
        [1, batch, size] each.
    weights : sequence of Tensor
        weight_ih, weight_hh, bias_ih, bias_hh and, with a projection, weight_hr.
    training : bool
        Whether cuDNN keeps what the backward pass needs.
    """
    # torch leaves some kernels out of autocast, and these do not take mixed types.
    dtype = product_type(xs)
    everything = [weight.to(dtype) for weight in weights]
    state = state.to(dtype) if isinstance(state, Tensor) else [h.to(dtype) for h in state]
    return kernel(xs.to(dtype), state, everything, True, 1, 0.0, training, False, False)
