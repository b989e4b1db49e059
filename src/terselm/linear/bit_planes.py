"""How nibbles and bit planes lie in the file (docs/architecture.md, "Nibbles and bit planes").

Rows go in the blocks of `linear.packing`. A byte holds the nibbles of two rows half a block
apart, so that a register of bytes is split into the nibbles of its rows by one mask and one
shift, and each nibble can pick one of 16 prepared values (one shuffle of bytes).
"""

from __future__ import annotations

import torch
from torch import Tensor

from terselm.linear.packing import ROW_MULTIPLE, round_up, row_blocks

PLANE_COLUMNS = 4
"""Columns whose bits of one plane make a nibble."""


def packed_nibble_bytes(rows: int, columns: int) -> int:
    """Return the bytes of a packed matrix of nibbles."""
    return round_up(rows, ROW_MULTIPLE) * columns // 2


def pack_nibbles(nibbles: Tensor) -> Tensor:
    """Pack numbers of four bits, [columns][R / 2] bytes for each block of R rows.

    Parameters
    ----------
    nibbles : Tensor
        uint8 [rows, columns], each below 16.

    Returns
    -------
    Tensor
        uint8 [packed_nibble_bytes(rows, columns)]. The low nibble of byte r is row r of the
        block, the high one row r + R / 2. Padding is 0.
    """
    rows, columns = nibbles.shape
    padded = nibbles.new_zeros(round_up(rows, ROW_MULTIPLE), columns)
    padded[:rows] = nibbles
    parts = []
    for start, count in row_blocks(rows):
        block = padded[start : start + count].T  # [columns, R]
        parts.append((block[:, : count // 2] | (block[:, count // 2 :] << 4)).reshape(-1))
    return torch.cat(parts)


def unpack_nibbles(packed: Tensor, rows: int, columns: int) -> Tensor:
    """Return the uint8 [rows, columns] numbers that `pack_nibbles` packed."""
    parts = []
    for start, count in row_blocks(rows):
        run = packed[start * columns // 2 : (start + count) * columns // 2]
        halves = run.reshape(columns, count // 2)
        parts.append(torch.cat([halves & 15, halves >> 4], dim=1).T)
    return torch.cat(parts)[:rows].contiguous()


def packed_plane_bytes(rows: int, columns: int, bits: int) -> int:
    """Return the bytes of a packed matrix of `bits` bit planes."""
    return packed_nibble_bytes(rows, round_up(columns, PLANE_COLUMNS) // PLANE_COLUMNS * bits)


def pack_planes(codes: Tensor, bits: int) -> Tensor:
    """Pack unsigned codes as bit planes, [columns / 4][bits][R / 2] bytes a block of R rows.

    Parameters
    ----------
    codes : Tensor
        uint8 [rows, columns], each below 2^bits.
    bits : int
        In [1, 8].

    Returns
    -------
    Tensor
        uint8 [packed_plane_bytes(rows, columns, bits)]. Plane p holds bit p of the codes;
        bit c of a nibble is column c of the four. Padding is 0.
    """
    rows, columns = codes.shape
    quads = -(-columns // PLANE_COLUMNS)
    padded = codes.new_zeros(rows, quads * PLANE_COLUMNS)
    padded[:, :columns] = codes
    fours = padded.view(rows, quads, PLANE_COLUMNS)
    nibbles = codes.new_zeros(rows, quads, bits)
    for plane in range(bits):
        for column in range(PLANE_COLUMNS):
            nibbles[:, :, plane] |= ((fours[:, :, column] >> plane) & 1) << column
    return pack_nibbles(nibbles.view(rows, quads * bits))


def unpack_planes(packed: Tensor, rows: int, columns: int, bits: int) -> Tensor:
    """Return the uint8 [rows, columns] codes that `pack_planes` packed."""
    quads = -(-columns // PLANE_COLUMNS)
    nibbles = unpack_nibbles(packed, rows, quads * bits).view(rows, quads, bits)
    fours = nibbles.new_zeros(rows, quads, PLANE_COLUMNS)
    for plane in range(bits):
        for column in range(PLANE_COLUMNS):
            fours[:, :, column] |= ((nibbles[:, :, plane] >> column) & 1) << plane
    return fours.view(rows, -1)[:, :columns].contiguous()
