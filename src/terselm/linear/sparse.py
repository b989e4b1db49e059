"""The sparse forms: single weights are zero and not stored."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from terselm.linear.base import FORMS
from terselm.linear.positions import ElementPattern
from terselm.linear.sparse_base import CodedValues, FloatValues


@FORMS.register("sparse_quantized")
class SparseQuantized(CodedValues):
    """A sparse matrix whose values are codes of 8 or 4 bits with a scale for each row."""

    kind = "sparse_quantized"
    pattern_type = ElementPattern


@FORMS.register("sparse")
class Sparse(FloatValues):
    """A sparse matrix whose values are floats.

    Its places are stored as a bitmap or as gaps of 4 or 8 bits, whichever is smallest: a bit a
    weight, or about 5 bits a stored weight at sparsity 0.9 (docs/architecture.md).
    """

    kind = "sparse"
    pattern_type = ElementPattern
    coded_type = SparseQuantized

    @classmethod
    def from_mask(cls, weight: Tensor, mask: Tensor, stored_type: str = "float32") -> Self:
        """Return `weight` [out, in] where bool `mask` [out, in] is true, zero elsewhere."""
        return cls.of(weight, ElementPattern(mask.to(torch.bool)), stored_type)
