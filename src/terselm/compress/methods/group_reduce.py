"""Low rank in groups of words."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.factorization import DAMPING, Damping, least_fraction, numbers_within
from terselm.compress.row_groups import GroupedFactors, RowGrouping, groups_by_weight
from terselm.compress.stored_type import stored_type_of
from terselm.compress.weighting import WORD_MATRICES, input_weighting
from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.linear.grouped_rows import GroupedRows
from terselm.linear.low_rank import LowRank
from terselm.linear.row_blocks import MAX_BLOCKS

Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Groups = Annotated[int, Field(ge=2, le=MAX_BLOCKS)]
Rounds = Annotated[int, Field(ge=0, le=100)]


@register_method("group_reduce")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class GroupReduce(WeightMethod):
    """Factor the rows of frequent words apart from those of rare ones, with higher ranks.

    Words are sorted by frequency and cut into groups of equal weight, the root of the
    frequency; every group has a factorization of its own, weighted by its words (and, in the
    output layer, by the inputs), and the ranks share one budget. Refinement moves words to the
    group that suits them.

    Paper: Chen, Si, Li, Chelba, Hsieh 2018 (arXiv 1806.06950).

    Recipe::

        - {method: group_reduce, weights: "embedding output", rank: 0.25}

    Cost: the share of the parameters asked for, and one byte a word. Needs calibration text
    (`--data`). A product becomes two for each group.

    When not: for other matrices than embedding and output layer; where words are few or of
    like frequency, `low_rank` is as good and needs fewer products.

    Parameters
    ----------
    rank : float
        The share of the parameters to keep in (0, 1].
    groups : int
        How many, 2 to 256.
    refine : int
        Rounds of refinement; it ends by itself where there is nothing to win.
    damping : float
        Added to the second moment of the inputs, as a share of the mean of its diagonal; at
        least 1e-8.
    """

    takes = ("dense",)
    uses_statistics = True

    rank: Fraction
    groups: Groups = 4
    refine: Rounds = 3
    damping: Damping = DAMPING

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return the grouped form of an embedding or an output layer.

        Raises
        ------
        UsageError
            If the matrix has no rows of words, fewer rows than groups, or the share is too
            small for rank 1 everywhere.
        """
        weighting = input_weighting(leaf, name, context)
        if weighting.row_weights is None:
            raise UsageError(
                f"{name} has no rows of words to group; use weights: {' '.join(WORD_MATRICES)}"
            )
        if self.groups > leaf.out_features:
            raise UsageError(
                f"groups {self.groups} are more than {name} has rows; "
                f"use at most {min(leaf.out_features, MAX_BLOCKS)}"
            )
        numbers = leaf.out_features * leaf.in_features
        problem = RowGrouping(
            leaf.dense(),
            weighting.row_weights,
            weighting.second_moment,
            self.damping,
            numbers_within(self.rank, numbers),
        )
        groups = groups_by_weight(weighting.row_weights, self.groups)
        least = problem.least_numbers(groups)
        if least > problem.numbers:
            raise UsageError(
                f"rank {self.rank} of {name} is too small for {self.groups} groups of rank 1; "
                f"use at least {least_fraction(least, numbers)}"
            )
        return _as_form(leaf, problem.refine(problem.factor(groups), self.refine))


def _as_form(leaf: LinearOp, found: GroupedFactors) -> LinearOp:
    weight, kind = leaf.dense(), stored_type_of(leaf)
    blocks: list[LinearOp] = []
    for number, (terms, rank) in enumerate(zip(found.terms, found.ranks, strict=True)):
        if rank is None:
            blocks.append(Dense(weight[found.groups == number], kind))
        else:
            left, right = terms.factors(rank)
            blocks.append(LowRank(Dense(left, kind), Dense(right, kind)))
    return GroupedRows(blocks, found.groups)
