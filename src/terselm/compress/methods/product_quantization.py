"""Product quantization."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.clustering import number_weights
from terselm.compress.product import product_codes
from terselm.errors import TerselmError, UsageError
from terselm.linear.base import LinearOp
from terselm.linear.product_codes import MAX_SIZE

Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]


@register_method("product_quantization")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class ProductQuantization(WeightMethod):
    """Cut the rows into blocks of columns and store for each block which centroid it is near.

    For the embedding and the output, whose many rows share one list of centroids a block.

    Paper: Jégou, Douze, Schmid 2011, "Product quantization for nearest neighbor search" (IEEE
    TPAMI 33); for weights Gong et al. 2014 (arXiv 1412.6115), section 2.3.

    Recipe::

        - {method: product_quantization, weights: "embedding output", size: 4, weighted: true}

    Cost: log2(centroids) / size bits a number, 2 with the defaults, and the centroids in
    float16, 2 · centroids bytes a column (with 10,000 rows 0.4 bits a number; `shared` saves
    them). A product computes all centroids' products once and then adds one table entry a code.

    When not: a matrix with few rows (the cells'), whose centroids weigh as much as its codes.

    Parameters
    ----------
    size : int
        Columns of a block.
    centroids : {256, 16}
        Centroids of a block.
    norms : bool
        Cluster the directions of the rows and store the lengths, two bytes a row.
    shared : bool
        One list of centroids for all blocks.
    weighted : bool
        Count the error of each column by the mean square of its inputs on calibration text,
        and that of a word's row by how often the word occurs.
    """

    takes = ("dense",)

    size: Size = 4
    centroids: Literal[256, 16] = 256
    norms: bool = False
    shared: bool = False
    weighted: bool = False

    def needs_statistics(self) -> bool:
        """Return whether calibration text is needed: only for weighted codes."""
        return self.weighted

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return the product-codes form of one dense matrix.

        Raises
        ------
        UsageError
            If a block has more columns than the matrix.
        """
        if self.size > leaf.in_features:
            raise UsageError(
                f"size {self.size} is more than {name} has columns; use at most {leaf.in_features}"
            )
        rows = columns = None
        if context.statistics is not None:
            rows, columns = number_weights(context.statistics, leaf, name)
        dense = leaf.dense()
        op = product_codes(
            dense.cpu(),
            self.size,
            self.centroids,
            norms=self.norms,
            shared=self.shared,
            row_weights=rows,
            column_weights=columns,
        )
        if not all(torch.isfinite(parameter).all() for parameter in op.parameters()):
            raise TerselmError(f"{name}: values too large for float16; it cannot be clustered")
        return op.to(dense.device)
