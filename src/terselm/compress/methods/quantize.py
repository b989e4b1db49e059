"""Uniform quantization after training."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.rounding import quantize_uniform
from terselm.errors import TerselmError
from terselm.linear.base import LinearOp
from terselm.linear.quantized import GROUP_MULTIPLE, Quantized

Group = Annotated[int, Field(ge=GROUP_MULTIPLE, multiple_of=GROUP_MULTIPLE)]
DEFAULT_GROUP = 32


@register_method("quantize")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Quantize(WeightMethod):
    """Store a matrix as small integers with a float16 scale for each row or group.

    Paper: Grachev, Ignatov, Savchenko 2019 (arXiv 1902.02380), section 3.1, has 8 bits with
    one range for the whole matrix; a scale for each row costs two bytes a row and loses less.
    The least-squares range follows the alternation of Xu et al. 2018 (arXiv 1802.00150).

    Recipe::

        - {method: quantize, weights: "*", bits: 4, group: 32}

    Cost: bits / 32 of the bytes, and 2 bytes a scale: 8 bits a row is 8.02 bits a number for
    rows of 650, 4 bits in groups of 32 is 4.5.

    When not: 4 bits with one scale a row loses two to three times as much as in groups of
    32; for less than that use groups of 64 or 128.

    Parameters
    ----------
    bits : {8, 4}
        Bits of a code.
    group : int, "row" or None
        Columns that share a scale, a multiple of 8. None: a row at 8 bits, 32 at 4 bits.
    range : {"least_squares", "absolute_maximum"}
        How the scale is chosen; see `compress.rounding.quantize_uniform`.
    """

    takes = ("dense",)

    bits: Literal[8, 4] = 8
    group: Group | Literal["row"] | None = None
    range: Literal["least_squares", "absolute_maximum"] = "least_squares"

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return the quantized form of one dense matrix."""
        group = self._group()
        codes, scales = quantize_uniform(leaf.dense(), self.bits, group, self.range)
        if not torch.isfinite(scales).all():
            raise TerselmError(
                f"{name}: values too large for float16 scales; it cannot be quantized"
            )
        return Quantized(codes, scales, self.bits, group)

    def _group(self) -> int | None:
        if self.group == "row":
            return None
        if self.group is None:
            return None if self.bits == 8 else DEFAULT_GROUP
        return self.group
