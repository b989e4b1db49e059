"""Matrices stacked by rows, each block in a stored form of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terselm.errors import TerselmError
from terselm.linear.base import FORMS, LinearOp, op_from_file, read_shape

BLOCK = "block"
"""Children are named block0, block1, ... from the top."""
MAX_BLOCKS = 256


@FORMS.register("row_blocks")
class RowBlocks(LinearOp):
    """W = [W₀; W₁; ...]: blocks of rows, one under the other.

    The stacked gates of a cell are such blocks, so that each gate can have its own factors.

    Parameters
    ----------
    blocks : sequence of LinearOp
        [rows of the block, in_features] each, from the top; at most 256.

    Raises
    ------
    TerselmError
        If there is none, there are too many, or their widths differ.
    """

    kind = "row_blocks"

    def __init__(self, blocks: Sequence[LinearOp]) -> None:
        if not 1 <= len(blocks) <= MAX_BLOCKS:
            raise TerselmError(f"blocks is {len(blocks)}, expected 1 to {MAX_BLOCKS}")
        widths = [block.in_features for block in blocks]
        if len(set(widths)) > 1:
            raise TerselmError(f"its blocks are {widths} wide, expected all the same")
        super().__init__(sum(block.out_features for block in blocks), widths[0])
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ block by block, float32 [..., out]."""
        return torch.cat([block(x) for block in self.children_by_name().values()], dim=-1)

    def dense(self) -> Tensor:
        """Return the stacked matrix, float32 [out, in]."""
        return torch.cat([block.dense() for block in self.children_by_name().values()])

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix, float32 [*ids.shape, in]."""
        flat = ids.reshape(-1)  # [n]
        places, parts = [], []
        start = 0
        for block in self.children_by_name().values():
            end = start + block.out_features
            place = ((flat >= start) & (flat < end)).nonzero().squeeze(-1)
            places.append(place)
            parts.append(block.rows(flat[place] - start))
            start = end
        # Place number n of the parts holds id number order[n]; the inverse puts them back.
        order = torch.cat(places)
        return torch.cat(parts)[order.argsort()].reshape(*ids.shape, self.in_features)

    def children_by_name(self) -> dict[str, LinearOp]:
        """Return the blocks as block0, block1, ..."""
        return blocks_by_name(self.blocks)

    def with_children(self, children: Mapping[str, LinearOp]) -> RowBlocks:
        """Return other blocks in the same order."""
        return RowBlocks([children[key] for key in self.children_by_name()])

    def options(self) -> dict[str, Any]:
        """Return the number of blocks."""
        return {"blocks": len(self.blocks)}

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LinearOp:
        """Build the form; see `LinearOp.from_file`."""
        op = cls(blocks_from_file(spec, tensors))
        check_stacked_shape(op, spec)
        return op


def blocks_by_name(blocks: nn.ModuleList) -> dict[str, LinearOp]:
    """Return blocks under the names that they have in a file."""
    return {
        f"{BLOCK}{number}": block
        for number, block in enumerate(blocks)
        if isinstance(block, LinearOp)
    }


def blocks_from_file(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[LinearOp]:
    """Return the blocks that a spec describes, after checking how many there are."""
    count = spec.get("blocks")
    if type(count) is not int or not 1 <= count <= MAX_BLOCKS:
        raise TerselmError(f"blocks is {count!r}, expected an integer from 1 to {MAX_BLOCKS}")
    names = [f"{BLOCK}{number}" for number in range(count)]
    return [op_from_file(spec.get(name, {}), tensors, name) for name in names]


def check_stacked_shape(op: LinearOp, spec: Mapping[str, Any]) -> None:
    """Refuse blocks that do not make the shape that the spec states."""
    if op.shape != read_shape(spec):
        raise TerselmError(
            f"its blocks make {list(op.shape)}, the description says {spec.get('shape')}"
        )
