"""The layout of codes and scales, against the definition byte by byte."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from terselm.errors import TerselmError
from terselm.linear.packing import (
    pack_codes,
    pack_scales,
    packed_code_bytes,
    unpack_codes,
    unpack_scales,
)
from terselm.linear.quantized import Quantized, code_range

sizes = st.integers(1, 150)


def random_codes(rows: int, columns: int, bits: int) -> torch.Tensor:
    low, high = code_range(bits)
    return torch.randint(low, high + 1, (rows, columns), dtype=torch.int8)


@given(sizes, sizes, st.sampled_from([8, 4]))
def test_codes_come_back(rows, columns, bits):
    codes = random_codes(rows, columns, bits)
    packed = pack_codes(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == packed_code_bytes(rows, columns, bits)
    assert packed.numel() % 64 == 0
    assert torch.equal(unpack_codes(packed, rows, columns, bits), codes)


@given(sizes, st.integers(1, 40))
def test_scales_come_back(rows, groups):
    scales = torch.randn(rows, groups).half()
    assert torch.equal(unpack_scales(pack_scales(scales), rows, groups), scales)


@pytest.mark.parametrize("rows", [16, 48, 64, 80, 200])
def test_eight_bit_codes_lie_where_the_layout_says(rows):
    columns = 12
    codes = random_codes(rows, columns, 8)
    packed = pack_codes(codes, 8).view(torch.int8)
    padded = -(-rows // 16) * 16
    for row in (0, 1, rows // 2, rows - 1):
        for column in range(columns):
            block, inside = divmod(row, 64)
            height = min(64, padded - 64 * block)
            start = 64 * block * columns
            place = start + (column // 4) * height * 4 + inside * 4 + column % 4
            assert packed[place] == codes[row, column]


@pytest.mark.parametrize("rows", [16, 64, 80])
def test_four_bit_codes_lie_where_the_layout_says(rows):
    columns = 24
    codes = random_codes(rows, columns, 4)
    packed = pack_codes(codes, 4)
    for row in (0, 7, rows - 1):
        for column in range(columns):
            block, inside = divmod(row, 64)
            height = min(64, rows - 64 * block)
            start = 64 * block * columns // 2
            place = start + (column // 8) * height * 4 + inside * 4 + column % 4
            nibble = packed[place] >> 4 if column % 8 >= 4 else packed[place] & 15
            assert int(nibble) - 8 == codes[row, column]


def test_rows_with_one_scale_are_codes_times_scale():
    codes = random_codes(5, 7, 4)
    scales = torch.tensor([[0.5], [-0.25], [0.0], [1.0], [2.0]])
    op = Quantized(codes, scales, 4)
    assert torch.equal(op.dense(), codes.float() * scales)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 5}, "bits is 5"),
        ({"bits": "8"}, "bits is '8'"),
        ({"group": 7}, "group is 7"),
        ({"group": 0}, "group is 0"),
        ({"group": -8}, "group is -8"),
        ({"group": 8.0}, "group is 8.0"),
    ],
)
def test_impossible_options_are_named(change, message):
    op = Quantized(random_codes(5, 9, 8), torch.ones(5, 2), 8, 8)
    with pytest.raises(TerselmError, match=message):
        Quantized.from_file({**op.spec(), **change}, op.tensors())


def test_a_nan_scale_is_named():
    op = Quantized(random_codes(5, 9, 8), torch.ones(5, 2), 8, 8)
    tensors = op.tensors()
    tensors["scales"][3] = float("nan")
    with pytest.raises(TerselmError, match="scales.*NaN"):
        Quantized.from_file(op.spec(), tensors)


def test_the_code_that_eight_bits_leave_out_is_refused():
    op = Quantized(random_codes(5, 9, 8), torch.ones(5, 2), 8, 8)
    tensors = op.tensors()
    tensors["codes"][0] = 128
    with pytest.raises(TerselmError, match="-128"):
        Quantized.from_file(op.spec(), tensors)
