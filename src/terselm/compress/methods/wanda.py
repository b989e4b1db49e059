"""Pruning by weight and input together."""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import Tensor

from terselm.compress.base import OPTIONS, Context, register_method
from terselm.compress.importance import wanda_scores
from terselm.compress.pruning import (
    DEFAULT_BLOCK,
    Block,
    PruningMethod,
    Scope,
    Sparsity,
    StoredType,
    Structure,
    input_statistics,
)
from terselm.linear.base import LinearOp


@register_method("wanda")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Wanda(PruningMethod):
    """Set to zero the weights that move the output least on calibration text.

    A weight is worth its magnitude times the norm of its input. In an embedding that is only
    looked up all inputs are alike, and magnitude decides. (Weighting its rows by the frequency
    of their words loses more, measured on the Penn Treebank.)

    Paper: Sun et al. 2023 (arXiv 2306.11695), which compares weights within a row.

    Recipe::

        - {method: wanda, weights: "output", sparsity: 0.5}

    Cost: as for `magnitude`, and one pass over the calibration text (`--data`).

    When not: `second_order` costs minutes where this costs seconds, and loses far less.

    Parameters
    ----------
    sparsity : float
        The share of weights that become zero, in [0, 1).
    scope : {"row", "matrix", "model"}
        Where weights are compared: every row, every matrix, or all selected together. In a
        looked-up embedding "row" is "matrix".
        With "model" a matrix that loses hardly anything stays dense, and one that would lose
        everything is an error.
    structure : {"weights", "blocks"}
        Whether single weights or whole blocks go. A block is worth the sum of its squares.
    block : tuple of int
        (rows, columns) of a block, each a power of two up to 64.
    type : {"float32", "float16"} or None
        Of the values; None keeps that of the matrix.
    """

    uses_statistics = True

    sparsity: Sparsity
    scope: Scope = "row"
    structure: Structure = "weights"
    block: Block = DEFAULT_BLOCK
    type: StoredType | None = None

    def scores(self, leaf: LinearOp, name: str, context: Context) -> Tensor:
        """Return the squares of Wanda's scores; see `PruningMethod.scores`."""
        weight = leaf.dense()
        found = input_statistics(name, context)
        if found is None:
            return weight.square()
        return wanda_scores(weight, found.mean_square).square()

    def scope_for(self, name: str, context: Context) -> Scope:
        """Return the scope; see `PruningMethod.scope_for`."""
        looked_up = self.scope == "row" and input_statistics(name, context) is None
        return "matrix" if looked_up else self.scope
