"""Low rank by truncated singular value decomposition, plain or weighted by the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.factorization import (
    DAMPING,
    Damping,
    least_fraction,
    numbers_within,
    rank_for_fraction,
    weighted_svd,
)
from terselm.compress.stored_type import stored_type_of
from terselm.compress.weighting import Weighting, input_weighting
from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank as LowRankForm
from terselm.linear.row_blocks import RowBlocks
from terselm.models.language_model import LanguageModel
from terselm.registry import suggest

Rank = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


@register_method("low_rank")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class LowRank(WeightMethod):
    """Replace a matrix by the product of a tall and a wide one.

    Paper: Grachev, Ignatov, Savchenko 2019 (arXiv 1902.02380), section 3.2; the best
    approximation of a rank is that of Eckart & Young 1936. Weighted by the inputs it is the
    best for what the matrix is multiplied with (data-aware low rank, Chen et al. 2021,
    NeurIPS), and for the words that occur (Chen et al. 2018, arXiv 1806.06950).

    Recipe::

        - {method: low_rank, weights: "cells.*", rank: 0.35, weighting: inputs}

    Cost: bytes and multiplications fall to rank · (out + in) / (out · in) of what they were;
    a product becomes two. Weighting needs calibration text (`--data`) and no bytes.

    When not: a matrix with slowly falling singular values (most recurrent ones) loses much
    before half its parameters are gone; recover afterwards. At equal bytes 4-bit codes alone
    usually lose less than low rank alone. `rank_budget` spreads the ranks better.

    Parameters
    ----------
    rank : int, float or None
        The inner size, or the share of the parameters to keep in (0, 1].
    ranks : mapping of str to int or float, or None
        The same for each matrix by its name; one that the step selects and that is not named
        stays as it is. Exactly one of `rank` and `ranks` is given.
    weighting : {"none", "inputs"}
        "inputs" weights columns by the second moment of the inputs on calibration text and the
        rows of words (embedding, output layer) by the root of their frequency.
    damping : float
        Added to the second moment, as a share of the mean of its diagonal; at least 1e-8.
    gates : {"stacked", "separate"}
        One factorization for all the stacked gates of a cell's matrix, or one for each gate.
        An integer rank is that of each factorization.
    """

    takes = ("dense",)

    rank: Rank | Fraction | None = None
    ranks: Annotated[dict[str, Rank | Fraction], Field(min_length=1)] | None = None
    weighting: Literal["none", "inputs"] = "none"
    damping: Damping = DAMPING
    gates: Literal["stacked", "separate"] = "stacked"

    @model_validator(mode="after")
    def _check(self) -> LowRank:
        if (self.rank is None) == (self.ranks is None):
            raise ValueError("give exactly one of rank and ranks")
        return self

    def needs_statistics(self) -> bool:
        """Return whether factors are weighted."""
        return self.weighting == "inputs"

    def prepare(self, leaves: Mapping[str, LinearOp], context: Context) -> Any:
        """Check the names of `ranks`.

        Raises
        ------
        UsageError
            If one of them is not among the matrices of the step.
        """
        for name in self.ranks or {}:
            if name not in leaves:
                hint = suggest(name, list(leaves))
                raise UsageError(f"ranks: {name!r} is no dense matrix of this step; {hint}")

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return the low-rank form of one dense matrix.

        Raises
        ------
        UsageError
            If the rank is larger than the matrix has, or the share smaller than rank 1.
        """
        wanted = self.rank if self.ranks is None else self.ranks.get(name)
        if wanted is None:
            return leaf
        weighting = Weighting()
        if self.weighting == "inputs":
            weighting = input_weighting(leaf, name, context)
        gates = self._gates(leaf, name, context.model)
        blocks = leaf.dense().chunk(gates)
        rank = _rank(wanted, name, (blocks[0].shape[0], leaf.in_features))
        kind = stored_type_of(leaf)
        factored = [self._factor(block, rank, weighting, kind) for block in blocks]
        return factored[0] if gates == 1 else RowBlocks(factored)

    def _gates(self, leaf: LinearOp, name: str, model: LanguageModel | None) -> int:
        """Return in how many blocks the rows of a matrix are factored."""
        if self.gates == "stacked" or model is None or not name.startswith("cells."):
            return 1
        _, number, attribute, *inside = name.split(".")
        gates = model.layers()[int(number)].unit_groups().rows.get(attribute, 1)
        return gates if not inside and leaf.out_features % gates == 0 else 1

    def _factor(self, weight: Tensor, rank: int, weighting: Weighting, kind: str) -> LinearOp:
        left, right = weighted_svd(
            weight, rank, weighting.second_moment, weighting.row_weights, self.damping
        )
        return LowRankForm(Dense(left, kind), Dense(right, kind))


def _rank(wanted: int | float, name: str, shape: tuple[int, int]) -> int:
    if isinstance(wanted, float):
        rows, columns = shape
        numbers, least = rows * columns, rows + columns
        if numbers_within(wanted, numbers) < least:
            enough = f"use at least {least_fraction(least, numbers)}"
            advice = enough if least <= numbers else "leave it out"
            raise UsageError(
                f"rank {wanted} of {name} ({rows} x {columns}) is less than rank 1; {advice}"
            )
        return rank_for_fraction(rows, columns, wanted)
    if wanted > min(shape):
        raise UsageError(
            f"rank {wanted} is larger than {name} ({shape[0]} x {shape[1]}) has; "
            f"use at most {min(shape)}"
        )
    return wanted
