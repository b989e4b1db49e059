"""Uniform quantization in ranges that a matrix's inputs call for."""

from __future__ import annotations

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
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


@register_method("activation_aware")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class ActivationAware(WeightMethod):
    """Quantize in ranges in which columns with large inputs count more.

    The squared error of each column is weighted by the mean square of its input on
    calibration text when the least-squares range of a row or group is searched. The stored
    form is that of `quantize`, at the same bytes and speed; for looked-up embeddings see
    `gptq`.

    Paper: Lin et al. 2023 (arXiv 2306.00978) scale the columns themselves and search for the
    power of the inputs to scale by. The hidden units of a recurrent model are all of like
    size: measured on two LSTMs, the best power (1/4) did not do better than the weighted
    range by more than chance, and it costs a stored scale for each column.

    Recipe::

        - {method: activation_aware, weights: "*", bits: 4, group: 32}

    Cost: in the file that of `quantize`; needs calibration text (`--data`), and little time.

    When not: on small models, where `gptq`, from the same statistics and in some seconds more,
    loses less at 3 bits; on an LSTM 650-650 the two were alike (docs/methods.md).

    Parameters
    ----------
    bits : {8, 4, 3, 2}
    group : int, "row", "matrix" or None
    symmetric : bool
    levels : {"mid_tread", "mid_rise"} or None
        As for `quantize`.
    """

    takes = ("dense",)
    uses_statistics = True

    bits: Bits = 4
    group: Group | None = None
    symmetric: bool = True
    levels: Levels | None = None

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
        return checked(quantize_uniform(weight, grid, importance=importance), name)
