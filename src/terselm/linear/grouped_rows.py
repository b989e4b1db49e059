"""Rows in groups, each group a matrix in a stored form of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from terselm.errors import TerselmError
from terselm.linear.base import FORMS, Cost, LinearOp, read_shape, read_tensor
from terselm.linear.row_blocks import RowBlocks, blocks_from_file, check_stacked_shape


@FORMS.register("grouped_rows")
class GroupedRows(RowBlocks):
    """Blocks of rows that are not neighbours: row i is in block groups[i].

    Inside a block the rows keep their order, so one byte a row says which they are. Source:
    the vocabulary partition of GroupReduce, Chen et al. 2018 (arXiv 1806.06950), section 3.

    Parameters
    ----------
    blocks : sequence of LinearOp
        [rows of the group, in_features] each, at most 256.
    groups : Tensor
        Integers [out_features]: the block of each row. Block b is as high as there are rows
        that name it.

    Raises
    ------
    TerselmError
        If a row names no block, or a block has another height than rows that name it.
    """

    kind = "grouped_rows"

    def __init__(self, blocks: Sequence[LinearOp], groups: Tensor) -> None:
        super().__init__(blocks)
        groups = groups.to(torch.int64)
        if tuple(groups.shape) != (self.out_features,):
            raise TerselmError(f"groups are {list(groups.shape)}, expected {[self.out_features]}")
        if groups.min() < 0 or groups.max() >= len(blocks):
            raise TerselmError(f"groups holds a number beyond its {len(blocks)} blocks")
        heights = [block.out_features for block in blocks]
        counts = torch.bincount(groups, minlength=len(blocks)).tolist()
        if counts != heights:
            raise TerselmError(f"groups names {counts} rows, its blocks have {heights}")
        self.groups: Tensor
        self.place: Tensor
        self.register_buffer("groups", groups.to(torch.uint8))
        # Row i of the matrix is row place[i] of the stacked blocks, int64 [out].
        self.register_buffer("place", groups.argsort(stable=True).argsort())

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ group by group, float32 [..., out]."""
        return super().forward(x)[..., self.place]

    def dense(self) -> Tensor:
        """Return the matrix with its rows in place, float32 [out, in]."""
        return super().dense()[self.place]

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix, float32 [*ids.shape, in]."""
        return super().rows(self.place[ids])

    def with_children(self, children: Mapping[str, LinearOp]) -> GroupedRows:
        """Return other blocks with the same rows in each."""
        return GroupedRows([children[key] for key in self.children_by_name()], self.groups)

    def tensors(self) -> dict[str, Tensor]:
        """Return `groups` (uint8 [out]) and the tensors of the blocks."""
        return {"groups": self.groups, **super().tensors()}

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LinearOp:
        """Build the form; see `LinearOp.from_file`."""
        rows, _ = read_shape(spec)
        groups = read_tensor(tensors, "groups", torch.uint8, (rows,))
        blocks = blocks_from_file(spec, tensors)
        if sum(block.out_features for block in blocks) != rows:
            heights = [block.out_features for block in blocks]
            raise TerselmError(f"its blocks have {heights} rows, shape says {rows}")
        op = cls(blocks, groups)
        check_stacked_shape(op, spec)
        return op

    def cost(self) -> Cost:
        """Return that of the blocks, and the groups, which a product reads to place its rows."""
        return super().cost() + Cost(bytes=len(self.groups), macs=0, bytes_read=len(self.groups))
