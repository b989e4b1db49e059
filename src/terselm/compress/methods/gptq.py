"""Uniform quantization that makes up for its own error."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.error_compensation import compensated_rounding
from terselm.compress.rounding import quantize_uniform
from terselm.compress.uniform import (
    Bits,
    Group,
    check_levels,
    checked,
    grid_for,
    second_moment_of,
)
from terselm.linear.base import LinearOp
from terselm.linear.quantized import Levels

Damping = Annotated[float, Field(gt=0.0, le=100.0)]
Sweeps = Annotated[int, Field(ge=0, le=100)]


@register_method("gptq")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class GPTQ(WeightMethod):
    """Quantize column by column; columns not yet rounded make up for the error so far.

    The second moment of a matrix's inputs on calibration text says how columns can stand in
    for one another. The stored form is that of `quantize`, at the same bytes and speed. For
    an embedding that is looked up, the first layer's matrix says it. Where neither is there,
    a matrix is rounded as `quantize` does, and a warning says so.

    Paper: Frantar et al. 2022 (arXiv 2210.17323). Here ranges are least squares, and after
    the paper's pass the scales are fitted to the output error and every column is rounded
    anew given all others, twice.

    Recipe::

        - {method: gptq, weights: "*", bits: 3, group: 32}

    Cost: in the file that of `quantize`; needs calibration text (`--data`), and time that
    grows with out · in² (a 10,000 × 650 matrix takes some seconds).

    When not: at 8 bits, where nothing is left to win.

    Parameters
    ----------
    bits : {8, 4, 3, 2}
    group : int, "row", "matrix" or None
    symmetric : bool
    levels : {"mid_tread", "mid_rise"} or None
        As for `quantize`.
    damping : float
        Added to the diagonal of the second moment, as a share of its mean.
    act_order : bool
        Round columns in the order of their inputs' mean square, largest first. Ranges of
        groups are then chosen before any column is rounded.
    sweeps : int
        How often scales are fitted and columns rounded anew after the first pass.
    """

    takes = ("dense",)
    uses_statistics = True

    bits: Bits = 4
    group: Group | None = None
    symmetric: bool = True
    levels: Levels | None = None
    damping: Damping = 0.01
    act_order: bool = False
    sweeps: Sweeps = 2

    @model_validator(mode="after")
    def _check(self) -> GPTQ:
        check_levels(self.bits, self.symmetric, self.levels)
        return self

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return the quantized form of one dense matrix."""
        weight = leaf.dense()
        moment = second_moment_of(name, context.statistics, context.model)
        importance = None if moment is None else moment.diagonal()
        grid = grid_for(
            weight, self.bits, self.group, self.symmetric, self.levels, importance=importance
        )
        if moment is None:
            return checked(quantize_uniform(weight, grid), name)
        op = compensated_rounding(
            weight,
            moment,
            grid,
            damping=self.damping,
            by_importance=self.act_order,
            sweeps=self.sweeps,
        )
        return checked(op, name)
