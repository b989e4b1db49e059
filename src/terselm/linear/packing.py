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
PLANES: dict[int, tuple[int, ...]] = {8: (8,), 4: (4,), 3: (1, 2), 2: (2,)}
"""By bits of a code, the bits of each plane it is stored in, the high bits first."""


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
    runs = sum(-(-columns // _columns_of_a_run(plane)) for plane in PLANES[bits])
    return round_up(rows, ROW_MULTIPLE) * 4 * runs


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack signed codes into bytes.

    Parameters
    ----------
    codes : Tensor
        int8 [rows, columns], each in [-2^(bits-1), 2^(bits-1) - 1].
    bits : {8, 4, 3, 2}

    Returns
    -------
    Tensor
        uint8 [packed_code_bytes(rows, columns, bits)]. Padding stands for code 0.
    """
    rows, columns = codes.shape
    # 8-bit codes stay in two's complement; smaller ones are counted up from the least.
    least = 0 if bits == 8 else 2 ** (bits - 1)
    padded = codes.new_full((round_up(rows, ROW_MULTIPLE), columns), least)
    padded[:rows] = codes + least
    values = padded.view(torch.uint8)
    parts = []
    for start, count in row_blocks(rows):
        block = values[start : start + count]  # [R, columns]
        if bits == 3:
            high = _pack_plane(block >> 2, 1, fill=1)
            parts.append(_interleave(high, _pack_plane(block & 3, 2, fill=0)).reshape(-1))
        else:
            parts.append(_pack_plane(block, bits, fill=least).reshape(-1))
    return torch.cat(parts)


def unpack_codes(packed: Tensor, rows: int, columns: int, bits: int) -> Tensor:
    """Return the int8 [rows, columns] codes that `pack_codes` packed."""
    parts = []
    position = 0
    for _, count in row_blocks(rows):
        size = packed_code_bytes(count, columns, bits)
        runs = packed[position : position + size].reshape(-1, count, 4)
        position += size
        if bits == 3:
            high, low = _part(runs)
            block = (_unpack_plane(high, 1)[:, :columns] << 2) | _unpack_plane(low, 2)[:, :columns]
        else:
            block = _unpack_plane(runs, bits)[:, :columns]
        parts.append(block)
    codes = torch.cat(parts)[:rows].contiguous().view(torch.int8)
    return codes if bits == 8 else codes - 2 ** (bits - 1)


def _columns_of_a_run(bits: int) -> int:
    """Return how many columns four bytes hold."""
    return 32 // bits


def _pack_plane(values: Tensor, bits: int, fill: int) -> Tensor:
    """Pack uint8 [R, columns] of `bits` each into runs, uint8 [runs, R, 4]."""
    count, columns = values.shape
    together = _columns_of_a_run(bits)
    padded = values.new_full((count, round_up(columns, together)), fill)
    padded[:, :columns] = values
    # [R, runs, places in a byte, 4] -> [runs, R, places, 4]
    places = padded.view(count, -1, together // 4, 4).transpose(0, 1)
    packed = places[:, :, 0].contiguous()
    for place in range(1, together // 4):
        packed |= places[:, :, place] << (place * bits)
    return packed


def _unpack_plane(runs: Tensor, bits: int) -> Tensor:
    """Return uint8 [R, padded columns] of what `_pack_plane` packed."""
    mask = 2**bits - 1
    places = [(runs >> (place * bits)) & mask for place in range(8 // bits)]
    values = torch.stack(places, dim=2)  # [runs, R, places, 4]
    return values.transpose(0, 1).reshape(runs.shape[1], -1)


def _interleave(high: Tensor, low: Tensor) -> Tensor:
    """Put each run of the one-bit plane before the two runs of the two-bit plane it belongs to.

    The last one-bit run may have only one run of the other plane after it.
    """
    runs = high.new_empty(len(high) + len(low), *high.shape[1:])
    is_high = torch.arange(len(runs)) % 3 == 0
    runs[is_high] = high
    runs[~is_high] = low
    return runs


def _part(runs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (high, low) that `_interleave` took, from all their runs."""
    is_high = torch.arange(len(runs)) % 3 == 0
    return runs[is_high], runs[~is_high]


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
