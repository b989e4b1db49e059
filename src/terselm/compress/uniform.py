"""The options that all methods of uniform quantization share, and what they do with them."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from terselm.compress.readers import looked_up_moment
from terselm.compress.rounding import Grid, choose_levels
from terselm.compress.statistics import Statistics
from terselm.errors import TerselmError
from terselm.linear.quantized import BITS, GROUP_MULTIPLE, LARGEST_GROUP, Levels, Quantized
from terselm.models.language_model import LanguageModel

DEFAULT_GROUPS = {8: "row", 4: 32, 3: 32, 2: 16}
"""By bits, what shares a scale unless told otherwise."""


def _check_bits(value: Any) -> Any:
    if type(value) is int and value not in BITS:
        nearest = min(BITS, key=lambda bits: (abs(bits - value), bits))
        raise ValueError(f"{value} bits are not possible; the nearest is {nearest}")
    return value


def _check_group(value: Any) -> Any:
    if type(value) is int and (value % GROUP_MULTIPLE or not 0 < value <= LARGEST_GROUP):
        nearest = min(max(round(value / GROUP_MULTIPLE), 1) * GROUP_MULTIPLE, LARGEST_GROUP)
        raise ValueError(
            f"groups of {value} are not possible; the nearest is {nearest} "
            f"(multiples of {GROUP_MULTIPLE}, 'row' or 'matrix')"
        )
    if isinstance(value, str) and value not in ("row", "matrix"):
        raise ValueError(f"{value!r} is not possible; use a number, 'row' or 'matrix'")
    return value


Bits = Annotated[Literal[8, 4, 3, 2], BeforeValidator(_check_bits)]
Group = Annotated[int | Literal["row", "matrix"], BeforeValidator(_check_group)]
Percentile = Annotated[float, Field(gt=0.0, le=100.0)]


def check_levels(bits: int, symmetric: bool, levels: Levels | None) -> None:
    """Refuse levels that these codes cannot have.

    Raises
    ------
    ValueError
    """
    if levels == "mid_rise" and bits == 8:
        raise ValueError("levels mid_rise takes at most 4 bits; use mid_tread")
    if levels == "mid_rise" and not symmetric:
        raise ValueError("levels mid_rise is symmetric; use mid_tread")


def grid_for(
    weight: Tensor,
    bits: int,
    group: int | str | None,
    symmetric: bool = True,
    levels: Levels | None = None,
    **search: Any,
) -> Grid:
    """Return the grid that the options of a method ask for.

    Parameters
    ----------
    weight : Tensor
        float [out, in]; where `levels` is None, what suits it is taken (`choose_levels`).
    bits, group, symmetric, levels
        As the method has them: group "row" or None for the default.
    **search
        Options of `rounding.quantize_uniform`.
    """
    chosen = DEFAULT_GROUPS[bits] if group is None else group
    form_group: Any = None if chosen == "row" else chosen
    grid = Grid(bits, form_group, levels or "mid_tread", symmetric)
    return grid if levels else choose_levels(weight, grid, **search)


def checked(op: Quantized, name: str) -> Quantized:
    """Return `op` whose scales are finite.

    Raises
    ------
    TerselmError
        If a weight was too large for a float16 scale.
    """
    if not torch.isfinite(op.scales).all():
        raise TerselmError(f"{name}: values too large for float16 scales; it cannot be quantized")
    return op


def second_moment_of(
    name: str, statistics: Statistics | None, model: LanguageModel | None
) -> Tensor | None:
    """Return what the errors of a leaf's columns count together, float64 [in, in].

    For a matrix that is multiplied with inputs x this is the mean of x xᵀ. A looked-up
    embedding has no inputs; see `readers.looked_up_moment`.

    Parameters
    ----------
    name : str
        The leaf.
    statistics : Statistics or None
    model : LanguageModel or None
        The model that the leaf belongs to.

    Returns
    -------
    Tensor or None
        None where the leaf is of neither sort; a warning then says that it is rounded to
        nearest.
    """
    found = statistics.inputs.get(name) if statistics else None
    if found is not None:
        return found.second_moment
    if model is not None and not model.ties():
        looked_up = looked_up_moment(name, model)
        if looked_up is not None:
            return looked_up
    logging.getLogger(__name__).warning(
        "%s has no inputs to measure; it is rounded to nearest, as quantize does", name
    )
    return None
