"""The plain recurrent network with a recurrent projection."""

from __future__ import annotations

from torch import Tensor, nn

from terselm.cells.base import CELLS, State
from terselm.cells.projected import ProjectedCell


class ProjectedRNN(ProjectedCell):
    """h = activation(weight_ih x + weight_hh m + bias), m = weight_hr h; m is the output.

    This is a plain RNN whose matrices are factored with one right factor for its recurrence and
    the next layer (arXiv 1902.02380, section 3.2).
    """

    gates = 1

    def activate(self, x: Tensor) -> Tensor:
        """Return the activation of x, element by element."""
        raise NotImplementedError

    def step_with(self, recurrent: tuple[nn.Module, ...], gx: Tensor, state: State) -> State:
        """Return (output,) after one step; see `ProjectedCell.step_with`."""
        (output,) = state
        (weight_hh,) = recurrent
        return (self.weight_hr(self.activate(gx + weight_hh(output))),)


@CELLS.register("projected_rnn_tanh")
class ProjectedTanhRNN(ProjectedRNN):
    """Plain recurrent network with tanh and a projection."""

    kind = "projected_rnn_tanh"

    def activate(self, x: Tensor) -> Tensor:
        """Return tanh(x)."""
        return x.tanh()


@CELLS.register("projected_rnn_relu")
class ProjectedReluRNN(ProjectedRNN):
    """Plain recurrent network with relu and a projection."""

    kind = "projected_rnn_relu"

    def activate(self, x: Tensor) -> Tensor:
        """Return relu(x)."""
        return x.relu()
