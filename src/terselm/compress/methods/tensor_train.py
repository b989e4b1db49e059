"""Tensor trains by repeated singular value decomposition."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.factorization import least_fraction, numbers_within
from terselm.compress.stored_type import stored_type_of
from terselm.compress.tensor_train import (
    balanced_factors,
    greatest_ranks,
    tensor_train_svd,
    tensor_train_within,
)
from terselm.errors import TerselmError, UsageError
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.linear.tensor_train import MAX_CORES, check_digits
from terselm.linear.tensor_train import TensorTrain as TensorTrainForm

Rank = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Error = Annotated[float, Field(ge=0.0, lt=1.0)]
Factors = Annotated[tuple[Rank, ...], Field(min_length=2, max_length=MAX_CORES)]
Cores = Annotated[int, Field(ge=2, le=MAX_CORES)]
Ranks = Annotated[tuple[Rank, ...], Field(min_length=1, max_length=MAX_CORES - 1)]
DEFAULT_CORES = 3


@register_method("tensor_train")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class TensorTrain(WeightMethod):
    """Store a matrix as a chain of small cores over the digits of its row and column numbers.

    Paper: Grachev, Ignatov, Savchenko 2019 (arXiv 1902.02380), section 3.3; the decomposition
    is TT-SVD of Oseledets 2011, for matrices as in Novikov et al. 2015 (arXiv 1509.06569).

    Recipe::

        - {method: tensor_train, weights: "output", rank: 0.3, cores: 2}

    Cost: the bytes of the cores; the multiplications are often more than those of the dense
    product, and `terselm inspect` says so.

    When not: almost always after training. Neighbouring ids or units have nothing in common,
    so a trained matrix has no structure over its digits, and low rank loses less at the same
    bytes; as the start of training (`TensorTrain.initialize`, then recovery) it does better.

    Parameters
    ----------
    rank : int, float, list of int or None
        One rank for all, the share of the parameters to keep in (0, 1], or each inner rank.
        Ranks beyond what is exact anyway are cut.
    error : float or None
        The relative error of the matrix that is allowed. Exactly one of `rank` and `error` is
        given.
    cores : int
        How many; 3 by default, as many as there are factors where a shape is given.
    row_shape, column_shape : list of int or None
        Factors of the rows and columns, or of slightly more; chosen alike in size without.
    """

    takes = ("dense",)

    rank: Rank | Fraction | Ranks | None = None
    error: Error | None = None
    cores: Cores | None = None
    row_shape: Factors | None = None
    column_shape: Factors | None = None

    @model_validator(mode="after")
    def _check(self) -> TensorTrain:
        if (self.rank is None) == (self.error is None):
            raise ValueError("give exactly one of rank and error")
        counts = {
            "cores": self.cores,
            "row_shape": self.row_shape and len(self.row_shape),
            "column_shape": self.column_shape and len(self.column_shape),
            "rank": len(self.rank) + 1 if isinstance(self.rank, tuple) else None,
        }
        given = {name: count for name, count in counts.items() if count}
        if len(set(given.values())) > 1:
            words = ", ".join(f"{name} makes {count}" for name, count in given.items())
            raise ValueError(f"the number of cores differs: {words}")
        return self

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return the tensor train of one dense matrix.

        Raises
        ------
        UsageError
            If a shape does not fit the matrix, or a share is too small for ranks of 1.
        """
        row_shape, column_shape = self._shapes(leaf, name)
        cores = self._cores(leaf, name, row_shape, column_shape)
        kind = stored_type_of(leaf)
        stored = [Dense(core, kind) for core in cores]
        return TensorTrainForm(stored, row_shape, column_shape, leaf.shape)

    def _shapes(self, leaf: LinearOp, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        shapes = []
        count = self._count()
        for option, side in (("row_shape", leaf.out_features), ("column_shape", leaf.in_features)):
            factors = getattr(self, option)
            balanced = balanced_factors(side, count)
            try:
                check_digits(option, factors or balanced, side)
            except TerselmError as error:
                raise UsageError(f"{name}: {error}; for example {list(balanced)}") from None
            shapes.append(tuple(factors or balanced))
        return shapes[0], shapes[1]

    def _count(self) -> int:
        for given in (self.row_shape, self.column_shape):
            if given is not None:
                return len(given)
        if isinstance(self.rank, tuple):
            return len(self.rank) + 1
        return self.cores or DEFAULT_CORES

    def _cores(
        self,
        leaf: LinearOp,
        name: str,
        row_shape: tuple[int, ...],
        column_shape: tuple[int, ...],
    ) -> list[Tensor]:
        weight = leaf.dense()
        if isinstance(self.rank, float):
            numbers = numbers_within(self.rank, weight.numel())
            least = sum(
                rows * columns for rows, columns in zip(row_shape, column_shape, strict=True)
            )
            if numbers < least:
                raise UsageError(
                    f"rank {self.rank} of {name} is {numbers} numbers, ranks of 1 have {least}; "
                    f"use at least {least_fraction(least, weight.numel())}"
                )
            return tensor_train_within(weight, row_shape, column_shape, numbers)
        if self.rank is None:
            return tensor_train_svd(weight, row_shape, column_shape, error=self.error or 0.0)
        greatest = greatest_ranks(row_shape, column_shape)
        ranks = self.rank if isinstance(self.rank, tuple) else (self.rank,) * len(greatest)
        return tensor_train_svd(weight, row_shape, column_shape, ranks)
