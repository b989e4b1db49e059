"""Low rank by truncated singular value decomposition."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.factorization import rank_for_fraction, truncated_svd
from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank as LowRankForm

Rank = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


@register_method("low_rank")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class LowRank(WeightMethod):
    """Replace a matrix by the product of a tall and a wide one.

    Paper: Grachev, Ignatov, Savchenko 2019 (arXiv 1902.02380), section 3.2; the best
    approximation of a rank is that of Eckart & Young 1936.

    Recipe::

        - {method: low_rank, weights: "cells.*", rank: 0.35}

    Cost: bytes and multiplications fall to rank · (out + in) / (out · in) of what they were;
    a product becomes two.

    When not: a matrix with slowly falling singular values (most recurrent ones) loses much
    before half its parameters are gone; recover afterwards. At equal bytes 4-bit codes alone
    usually lose less than low rank alone.

    Parameters
    ----------
    rank : int or float
        The inner size, or the share of the parameters to keep in (0, 1].
    """

    takes = ("dense",)

    rank: Rank | Fraction

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return the low-rank form of one dense matrix.

        Raises
        ------
        UsageError
            If the rank is larger than the matrix has.
        """
        if isinstance(self.rank, float):
            rank = rank_for_fraction(*leaf.shape, self.rank)
        else:
            rank = self.rank
        if rank > min(leaf.shape):
            out_features, in_features = leaf.shape
            raise UsageError(
                f"rank {rank} is larger than {name} ({out_features} x {in_features}) has; "
                f"use at most {min(leaf.shape)}"
            )
        left, right = truncated_svd(leaf.dense(), rank)
        return LowRankForm(Dense(left), Dense(right))
