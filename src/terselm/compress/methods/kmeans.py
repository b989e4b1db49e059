"""Codebooks by k-means clustering."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.clustering import k_means, number_weights
from terselm.errors import TerselmError, UsageError
from terselm.linear.base import LinearOp
from terselm.linear.codebook import ROW_BITS, Codebook

Bits = Annotated[int, Field(ge=1, le=8)]


@register_method("kmeans")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class KMeans(WeightMethod):
    """Store a matrix as indices into a list of values that k-means clustering found.

    Paper: Han, Mao, Dally 2016 (arXiv 1510.00149), section 3. On a line the clustering is
    nearly exact: Lloyd's algorithm from several starts, see `compress.clustering.k_means`.

    Recipe::

        - {method: kmeans, weights: "*", bits: 3}

    Cost: bits / 32 of the bytes, and the values in float16: 2 · 2^bits bytes a row, 0.2 bits a
    number at 3 bits for rows of 650 and 0.64 bits for rows of 200; one list for the matrix
    costs next to nothing.

    When not: at 4 bits and more, where even steps (`quantize`) lose hardly more, have no list
    of values to store and compute with integers. Nor for speed: in the C library a token took some
    15 times as long as with codes of 4 bits (LSTM 650-650).

    Parameters
    ----------
    bits : int
        Bits of an index: 1 to 8 with one list for the matrix, 2 to 4 with one a row.
    scope : {"row", "matrix"}
        What shares a list of values.
    weighted : bool
        Count the error of each column by the mean square of its inputs on calibration text,
        with one list for a matrix of words also that of each row by how often its word occurs.
    """

    takes = ("dense",)

    bits: Bits = 4
    scope: Literal["row", "matrix"] = "row"
    weighted: bool = False

    def __post_init__(self) -> None:
        """Check the options together."""
        if self.scope == "row" and self.bits not in ROW_BITS:
            raise UsageError(
                f"bits is {self.bits}; with one list of values a row it is "
                f"{ROW_BITS[0]} to {ROW_BITS[-1]}, use scope: matrix for more or less"
            )

    def needs_statistics(self) -> bool:
        """Return whether calibration text is needed: only for weighted codes."""
        return self.weighted

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return the codebook form of one dense matrix."""
        dense = leaf.dense()
        weight = dense.cpu()
        weights: Tensor | None = None
        if context.statistics is not None:
            rows, columns = number_weights(context.statistics, leaf, name)
            weights = columns.unsqueeze(0)
            if self.scope == "matrix":
                weights = (rows.unsqueeze(1) * columns).view(1, -1)
        numbers = weight if self.scope == "row" else weight.reshape(1, -1)
        codes, values = k_means(numbers, self.bits, weights)
        if not torch.isfinite(values).all():
            raise TerselmError(f"{name}: values too large for float16; it cannot be clustered")
        return Codebook(codes.view(weight.shape), values, self.scope).to(dense.device)
