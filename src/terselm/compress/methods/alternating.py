"""Multi-bit binary codes by alternating least squares."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from terselm.compress.alternating import binary_codes
from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.clustering import number_weights
from terselm.errors import TerselmError
from terselm.linear.base import LinearOp
from terselm.linear.binary_codes import BITS, GROUP_MULTIPLE, GROUP_RANGE
from terselm.linear.binary_codes import BinaryCodes as BinaryCodesForm

Bits = Annotated[int, Field(ge=BITS[0], le=BITS[-1])]
Group = Annotated[int, Field(ge=GROUP_RANGE[0], le=GROUP_RANGE[1], multiple_of=GROUP_MULTIPLE)]


@register_method("binary_codes")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class BinaryCodes(WeightMethod):
    """Store a matrix as a sum of a few matrices of signs, scaled for each row or group.

    Paper: Xu et al. 2018, "Alternating multi-bit quantization for recurrent neural networks"
    (arXiv 1802.00150), section 3. The alternation starts from the paper's greedy solution and
    from others; the best is kept, see `compress.alternating.binary_codes`.

    Recipe::

        - {method: binary_codes, weights: "*", bits: 3}

    Cost: bits / 32 of the bytes, and `bits` float16 scales a row or group: 3 bits a row is
    3.07 bits a number for rows of 650, 2 bits in groups of 32 is 3. A product is sums of
    inputs with signs; it needs multiplications for the scales only.

    When not: at 4 bits and more, where even steps (`quantize`) are about as good.

    Parameters
    ----------
    bits : int
        Matrices of signs, 1 to 4.
    group : int or "row"
        Columns that share scales, a multiple of 8 from 16 to 128.
    weighted : bool
        Count the error of each column by the mean square of its inputs on calibration text.
    """

    takes = ("dense",)

    bits: Bits = 3
    group: Group | Literal["row"] = "row"
    weighted: bool = False

    def needs_statistics(self) -> bool:
        """Return whether calibration text is needed: only for weighted codes."""
        return self.weighted

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return the binary-codes form of one dense matrix."""
        weights = None
        if context.statistics is not None:
            weights = number_weights(context.statistics, leaf, name)[1].unsqueeze(0)
        group = None if self.group == "row" else self.group
        dense = leaf.dense()
        codes, scales = binary_codes(dense.cpu(), self.bits, group, weights)
        if not torch.isfinite(scales).all():
            raise TerselmError(f"{name}: values too large for float16 scales; it cannot be coded")
        return BinaryCodesForm(codes, scales, group).to(dense.device)
