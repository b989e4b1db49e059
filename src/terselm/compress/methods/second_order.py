"""Pruning by second-order saliency, the weights that stay making up for the others."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from terselm.compress.base import OPTIONS, Context, register_method
from terselm.compress.bias_correction import has_bias
from terselm.compress.importance import (
    compensate,
    damped,
    in_solvable_type,
    next_costs,
    surgeon_scores,
    weighted_rows,
)
from terselm.compress.pruning import (
    DEFAULT_BLOCK,
    Block,
    PruningMethod,
    Sparsity,
    StoredType,
    Structure,
    input_statistics,
    is_output,
    row_frequencies,
)
from terselm.compress.readers import looked_up_moment
from terselm.compress.sparsity import mask_of_largest, mask_of_largest_in_rows
from terselm.linear.base import LinearOp

Damping = Annotated[float, Field(ge=1e-8, le=1.0)]
Rounds = Annotated[int, Field(ge=1, le=100)]
Power = Annotated[float, Field(ge=0.0, le=2.0)]


@register_method("second_order")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class SecondOrder(PruningMethod):
    """Leave out the weights that the others of their row can best make up for, and let them.

    On calibration text the error of a matrix W that becomes V is E ‖(W − V) x‖². A weight is
    worth what leaving it out costs once its row has made up for it, W[i, j]² / [S⁻¹]_jj with
    S = E[x xᵀ]; when all are chosen, those that stay are solved for by least squares, each row
    on its own. The bias makes up for the mean, so S is taken about it where there is a bias.
    In the output layer the rows of frequent words keep more, and rows of rare words with large
    weights less: saliency is multiplied by a power of the word's frequency over the mean
    saliency of its row.
    An embedding that is only looked up errs by what the first layer makes of it: there
    S = UᵀU with that layer's input matrices U, stacked; its factors err in the same way.

    Paper: optimal brain surgeon, Hassibi & Stork 1993; layer by layer as in Frantar & Alistarh
    2023 (arXiv 2301.00774), with their sequential update replaced by the exact solution, which
    is affordable at this size.

    Recipe::

        - {method: second_order, weights: "output", sparsity: 0.7}

    Cost: as for `magnitude` in the file; minutes of one core for an output layer of 10,000 x
    650, and more the more rounds; calibration text (`--data`).

    When not: without text.

    Parameters
    ----------
    sparsity : float
        The share of weights that become zero, in [0, 1).
    scope : {"row", "matrix"}
        Where weights are compared. Not over the model: errors of different matrices are felt too
        differently (on a 2 x 200 LSTM at sparsity 0.5 that cost 3 % in place of 0.5 %, even with
        each matrix's error weighed by the gradient of the loss).
    structure : {"weights", "blocks"}
        Whether single weights or whole blocks go. A block is worth the sum over its weights.
    block : tuple of int
        (rows, columns) of a block, each a power of two up to 64.
    type : {"float32", "float16"} or None
        Of the values; None keeps that of the matrix.
    update : bool
        Whether the weights that stay make up for the others.
    damping : float
        Share of the mean of S's diagonal that is added to it; at least 1e-8, since with less S
        cannot be inverted.
    rounds : int
        In how many rounds weights go, each chosen by what it costs given those before; 1 for all
        at once. For blocks there is one.
    frequency : float
        That power, for the rows of the output layer; 0 weights all alike.
    """

    uses_statistics = True

    sparsity: Sparsity
    scope: Literal["row", "matrix"] = "matrix"
    structure: Structure = "weights"
    block: Block = DEFAULT_BLOCK
    type: StoredType | None = None
    update: bool = True
    damping: Damping = 0.01
    rounds: Rounds = 3
    frequency: Power = 0.5

    def corrects_bias(self) -> bool:
        """Return whether the weights that stay make up for the others; then biases do too."""
        return self.update

    def scores(self, leaf: LinearOp, name: str, context: Context) -> Tensor:
        """Return the saliency of each weight; see `PruningMethod.scores`."""
        weight = leaf.dense()
        moment = self._moment(leaf, name, context)
        if moment is None:
            return weight.square()
        if not self.update:
            costs = weight.square() * moment.diagonal().to(weight.dtype)
            return self._by_row(costs, weight, name, context)
        scores = self._by_row(surgeon_scores(weight, moment), weight, name, context)
        if self.structure == "blocks":
            return scores
        kept = 1 - self.sparsity
        for number in range(1, self.rounds):
            mask = self._largest(scores, 1 - kept ** (number / self.rounds), name, context)
            costs = next_costs(weight, mask, in_solvable_type(moment, self.damping))
            scores = self._by_row(costs, weight, name, context)
        return scores

    def _largest(self, scores: Tensor, sparsity: float, name: str, context: Context) -> Tensor:
        if self.scope_for(name, context) == "row":
            return mask_of_largest_in_rows(scores, int(sparsity * scores.shape[1]))
        return mask_of_largest(scores, int(sparsity * scores.numel()))

    def _by_row(self, scores: Tensor, weight: Tensor, name: str, context: Context) -> Tensor:
        if self.frequency and is_output(name, context):
            return weighted_rows(scores, row_frequencies(weight, context), self.frequency)
        return scores

    def updated(self, leaf: LinearOp, mask: Tensor, name: str, context: Context) -> Tensor:
        """Return the least-squares weights for the mask; see `PruningMethod.updated`."""
        moment = self._moment(leaf, name, context)
        if moment is None or not self.update:
            return leaf.dense()
        return compensate(leaf.dense(), mask, in_solvable_type(moment, self.damping))

    def _moment(self, leaf: LinearOp, name: str, context: Context) -> Tensor | None:
        """Return what errors in a row are weighed with, damped; None if there is nothing."""
        found = input_statistics(name, context)
        if found is not None:
            # Where a bias makes up for the mean only what varies counts.
            moment = found.covariance if self.update and has_bias(name) else found.second_moment
        else:
            looked_up = None if context.model is None else looked_up_moment(name, context.model)
            if looked_up is None:
                return None
            moment = looked_up
        return damped(moment, self.damping).to(leaf.dense().device)
