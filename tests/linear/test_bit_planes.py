"""The layout of nibbles and bit planes, against the definition bit by bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from terselm.linear.bit_planes import (
    pack_nibbles,
    pack_planes,
    packed_nibble_bytes,
    packed_plane_bytes,
    unpack_nibbles,
    unpack_planes,
)

sizes = st.integers(1, 150)


@given(sizes, sizes)
def test_nibbles_come_back(rows, columns):
    nibbles = torch.randint(16, (rows, columns), dtype=torch.uint8)
    packed = pack_nibbles(nibbles)
    assert packed.dtype == torch.uint8
    assert packed.numel() == packed_nibble_bytes(rows, columns)
    assert torch.equal(unpack_nibbles(packed, rows, columns), nibbles)


@given(sizes, sizes, st.integers(1, 8))
def test_planes_come_back(rows, columns, bits):
    codes = torch.randint(2**bits, (rows, columns), dtype=torch.uint8)
    packed = pack_planes(codes, bits)
    assert packed.numel() == packed_plane_bytes(rows, columns, bits)
    assert packed.numel() == -(-rows // 16) * 16 * -(-columns // 4) * 4 * bits // 8
    assert torch.equal(unpack_planes(packed, rows, columns, bits), codes)


@pytest.mark.parametrize("rows", [1, 16, 48, 64, 80, 200])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_every_bit_lies_where_the_layout_says(rows, bits):
    columns = 11
    codes = torch.randint(2**bits, (rows, columns), dtype=torch.uint8)
    packed = pack_planes(codes, bits)
    padded = -(-rows // 16) * 16
    for row in {0, rows // 3, rows // 2, rows - 1}:
        block, inside = divmod(row, 64)
        height = min(64, padded - 64 * block)
        start = 64 * block * 3 * bits // 2  # three quads of columns, half a byte each
        for column in range(columns):
            for plane in range(bits):
                run = (column // 4) * bits + plane
                byte = int(packed[start + run * height // 2 + inside % (height // 2)])
                nibble = byte >> 4 if inside >= height // 2 else byte & 15
                expected = int(codes[row, column]) >> plane & 1
                assert nibble >> (column % 4) & 1 == expected
