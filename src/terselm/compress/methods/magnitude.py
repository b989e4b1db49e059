"""Pruning of the smallest weights."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass
from torch import Tensor

from terselm.compress.base import OPTIONS, Context, register_method
from terselm.compress.pruning import (
    DEFAULT_BLOCK,
    Block,
    PruningMethod,
    Sparsity,
    StoredType,
    Structure,
)
from terselm.linear.base import LinearOp


@register_method("magnitude")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Magnitude(PruningMethod):
    """Set the weights of least magnitude to zero and store the others with their places.

    Paper: Han et al. 2015 (arXiv 1506.02626); arXiv 1902.02380, section 3.1, prunes 90 % of the
    output layer this way. Places as gaps are Han, Mao, Dally 2016 (arXiv 1510.00149).

    Recipe::

        - {method: magnitude, weights: "output", sparsity: 0.9}

    Cost: a float32 weight that stays takes 4 bytes and its place: a bit for every weight of
    the matrix, or about 5 bits a weight that stays at sparsity 0.9, whichever is smaller.
    Quantize afterwards to make the values small. Recovery keeps the zeros.

    When not: with calibration text `second_order` loses far less at the same sparsity. A matrix
    trained with Adam has few small weights and loses much without recovery. At the same bytes
    4-bit codes usually lose less than float values at sparsity 0.9. Single weights are slow to run:
    an LSTM 200-200 with 90 % of its output layer pruned took longer a token than the dense one
    (docs/results.md); blocks run faster.

    Parameters
    ----------
    sparsity : float
        The share of weights that become zero, in [0, 1).
    scope : {"matrix", "model"}
        Whether each matrix gets that sparsity, or all selected together with one threshold.
        With "model" a matrix that loses hardly anything stays dense, and one that would lose
        everything is an error.
    structure : {"weights", "blocks"}
        Whether single weights or whole blocks go; blocks cost hardly any place and run
        faster, and lose more. A block is worth the sum of its squares.
    block : tuple of int
        (rows, columns) of a block, each a power of two up to 64.
    type : {"float32", "float16"} or None
        Of the values; None keeps that of the matrix.
    """

    sparsity: Sparsity
    scope: Literal["matrix", "model"] = "matrix"
    structure: Structure = "weights"
    block: Block = DEFAULT_BLOCK
    type: StoredType | None = None

    def scores(self, leaf: LinearOp, name: str, context: Context) -> Tensor:
        """Return the squares of the weights; see `PruningMethod.scores`."""
        return leaf.dense().square()
