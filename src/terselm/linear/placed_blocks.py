"""A matrix of blocks that lie anywhere in it, each in a stored form of its own; zero elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from terselm.errors import TerselmError
from terselm.linear.base import FORMS, Cost, LinearOp, read_finite, read_shape
from terselm.linear.row_blocks import MAX_BLOCKS, blocks_by_name, blocks_from_file


@dataclass(frozen=True)
class Place:
    """Where a block lies: its first row, counted in each band, and its first column."""

    row: int
    column: int


@FORMS.register("placed_blocks")
class PlacedBlocks(LinearOp):
    """W is the sum of blocks, each times a number and at its place, and zero elsewhere.

    Block-diagonal matrices, blocks side by side, and sums (low rank plus sparse) are such.
    The rows of W and of each block are cut into the same number of bands, and band k of a block
    lies in band k of W: with a band for each gate, the stacked gates of two cells make those of
    one cell that has the units of both.

    Parameters
    ----------
    blocks : sequence of LinearOp
        At most 256.
    places : sequence of Place
        Of each block.
    shape : tuple of int
        Of W; its rows and those of each block are multiples of `bands`.
    bands : int
    scales : Tensor or None
        float32 [blocks], what each block is multiplied with; None: one.

    Raises
    ------
    TerselmError
        If a block does not fit, or a row or column of W is in none.
    """

    kind = "placed_blocks"

    def __init__(
        self,
        blocks: Sequence[LinearOp],
        places: Sequence[Place],
        shape: tuple[int, int],
        bands: int = 1,
        scales: Tensor | None = None,
    ) -> None:
        super().__init__(*shape)
        if not 1 <= len(blocks) <= MAX_BLOCKS or len(places) != len(blocks):
            raise TerselmError(
                f"{len(blocks)} blocks at {len(places)} places, expected 1 to {MAX_BLOCKS} of both"
            )
        if bands < 1 or any(rows % bands for rows in (shape[0], *_heights(blocks))):
            raise TerselmError(f"{shape[0]} rows of {_heights(blocks)} make no {bands} bands")
        if scales is not None and tuple(scales.shape) != (len(blocks),):
            raise TerselmError(f"scales are {list(scales.shape)}, expected {[len(blocks)]}")
        self.blocks = nn.ModuleList(blocks)
        self.places = tuple(places)
        self.bands = bands
        self.scales: Tensor | None
        self.register_buffer("scales", scales)
        height = self.band_height
        rows = [
            (place.row, place.row + block.out_features // bands)
            for block, place in zip(blocks, places, strict=True)
        ]
        columns = [
            (place.column, place.column + block.in_features)
            for block, place in zip(blocks, places, strict=True)
        ]
        for what, spans, size in (("rows", rows, height), ("columns", columns, shape[1])):
            if not _cover(spans, size):
                raise TerselmError(f"its blocks have {what} {spans}, expected to fill {size}")

    @property
    def band_height(self) -> int:
        """Rows of a band of W."""
        return self.out_features // self.bands

    def placed(self) -> list[tuple[LinearOp, Place, Tensor | float]]:
        """Return each block with its place and what it is multiplied with."""
        blocks = self.children_by_name().values()
        factors = [1.0] * len(blocks) if self.scales is None else self.scales.unbind()
        return list(zip(blocks, self.places, factors, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ block by block, float32 [..., out]."""
        parts = [
            block(x[..., place.column : place.column + block.in_features]) * factor
            for block, place, factor in self.placed()
        ]
        # In the type that autocast gives products.
        y = parts[0].new_zeros(*x.shape[:-1], self.bands, self.band_height)
        for part, place in zip(parts, self.places, strict=True):
            bands = part.unflatten(-1, (self.bands, -1))  # [..., bands, height]
            y[..., place.row : place.row + bands.shape[-1]] += bands
        return y.flatten(-2)

    def dense(self) -> Tensor:
        """Return W, float32 [out, in]."""
        first = next(iter(self.children_by_name().values())).dense()
        whole = first.new_zeros(self.bands, self.band_height, self.in_features)
        for block, place, factor in self.placed():
            part = (block.dense() * factor).unflatten(0, (self.bands, -1))
            rows = slice(place.row, place.row + part.shape[1])
            whole[:, rows, place.column : place.column + part.shape[2]] += part
        return whole.flatten(0, 1)

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of W, float32 [*ids.shape, in]."""
        flat = ids.reshape(-1)  # [n]
        band, row = flat // self.band_height, flat % self.band_height
        parts = []
        for block, place, factor in self.placed():
            height = block.out_features // self.bands
            found = ((row >= place.row) & (row < place.row + height)).nonzero().squeeze(-1)
            inside = band[found] * height + row[found] - place.row
            part = block.rows(inside) * factor  # [found, width]
            after = self.in_features - place.column - block.in_features
            padded = nn.functional.pad(part, (place.column, after))
            parts.append(padded.new_zeros(len(flat), self.in_features).index_add(0, found, padded))
        return torch.stack(parts).sum(dim=0).reshape(*ids.shape, self.in_features)

    def children_by_name(self) -> dict[str, LinearOp]:
        """Return the blocks as block0, block1, ..."""
        return blocks_by_name(self.blocks)

    def with_children(self, children: Mapping[str, LinearOp]) -> PlacedBlocks:
        """Return other blocks at the same places."""
        blocks = [children[key] for key in self.children_by_name()]
        return PlacedBlocks(blocks, self.places, self.shape, self.bands, self.scales)

    def options(self) -> dict[str, Any]:
        """Return the number of blocks and bands, and row and column of each block."""
        options: dict[str, Any] = {
            "blocks": len(self.blocks),
            "bands": self.bands,
            "places": [side for place in self.places for side in (place.row, place.column)],
        }
        return options if self.scales is None else options | {"scaled": True}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the blocks and, where there are any, `scales` (float32)."""
        own = {} if self.scales is None else {"scales": self.scales}
        return own | super().tensors()

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LinearOp:
        """Build the form; see `LinearOp.from_file`."""
        shape = read_shape(spec)
        blocks = blocks_from_file(spec, tensors)
        bands, numbers, scaled = spec.get("bands"), spec.get("places"), spec.get("scaled", False)
        if type(bands) is not int or not 1 <= bands <= shape[0]:
            raise TerselmError(f"bands is {bands!r}, expected an integer from 1 to {shape[0]}")
        if (
            not isinstance(numbers, list)
            or len(numbers) != 2 * len(blocks)
            or not all(type(number) is int and 0 <= number < 2**31 for number in numbers)
        ):
            raise TerselmError(
                f"places is {numbers!r}, expected a row and a column of each of {len(blocks)} "
                "blocks"
            )
        if type(scaled) is not bool:
            raise TerselmError(f"scaled is {scaled!r}, expected true or false")
        scales = read_finite(tensors, "scales", torch.float32, (len(blocks),)) if scaled else None
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return cls(blocks, [Place(*pair) for pair in pairs], shape, bands, scales)

    def cost(self) -> Cost:
        """Return that of the blocks and of the numbers they are multiplied with."""
        own = 0 if self.scales is None else 4 * len(self.scales)
        return super().cost() + Cost(bytes=own, macs=0, bytes_read=own)


def _heights(blocks: Sequence[LinearOp]) -> list[int]:
    return [block.out_features for block in blocks]


def _cover(spans: Sequence[tuple[int, int]], size: int) -> bool:
    """Return whether spans lie in [0, size) and leave nothing of it out."""
    end = 0
    for start, stop in sorted(spans):
        if start < 0 or start > end:
            return False
        end = max(end, stop)
    return end == size
