"""The low-rank form: a tall factor times a wide one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from terselm.errors import TerselmError
from terselm.linear.base import FORMS, LinearOp, op_from_file, read_shape


@FORMS.register("low_rank")
class LowRank(LinearOp):
    """W = left · right, each factor in a stored form of its own.

    The product is computed as (x rightᵀ) leftᵀ: rank · (out + in) multiplications in place
    of out · in. Source: arXiv 1902.02380, section 3.2.

    Parameters
    ----------
    left : LinearOp
        [out_features, rank].
    right : LinearOp
        [rank, in_features].
    """

    kind = "low_rank"

    def __init__(self, left: LinearOp, right: LinearOp) -> None:
        if left.in_features != right.out_features:
            raise TerselmError(
                f"left factor has {left.in_features} columns, right one {right.out_features} rows"
            )
        if left.in_features > max(left.out_features, right.in_features):
            raise TerselmError(
                f"rank is {left.in_features}, more than [{left.out_features}, "
                f"{right.in_features}] has rows or columns"
            )
        super().__init__(left.out_features, right.in_features)
        self.left = left
        self.right = right

    @property
    def rank(self) -> int:
        """The inner size of the product."""
        return self.right.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ through the factors, float32 [..., out]."""
        return self.left(self.right(x))

    def dense(self) -> Tensor:
        """Return left · right, float32 [out, in]."""
        return self.left.dense() @ self.right.dense()

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the product, float32 [*ids.shape, in]."""
        return self.left.rows(ids) @ self.right.dense()

    def children_by_name(self) -> dict[str, LinearOp]:
        """Return both factors."""
        return {"left": self.left, "right": self.right}

    def with_children(self, children: Mapping[str, LinearOp]) -> LowRank:
        """Return the product of other factors."""
        return LowRank(children["left"], children["right"])

    def options(self) -> dict[str, Any]:
        """Return the rank."""
        return {"rank": self.rank}

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LowRank:
        """Build the form; see `LinearOp.from_file`."""
        left = op_from_file(spec.get("left", {}), tensors, "left")
        right = op_from_file(spec.get("right", {}), tensors, "right")
        op = cls(left, right)
        if op.shape != read_shape(spec) or op.rank != spec.get("rank"):
            raise TerselmError(
                f"its factors make {list(op.shape)} of rank {op.rank}, "
                f"the description says {spec.get('shape')} of rank {spec.get('rank')}"
            )
        return op
