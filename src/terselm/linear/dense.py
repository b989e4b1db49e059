"""The dense form: every number of the matrix, in float32 or float16."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from terselm.errors import TerselmError
from terselm.linear.base import FORMS, Cost, LinearOp, read_finite, read_shape

STORED_TYPES = {"float32": torch.float32, "float16": torch.float16}


@FORMS.register("dense")
class Dense(LinearOp):
    """A matrix stored number by number.

    Parameters
    ----------
    weight : Tensor
        float [out_features, in_features]; kept as a float32 parameter.
    stored_type : {"float32", "float16"}
        The type in the file. A float16 matrix computes with its rounded values, so that
        what is measured is what is stored; gradients pass the rounding unchanged.

    Raises
    ------
    TerselmError
        If float16 is asked for and a value is beyond its range.
    """

    kind = "dense"

    def __init__(self, weight: Tensor, stored_type: str = "float32") -> None:
        super().__init__(*weight.shape)
        if stored_type not in STORED_TYPES:
            raise TerselmError(f"type is {stored_type!r}, expected float32 or float16")
        if stored_type == "float16" and weight.numel() and weight.abs().max() > 65504:
            raise TerselmError("values beyond 65504 do not fit float16; store as float32")
        self.stored_type = stored_type
        self.weight = nn.Parameter(weight.detach().to(torch.float32).clone())

    @classmethod
    def initialize(cls, out_features: int, in_features: int, bound: float | None = None) -> Dense:
        """Return a matrix drawn uniformly from ±`bound` (default 1 / sqrt(in_features))."""
        bound = 1 / math.sqrt(in_features) if bound is None else bound
        return cls(torch.empty(out_features, in_features).uniform_(-bound, bound))

    def dense(self) -> Tensor:
        """Return the matrix, float32 [out, in]."""
        if self.stored_type == "float16":
            return _round_to_half(self.weight)
        return self.weight

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix, float32 [*ids.shape, in]."""
        rows = nn.functional.embedding(ids, self.weight)
        return _round_to_half(rows) if self.stored_type == "float16" else rows

    def options(self) -> dict[str, Any]:
        """Return the stored type."""
        return {"type": self.stored_type}

    def tensors(self) -> dict[str, Tensor]:
        """Return `weight` [out, in] in the stored type."""
        return {"weight": self.weight.detach().to(STORED_TYPES[self.stored_type])}

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Dense:
        """Build the form; see `LinearOp.from_file`."""
        stored_type = spec.get("type")
        if not isinstance(stored_type, str) or stored_type not in STORED_TYPES:
            raise TerselmError(f"type is {stored_type!r}, expected float32 or float16")
        shape = read_shape(spec)
        return cls(read_finite(tensors, "weight", STORED_TYPES[stored_type], shape), stored_type)

    def cost(self) -> Cost:
        """Return the cost: every number is read once a product."""
        size = self.weight.numel() * STORED_TYPES[self.stored_type].itemsize
        return Cost(bytes=size, macs=self.weight.numel(), bytes_read=size)

    def parameter_count(self) -> int:
        """Return out_features * in_features."""
        return self.weight.numel()

    def settle(self) -> None:
        """Round the weights to the stored type."""
        with torch.no_grad():
            self.weight.copy_(self.dense())


def _round_to_half(x: Tensor) -> Tensor:
    return x + (x.half().float() - x).detach()
