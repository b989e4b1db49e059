"""What calibration text says about how much the rows and columns of a matrix matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from terselm.compress.base import Context
from terselm.compress.factorization import word_frequencies, word_weights
from terselm.linear.base import LinearOp

WORD_MATRICES = ("embedding", "output")


@dataclass(frozen=True)
class Weighting:
    """The weights of a weighted factorization; see `factorization.weighted_svd`.

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
    inputs = statistics.inputs.get(name)
    rows = None
    if name in WORD_MATRICES and len(statistics.token_counts) == leaf.out_features:
        rows = word_weights(torch.from_numpy(statistics.token_counts))
    return Weighting(None if inputs is None else inputs.second_moment, rows)


def frequency_scale(weight: Tensor, weighting: Weighting, context: Context) -> float:
    """Return by what a weighted error is multiplied to be one per word of running text.

    Rows are weighted by the root of their frequency, which is good for choosing directions; what
    the loss feels goes by the frequency itself. The two are set equal for the whole matrix.

    Parameters
    ----------
    weight : Tensor
        float [out, in].
    weighting : Weighting
        From `input_weighting` of it; without row weights the result is 1.
    context : Context
        With the statistics it was made from.
    """
    if weighting.row_weights is None or context.statistics is None:
        return 1.0
    work = weight.double()
    product = work if weighting.second_moment is None else work @ weighting.second_moment
    energy = (product * work).sum(1)  # [out]
    often = word_frequencies(torch.from_numpy(context.statistics.token_counts))
    weighted = (weighting.row_weights * energy).sum()
    return (often * energy).sum().item() / weighted.item() if weighted > 0 else 1.0
