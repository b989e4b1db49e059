"""Uniform quantization in ranges that a matrix's inputs call for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.error_compensation import fitted_rounding
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


@register_method("activation_aware")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class ActivationAware(WeightMethod):
    """Quantize with scales chosen for the inputs that a matrix sees on calibration text.

    Columns with large inputs count more in the least-squares range, and the scales of a row
    are then fitted together to the error of its output. Codes are those nearest to the
    weights. The stored form is that of `quantize`, at the same bytes and speed; for looked-up
    embeddings see `gptq`.

    Paper: Lin et al. 2023 (arXiv 2306.00978) scale the columns themselves. The hidden units
    of a recurrent model are all of like size, and on two LSTMs such scaling lost more than it
    won, so that no scale for columns is stored.

    Recipe::

        - {method: activation_aware, weights: "*", bits: 4, group: 32}

    Cost: in the file that of `quantize`; needs calibration text (`--data`), and little time.

    When not: `gptq` uses the same statistics, takes a few seconds more and loses less. With
    one scale a row there is little to fit, and it is hardly better than `quantize`.

    Parameters
    ----------
    bits : {8, 4, 3, 2}
    group : int, "row", "matrix" or None
    symmetric : bool
    levels : {"mid_tread", "mid_rise"} or None
        As for `quantize`.
    damping : float
        Added to the diagonal of the second moment, as a share of its mean.
    """

    takes = ("dense",)
    uses_statistics = True

    bits: Bits = 4
    group: Group | None = None
    symmetric: bool = True
    levels: Levels | None = None
    damping: Damping = 0.01

    @model_validator(mode="after")
    def _check(self) -> ActivationAware:
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
        return checked(fitted_rounding(weight, moment, grid, damping=self.damping), name)
