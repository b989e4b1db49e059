"""How integer codes and their scales lie in the file (docs/architecture.md, "Quantized layout").

Rows go in blocks of 64, the last block rounded up to a multiple of 16; columns in fours. So
every register width up to 512 bits loads whole rows' worth of four columns, without a
horizontal sum, and every packed tensor is a multiple of 64 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_ROWS = 64
ROW_MULTIPLE = 16
COLUMNS_TOGETHER = {8: 4, 4: 8}
"""Columns that one run of four bytes a row holds, by bits."""


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def row_blocks(rows: int) -> Iterator[tuple[int, int]]:
    """Yield (first row, rows) of each block over the padded rows."""
    padded = round_up(rows, ROW_MULTIPLE)
    for start in range(0, padded, BLOCK_ROWS):
        yield start, min(BLOCK_ROWS, padded - start)


def packed_code_bytes(rows: int, columns: int, bits: int) -> int:
    """Return the bytes of a packed matrix of codes."""
    return round_up(rows, ROW_MULTIPLE) * round_up(columns, COLUMNS_TOGETHER[bits]) * bits // 8


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack signed codes into bytes.

    Parameters
    ----------
    codes : Tensor
        int8 [rows, columns]; for 4 bits each in [-8, 7].
    bits : {8, 4}

    Returns
    -------
    Tensor
        uint8 [packed_code_bytes(rows, columns, bits)]. Padding stands for code 0.
    """
    rows, columns = codes.shape
    together = COLUMNS_TOGETHER[bits]
    padded = codes.new_zeros(round_up(rows, ROW_MULTIPLE), round_up(columns, together))
    padded[:rows, :columns] = codes
    parts = []
    for start, count in row_blocks(rows):
        block = padded[start : start + count]  # [R, K]
        # [R, K / together, together] -> [K / together, R, together]
        runs = block.reshape(count, -1, together).transpose(0, 1)
        if bits == 8:
            packed = runs.contiguous().view(torch.uint8)
        else:
            nibbles = (runs + 8).to(torch.uint8)
            packed = nibbles[..., :4] | (nibbles[..., 4:] << 4)
        parts.append(packed.reshape(-1))
    return torch.cat(parts)


def unpack_codes(packed: Tensor, rows: int, columns: int, bits: int) -> Tensor:
    """Return the int8 [rows, columns] codes that `pack_codes` packed."""
    together = COLUMNS_TOGETHER[bits]
    padded_columns = round_up(columns, together)
    parts = []
    position = 0
    for _, count in row_blocks(rows):
        size = count * padded_columns * bits // 8
        runs = packed[position : position + size].reshape(-1, count, 4)
        position += size
        if bits == 8:
            codes = runs.contiguous().view(torch.int8)
        else:
            codes = torch.cat([runs & 15, runs >> 4], dim=-1).to(torch.int8) - 8
        parts.append(codes.transpose(0, 1).reshape(count, padded_columns))
    return torch.cat(parts)[:rows, :columns].contiguous()


def pack_scales(scales: Tensor) -> Tensor:
    """Pack scales [rows, groups] block by block, a run of rows for each group.

    Returns
    -------
    Tensor
        The same dtype, flat, rows padded with zeros to a multiple of 16.
    """
    rows, groups = scales.shape
    padded = scales.new_zeros(round_up(rows, ROW_MULTIPLE), groups)
    padded[:rows] = scales
    return torch.cat(
        [padded[start : start + count].T.reshape(-1) for start, count in row_blocks(rows)]
    )


def unpack_scales(packed: Tensor, rows: int, groups: int) -> Tensor:
    """Return the [rows, groups] scales that `pack_scales` packed."""
    parts = []
    for start, count in row_blocks(rows):
        run = packed[start * groups : (start + count) * groups]
        parts.append(run.reshape(groups, count).T)
    return torch.cat(parts)[:rows].contiguous()
