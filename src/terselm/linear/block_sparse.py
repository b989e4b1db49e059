"""The block-sparse forms: whole small blocks are zero and not stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from terselm.errors import TerselmError
from terselm.linear.base import FORMS, read_shape, read_tensor
from terselm.linear.positions import ALIGNMENT, Pattern
from terselm.linear.sparse_base import CodedValues, FloatValues

SIDES = (1, 2, 4, 8, 16, 32, 64)
COLUMNS_TOGETHER = 4

Block = tuple[int, int]


class BlockPattern(Pattern):
    """Blocks of a matrix, each stored whole, the last ones of a row or column padded.

    The file has a bit for each block, row of blocks by row of blocks, and the blocks in that
    order. A block of r rows and c columns lies as [c / t][r][t] with t = 4, or c where that is
    not a multiple of 4: at 16 x 4 and 8 bits one block is one 512-bit register, as it is in
    the quantized layout.

    Parameters
    ----------
    shape : tuple of int
        (rows, columns) of the matrix.
    block : tuple of int
        (rows, columns) of a block, each a power of two up to 64.
    kept : Tensor
        bool [ceil(rows / r), ceil(columns / c)].
    """

    def __init__(self, shape: tuple[int, int], block: Block, kept: Tensor) -> None:
        super().__init__(shape)
        self.block = block
        self.kept = kept.cpu()

    @cached_property
    def positions(self) -> Tensor:
        """int64 [n]; see `Pattern.positions`.

        Made of the kept blocks alone, and when first asked for: a reader has then seen that their
        values are there. A bitmap of some kilobytes may stand for a matrix of any size.
        """
        rows, columns = self.shape
        high, wide = self.block
        top, left = (self.kept.nonzero() * torch.tensor(self.block)).unbind(1)  # [blocks] each
        row = (top.unsqueeze(1) + torch.arange(high)).unsqueeze(2)  # [blocks, high, 1]
        column = (left.unsqueeze(1) + torch.arange(wide)).unsqueeze(1)  # [blocks, 1, wide]
        inside = (row < rows) & (column < columns)
        return (row * columns + column)[inside].sort().values

    @cached_property
    def slots(self) -> Tensor:
        """int64 [n]: the number of its block among the kept, and its place in it."""
        high, wide = self.block
        together = math.gcd(wide, COLUMNS_TOGETHER)
        row = self.positions // self.shape[1]
        column = self.positions % self.shape[1]
        numbers = self.kept.reshape(-1).long().cumsum(0).view(self.kept.shape) - 1
        number = numbers[row // high, column // wide]
        r, c = row % high, column % wide
        inside = (c // together * high + r) * together + c % together
        return number * (high * wide) + inside

    @property
    def slot_count(self) -> int:
        """The numbers of all kept blocks."""
        return int(self.kept.sum()) * self.block[0] * self.block[1]

    def options(self) -> dict[str, Any]:
        """Return the block."""
        return {"block": list(self.block)}

    def tensors(self) -> dict[str, Tensor]:
        """Return `blocks`: uint8, a bit for each block, the lowest bit first."""
        bits = torch.zeros(_bitmap_bytes(self.kept.numel()) * 8, dtype=torch.uint8)
        bits[: self.kept.numel()] = self.kept.reshape(-1)
        weights = 2 ** torch.arange(8)
        return {"blocks": (bits.view(-1, 8).long() * weights).sum(1).to(torch.uint8)}

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BlockPattern:
        """Read the pattern; see `Pattern.from_file`."""
        rows, columns = read_shape(spec)
        block = spec.get("block")
        if (
            not isinstance(block, list)
            or len(block) != 2
            or not all(type(side) is int and side in SIDES for side in block)
        ):
            raise TerselmError(f"block is {block!r}, expected two powers of two up to 64")
        grid = -(-rows // block[0]), -(-columns // block[1])
        count = grid[0] * grid[1]
        packed = read_tensor(tensors, "blocks", torch.uint8, (_bitmap_bytes(count),))
        bits = (packed.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1
        flat = bits.reshape(-1).bool()
        if flat[count:].any():
            raise TerselmError(f"tensor 'blocks' names a block beyond the {count} of the matrix")
        return cls((rows, columns), (block[0], block[1]), flat[:count].view(grid))


@FORMS.register("block_sparse_quantized")
class BlockSparseQuantized(CodedValues):
    """A block-sparse matrix whose values are codes of 8 or 4 bits with a scale for each row."""

    kind = "block_sparse_quantized"
    pattern_type = BlockPattern


@FORMS.register("block_sparse")
class BlockSparse(FloatValues):
    """A block-sparse matrix whose values are floats."""

    kind = "block_sparse"
    pattern_type = BlockPattern
    coded_type = BlockSparseQuantized

    @classmethod
    def from_blocks(
        cls, weight: Tensor, kept: Tensor, block: Block, stored_type: str = "float32"
    ) -> Self:
        """Return `weight` [out, in] in the blocks that bool `kept` names, zero elsewhere."""
        shape = (weight.shape[0], weight.shape[1])
        return cls.of(weight, BlockPattern(shape, block, kept), stored_type)


def _bitmap_bytes(blocks: int) -> int:
    return max(1, -(-blocks // (8 * ALIGNMENT))) * ALIGNMENT
