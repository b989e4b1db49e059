"""Uniform quantization after training."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.rounding import quantize_uniform
from terselm.compress.sparse_quantization import quantize_values
from terselm.compress.uniform import Bits, Group, Percentile, check_levels, checked, grid_for
from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.quantized import Levels
from terselm.linear.sparse_base import FloatValues

DEFAULT_PERCENTILE = 99.9


@register_method("quantize")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Quantize(WeightMethod):
    """Store a matrix as small integers with a float16 scale for each row, group or all of it.

    Paper: Grachev, Ignatov, Savchenko 2019 (arXiv 1902.02380), section 3.1, has 8 bits with
    one range for the whole matrix (`group: matrix`); a scale for each row costs two bytes a
    row and loses less. The least-squares range follows the alternation of Xu et al. 2018
    (arXiv 1802.00150).

    Recipe::

        - {method: quantize, weights: "*", bits: 4, group: 32}

    Cost: bits / 32 of the bytes, and 2 bytes a scale: 8 bits a row is 8.02 bits a number for
    rows of 650, 4 bits in groups of 32 is 4.5, 2 bits in groups of 16 is 3.

    A sparse matrix keeps its zeros; its values become codes of 8 or 4 bits, a scale a row.

    When not: with calibration text `gptq` loses less at the same bytes from 4 bits down.
    4 bits with one scale a row lose about twice as much as in groups of 32; for less than
    that use groups of 64 or 128. With "absolute_maximum" 3 and 2 bits ruin a model.

    Parameters
    ----------
    bits : {8, 4, 3, 2}
        Bits of a code.
    group : int, "row", "matrix" or None
        Columns that share a scale, a multiple of 8. None: a row at 8 bits, 32 at 4 and 3
        bits, 16 at 2 bits.
    symmetric : bool
        Without it every group has a zero point (one byte more), and the range need not have
        zero in its middle.
    range : {"least_squares", "absolute_maximum", "percentile"}
        How the scale is chosen; see `compress.rounding.quantize_uniform`.
    percentile : float or None
        Magnitudes above this percentile, of those that share a scale and between two of them by
        interpolation, are clipped; 99.9 if not given.
    levels : {"mid_tread", "mid_rise"} or None
        Whether zero is a level ("mid_tread") or lies between two ("mid_rise"). None:
        mid-rise, but mid-tread for a matrix where its error is clearly smaller.
    """

    takes = ("dense", "sparse", "block_sparse")

    bits: Bits = 8
    group: Group | None = None
    symmetric: bool = True
    range: Literal["least_squares", "absolute_maximum", "percentile"] = "least_squares"
    percentile: Percentile | None = None
    levels: Levels | None = None

    @model_validator(mode="after")
    def _check(self) -> Quantize:
        if self.percentile is not None and self.range != "percentile":
            raise ValueError(f"percentile goes with range: percentile, not {self.range}")
        check_levels(self.bits, self.symmetric, self.levels)
        return self

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return the quantized form of one dense matrix, or of the values of a sparse one."""
        if isinstance(leaf, FloatValues):
            self._check_sparse(name, leaf)
            return quantize_values(leaf, self.bits, name)
        weight = leaf.dense()
        percentile = DEFAULT_PERCENTILE if self.percentile is None else self.percentile
        grid = grid_for(
            weight,
            self.bits,
            self.group,
            self.symmetric,
            self.levels,
            range_rule=self.range,
            percentile=percentile,
        )
        return checked(quantize_uniform(weight, grid, self.range, percentile=percentile), name)

    def _check_sparse(self, name: str, leaf: FloatValues) -> None:
        plain = (None, "row"), (True,), ("least_squares",), (None, "mid_tread")
        chosen = self.group, self.symmetric, self.range, self.levels
        if any(value not in known for value, known in zip(chosen, plain, strict=True)):
            raise UsageError(
                f"{name} is {leaf.kind}, whose values get symmetric codes with a least-squares "
                "scale a row; leave group, symmetric, range and levels out for it"
            )
