"""Which places of a sparse matrix are stored, and how the file says so (docs/architecture.md).

Single places go in the order that a product wants: row blocks as in `linear.packing` (64 rows,
the last block rounded up to a multiple of 16), in a block column by column, in a column row by
row. The key of a place is its number in that order. So a product goes through a block once,
adding to 64 sums, and a block of the bitmap is one 64-bit mask a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from terselm.errors import TerselmError
from terselm.linear.base import read_shape, read_tensor
from terselm.linear.packing import BLOCK_ROWS, ROW_MULTIPLE, round_up

Coding = Literal["bitmap", "gaps4", "gaps8"]
CODINGS: tuple[Coding, ...] = ("bitmap", "gaps4", "gaps8")
ALIGNMENT = 64

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


class Pattern:
    """The places of a [rows, columns] matrix that are stored; the others are zero.

    Attributes
    ----------
    shape : tuple of int
        (rows, columns).
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    @property
    def positions(self) -> Tensor:
        """int64 [n], row · columns + column of each place, ascending."""
        raise NotImplementedError

    @property
    def slots(self) -> Tensor:
        """int64 [n], where the file has the value of each place among its values."""
        raise NotImplementedError

    @property
    def slot_count(self) -> int:
        """How many values the file has, padding of blocks included."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """Return what the spec says about the pattern, as JSON values."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that store the pattern."""
        raise NotImplementedError

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Pattern:
        """Read the pattern, trusting nothing.

        Raises
        ------
        TerselmError
            If a field or a tensor is missing or impossible; the message names it.
        """
        raise NotImplementedError

    def restricted_to(self, weight: Tensor) -> Tensor:
        """Return the values [n] of `weight` [rows, columns] at the stored places."""
        return weight.reshape(-1)[self.positions.to(weight.device)]


class ElementPattern(Pattern):
    """Single places, stored as a bitmap or as gaps, whichever is smaller.

    Parameters
    ----------
    mask : Tensor
        bool [rows, columns], true where a value is stored.
    """

    def __init__(self, mask: Tensor) -> None:
        rows, columns = mask.shape
        super().__init__((rows, columns))
        self._positions = mask.cpu().reshape(-1).nonzero().squeeze(-1)

    @property
    def positions(self) -> Tensor:
        """int64 [n]; see `Pattern.positions`."""
        return self._positions

    @cached_property
    def _keys_and_slots(self) -> tuple[Ints, Tensor]:
        keys = keys_of(self.positions.numpy(), *self.shape)
        order = np.argsort(keys, kind="stable")
        slots = np.empty_like(order)
        slots[order] = np.arange(len(order))
        return keys[order], torch.from_numpy(slots)

    @property
    def slots(self) -> Tensor:
        """int64 [n], the rank of each place in the order of the keys."""
        return self._keys_and_slots[1]

    @property
    def slot_count(self) -> int:
        """One value a place."""
        return len(self.positions)

    @cached_property
    def _packed(self) -> tuple[Coding, Bytes, Ints]:
        """Coding, bytes, and [blocks + 1, 2]: values and bytes before each block."""
        keys, _ = self._keys_and_slots
        best: tuple[Coding, Bytes, Ints] | None = None
        for coding in CODINGS:
            data, starts = pack_keys(keys, *self.shape, coding)
            if best is None or len(data) < len(best[1]):
                best = coding, data, starts
        assert best is not None
        return best

    def options(self) -> dict[str, Any]:
        """Return how the places are coded."""
        return {"positions": self._packed[0]}

    def tensors(self) -> dict[str, Tensor]:
        """Return `positions` (uint8, flat) and `starts` (uint32, flat)."""
        _, data, starts = self._packed
        stored = np.zeros(_starts_size(len(starts) - 1), dtype=np.uint32)
        stored[: starts.size] = starts.reshape(-1)
        return {"positions": _padded(data), "starts": torch.from_numpy(stored)}

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ElementPattern:
        """Read the pattern; see `Pattern.from_file`."""
        rows, columns = read_shape(spec)
        coding = spec.get("positions")
        if coding not in CODINGS:
            raise TerselmError(f"positions is {coding!r}, expected one of {', '.join(CODINGS)}")
        blocks = block_count(rows)
        stored = read_tensor(tensors, "starts", torch.uint32, (_starts_size(blocks),)).numpy()
        starts = stored[: 2 * (blocks + 1)].astype(np.int64).reshape(-1, 2)
        steps = np.diff(starts, axis=0)
        if starts[0].any() or (steps < 0).any() or starts[-1, 0] > rows * columns:
            raise TerselmError("tensor 'starts' does not rise from 0 to at most rows * columns")
        size = int(starts[-1, 1])
        if size > 2 * round_up(rows, ROW_MULTIPLE) * columns:
            raise TerselmError(f"tensor 'starts' gives positions {size} bytes, too many")
        data = read_tensor(
            tensors, "positions", torch.uint8, (max(1, -(-size // ALIGNMENT)) * ALIGNMENT,)
        ).numpy()
        keys = unpack_keys(data[:size], starts, rows, columns, coding)
        pattern = cls.__new__(cls)
        positions = positions_of(keys, rows, columns)
        Pattern.__init__(pattern, (rows, columns))
        pattern._positions = torch.from_numpy(np.sort(positions))
        return pattern


def block_count(rows: int) -> int:
    """Return how many row blocks a matrix has."""
    return -(-rows // BLOCK_ROWS)


def keys_of(positions: Ints, rows: int, columns: int) -> Ints:
    """Return the key of each position (row · columns + column)."""
    row, column = np.divmod(positions, columns)
    block, inside = np.divmod(row, BLOCK_ROWS)
    height = np.minimum(BLOCK_ROWS, round_up(rows, ROW_MULTIPLE) - block * BLOCK_ROWS)
    keys: Ints = block * (BLOCK_ROWS * columns) + column * height + inside
    return keys


def positions_of(keys: Ints, rows: int, columns: int) -> Ints:
    """Return the position of each key.

    Raises
    ------
    TerselmError
        If a key stands for a row beyond the matrix.
    """
    block, inside = np.divmod(keys, BLOCK_ROWS * columns)
    height = np.minimum(BLOCK_ROWS, round_up(rows, ROW_MULTIPLE) - block * BLOCK_ROWS)
    column, row = np.divmod(inside, np.maximum(height, 1))
    row = row + block * BLOCK_ROWS
    if (row >= rows).any():
        raise TerselmError(f"tensor 'positions' names a row beyond the {rows} of the matrix")
    positions: Ints = row * columns + column
    return positions


def pack_keys(keys: Ints, rows: int, columns: int, coding: Coding) -> tuple[Bytes, Ints]:
    """Return the bytes of ascending keys and what comes before each row block.

    With gaps a code c below the greatest (15 or 255) stands for c empty places and a stored
    one, the greatest for as many empty places and nothing stored, so that a long gap costs no
    value. Gaps start anew in each block, and each block starts in a byte of its own.

    Returns
    -------
    data : ndarray
        uint8 [bytes].
    starts : ndarray
        int64 [blocks + 1, 2]: values before the block, bytes before the block.
    """
    bases = _block_bases(rows, columns)
    values_before = np.searchsorted(keys, bases)
    if coding == "bitmap":
        bits = np.zeros(bases[-1], dtype=np.uint8)
        bits[keys] = 1
        data = np.packbits(bits, bitorder="little")
        return data, np.stack([values_before, bases // 8], axis=1)
    width = 4 if coding == "gaps4" else 8
    greatest = 2**width - 1
    block = np.searchsorted(bases, keys, side="right") - 1
    before = np.concatenate([[-1], keys[:-1]]) if len(keys) else keys
    gaps = keys - np.maximum(before, bases[block] - 1) - 1
    codes_each = gaps // greatest + 1
    codes_in_block = np.bincount(block, codes_each, len(bases) - 1).astype(np.int64)
    room = codes_in_block + codes_in_block % 2 if width == 4 else codes_in_block
    starts = np.concatenate([[0], np.cumsum(room)])
    slack = starts[:-1] - np.concatenate([[0], np.cumsum(codes_in_block)[:-1]])
    codes = np.full(starts[-1], greatest, dtype=np.uint8)
    codes[np.cumsum(codes_each) - 1 + slack[block]] = gaps % greatest
    if width == 4:
        codes = codes[0::2] | (codes[1::2] << 4)
        starts = starts // 2
    return codes, np.stack([values_before, starts], axis=1)


def unpack_keys(data: Bytes, starts: Ints, rows: int, columns: int, coding: Coding) -> Ints:
    """Return the ascending keys that `pack_keys` packed.

    Raises
    ------
    TerselmError
        If `starts` and `data` do not fit each other or the matrix.
    """
    bases = _block_bases(rows, columns)
    if coding == "bitmap":
        if not np.array_equal(starts[:, 1], bases // 8):
            raise TerselmError("tensor 'starts' does not fit the bitmap")
        keys = np.flatnonzero(np.unpackbits(data, bitorder="little"))
        found = np.searchsorted(keys, bases)
    else:
        codes = data
        code_starts = starts[:, 1]
        if coding == "gaps4":
            codes = np.stack([data & 15, data >> 4], axis=1).reshape(-1)
            code_starts = code_starts * 2
        greatest = 15 if coding == "gaps4" else 255
        stored = codes != greatest
        advance = codes.astype(np.int64) + stored
        total = np.concatenate([[0], np.cumsum(advance)])  # places passed after each code
        block = np.repeat(np.arange(len(bases) - 1), np.diff(code_starts))
        keys = (total[1:] - 1 - total[code_starts[:-1]][block] + bases[:-1][block])[stored]
        if (keys >= bases[1:][block[stored]]).any():
            raise TerselmError("tensor 'positions' names a place beyond its row block")
        found = np.concatenate([[0], np.cumsum(stored)])[code_starts]
    if not np.array_equal(found, starts[:, 0]):
        raise TerselmError("tensors 'starts' and 'positions' differ in how many values there are")
    return keys


def _block_bases(rows: int, columns: int) -> Ints:
    """Return the first key of each row block, and one past the last, int64 [blocks + 1]."""
    edges = np.minimum(np.arange(block_count(rows) + 1) * BLOCK_ROWS, round_up(rows, ROW_MULTIPLE))
    bases: Ints = edges.astype(np.int64) * columns
    return bases


def _starts_size(blocks: int) -> int:
    return round_up(2 * (blocks + 1), ALIGNMENT // 4)


def _padded(data: Bytes) -> Tensor:
    size = max(1, -(-len(data) // ALIGNMENT)) * ALIGNMENT
    padded = np.zeros(size, dtype=np.uint8)
    padded[: len(data)] = data
    return torch.from_numpy(padded)
