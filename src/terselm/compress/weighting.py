"""What calibration text says about how much the rows and columns of a matrix matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from terselm.compress.base import Context
from terselm.compress.factorization import word_weights
from terselm.linear.base import LinearOp

WORD_MATRICES = ("embedding", "output")


@dataclass(frozen=True)
class Weighting:
    """The weights of a weighted factorization; see `factorization.weighted_svd`.

    Both are on the device of the matrix.

    Attributes
    ----------
    second_moment : Tensor or None
        float64 [in, in]; None where the matrix is not multiplied with inputs.
    row_weights : Tensor or None
        float64 [out], with sum 1; None where all rows matter alike.
    """

    second_moment: Tensor | None = None
    row_weights: Tensor | None = None


def input_weighting(leaf: LinearOp, name: str, context: Context) -> Weighting:
    """Return the weighting of one matrix from the statistics at hand.

    The columns weigh as much as the inputs that they meet. Rows that stand for words (the
    embedding and the output layer) weigh as much as the words.

    Parameters
    ----------
    leaf : LinearOp
    name : str
        Its name, as `Statistics.inputs` has it.
    context : Context
        Its statistics may be None: then nothing is weighted.
    """
    statistics = context.statistics
    if statistics is None:
        return Weighting()
    device = leaf.dense().device
    inputs = statistics.inputs.get(name)
    rows = None
    if name in WORD_MATRICES and len(statistics.token_counts) == leaf.out_features:
        rows = word_weights(torch.from_numpy(statistics.token_counts)).to(device)
    return Weighting(None if inputs is None else inputs.second_moment.to(device), rows)
