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
from tests.tiny import random_quantized

sizes = st.integers(1, 150)


def random_codes(rows: int, columns: int, bits: int) -> torch.Tensor:
    low, high = code_range(bits)
    return torch.randint(low, high + 1, (rows, columns), dtype=torch.int8)


@given(sizes, sizes, st.sampled_from([8, 4, 3, 2]))
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


@pytest.mark.parametrize("rows", [16, 64, 80])
def test_two_bit_codes_lie_where_the_layout_says(rows):
    columns = 48
    codes = random_codes(rows, columns, 2)
    packed = pack_codes(codes, 2)
    for row in (0, 7, rows - 1):
        for column in range(columns):
            block, inside = divmod(row, 64)
            height = min(64, rows - 64 * block)
            start = 64 * block * columns // 4
            place = start + (column // 16) * height * 4 + inside * 4 + column % 4
            code = int(packed[place]) >> (2 * (column % 16 // 4)) & 3
            assert code - 2 == codes[row, column]


@pytest.mark.parametrize("columns", [32, 48, 64, 96 + 16])
@pytest.mark.parametrize("rows", [16, 64, 80])
def test_three_bit_codes_lie_where_the_layout_says(rows, columns):
    """Runs of one high bit (32 columns), each before the two runs of low bits (16 columns)."""
    codes = random_codes(rows, columns, 3)
    packed = pack_codes(codes, 3)
    runs = -(-columns // 32) + columns // 16
    for row in (0, 7, rows - 1):
        block, inside = divmod(row, 64)
        height = min(64, rows - 64 * block)
        for column in range(columns):
            chunk, rest = divmod(column, 32)
            base = 64 * block * 4 * runs + inside * 4 + column % 4
            high = int(packed[base + 3 * chunk * height * 4]) >> (rest // 4) & 1
            low_run = 3 * chunk + 1 + rest // 16
            low = int(packed[base + low_run * height * 4]) >> (2 * (rest % 16 // 4)) & 3
            assert 4 * high + low - 4 == codes[row, column]


@pytest.mark.parametrize(
    ("bits", "columns", "expected"),
    [(8, 650, 652), (4, 650, 328), (3, 650, 164 + 84), (2, 650, 164), (3, 200, 52 + 28)],
)
def test_bytes_of_a_row_of_codes(bits, columns, expected):
    assert packed_code_bytes(16, columns, bits) == 16 * expected
    assert packed_code_bytes(17, columns, bits) == 32 * expected


def test_a_file_of_the_first_format_is_read():
    """Without the keys that came later, and with bytes written down then."""
    packed = torch.zeros(16 * 4, dtype=torch.uint8)
    packed[:4] = torch.tensor([0x1F, 0x80, 0x88, 0x70], dtype=torch.uint8)
    scales = torch.zeros(16, dtype=torch.float16)
    scales[0] = 0.5
    spec = {"kind": "quantized", "shape": [1, 8], "bits": 4, "group": None}
    op = Quantized.from_file(spec, {"codes": packed, "scales": scales})
    expected = torch.tensor([[7, -8, 0, -8, -7, 0, 0, -1]]) / 2
    assert torch.equal(op.dense(), expected)
    assert op.spec() == spec
    assert torch.equal(op.tensors()["codes"][:4], packed[:4])


def test_rows_with_one_scale_are_codes_times_scale():
    codes = random_codes(5, 7, 4)
    scales = torch.tensor([[0.5], [-0.25], [0.0], [1.0], [2.0]])
    op = Quantized(codes, scales, 4)
    assert torch.equal(op.dense(), codes.float() * scales)


def test_mid_rise_levels_are_odd():
    codes = torch.tensor([[-2, -1, 0, 1]], dtype=torch.int8)
    op = Quantized(codes, torch.tensor([[0.25]]), 2, "matrix", "mid_rise")
    assert torch.equal(op.dense(), torch.tensor([[-3.0, -1.0, 1.0, 3.0]]) / 4)
    assert op.tensors()["scales"].shape == (1,)


def test_zero_points_are_taken_off_the_codes():
    codes = torch.arange(16, dtype=torch.int8).reshape(1, 16) - 8
    zeros = torch.tensor([[-8, 100]], dtype=torch.int8)
    op = Quantized(codes, torch.tensor([[1.0, 0.5]]), 4, 8, zeros=zeros)
    expected = torch.cat([torch.arange(8.0), (torch.arange(8.0) - 100) / 2])
    assert torch.equal(op.dense()[0], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 5}, "bits is 5"),
        ({"bits": True}, "bits is True"),
        ({"bits": [8]}, "bits is"),
        ({"bits": None}, "bits is None"),
        ({"group": "column"}, "group is 'column'"),
        ({"group": [8]}, "group is"),
        ({"group": 2**40}, "group is"),
        ({"levels": "odd"}, "levels is 'odd'"),
        ({"levels": ["mid_rise"]}, "levels is"),
        ({"levels": "mid_rise"}, "at most 4 bits"),
        ({"zero_points": 1}, "zero_points is 1"),
        ({"zero_points": True}, "zeros.*missing"),
        ({"bits": 4, "levels": "mid_rise", "zero_points": True}, "mid_rise"),
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


@pytest.mark.parametrize("group", [None, 8, "matrix"])
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("levels", ["mid_tread", "mid_rise"])
@pytest.mark.parametrize("bits", [4, 3, 2])
def test_rounding_again_keeps_what_is_on_the_grid(bits, levels, asymmetric, group):
    if levels == "mid_rise" and asymmetric:
        pytest.skip("mid-rise has no zero points")
    op = random_quantized(20, 30, bits, group, levels, asymmetric)
    again = op.reround(op.dense().detach())
    assert torch.equal(again.codes, op.codes)
    torch.testing.assert_close(again.dense(), op.dense(), rtol=1e-3, atol=1e-6)
    assert again.spec() == op.spec()


def test_rounding_again_takes_the_nearest_and_fits_the_scales():
    """Against each code tried, and the least-squares scale written out."""
    for op in (
        random_quantized(3, 10, 2, 8, "mid_rise"),
        random_quantized(3, 10, 3, "matrix", asymmetric=True),
    ):
        weight = op.dense().detach() + torch.randn(3, 10) * 0.03
        again = op.reround(weight)
        low, high = code_range(op.bits)
        values = torch.stack(
            [
                Quantized(
                    torch.full((3, 10), code), op.scales, op.bits, op.group, op.levels, op.zeros
                ).dense()
                for code in range(low, high + 1)
            ]
        )
        assert torch.equal(again.codes, (values - weight).abs().argmin(0).to(torch.int8) + low)
        ones = torch.ones_like(op.scales)
        level = Quantized(again.codes, ones, op.bits, op.group, op.levels, op.zeros).dense()
        for rows, columns in [((0, 3), (0, 10))] if op.group == "matrix" else [((1, 2), (8, 10))]:
            q = level[slice(*rows), slice(*columns)]
            w = weight[slice(*rows), slice(*columns)]
            scale = (q * w).sum() / q.square().sum()
            found = again.scales[0, 0] if op.group == "matrix" else again.scales[1, 1]
            assert float(found.detach()) == pytest.approx(float(scale.detach()), rel=1e-3)


def test_the_code_that_eight_bits_leave_out_is_refused():
    op = Quantized(random_codes(5, 9, 8), torch.ones(5, 2), 8, 8)
    tensors = op.tensors()
    tensors["codes"][0] = 128
    with pytest.raises(TerselmError, match="-128"):
        Quantized.from_file(op.spec(), tensors)
