"""The mathematics of uniform quantization against plain definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terselm.compress.rounding import Grid, choose_levels, quantize_uniform, signal_to_noise
from terselm.linear.quantized import Quantized, code_range

GRIDS = [
    Grid(8),
    Grid(8, 16),
    Grid(8, "matrix"),
    Grid(8, 32, symmetric=False),
    Grid(4),
    Grid(4, 8),
    Grid(4, 32),
    Grid(4, 32, "mid_rise"),
    Grid(4, 128, symmetric=False),
    Grid(3, 32),
    Grid(3, None, "mid_rise"),
    Grid(3, 16, symmetric=False),
    Grid(2, 16),
    Grid(2, "matrix", "mid_rise"),
    Grid(2, 32, symmetric=False),
]


def approximation(weight, grid, rule="least_squares", **options):
    return quantize_uniform(weight, grid, rule, **options).dense().detach()


def steps(op: Quantized) -> torch.Tensor:
    """The distance of two neighbouring values at each place of the matrix."""
    other = (op.codes + 1).clamp(max=code_range(op.bits)[1])
    up = Quantized(other, op.scales, op.bits, op.group, op.levels, op.zeros).dense()
    down = Quantized(other - 1, op.scales, op.bits, op.group, op.levels, op.zeros).dense()
    return (up - down).abs().detach()


@given(st.integers(1, 20), st.integers(1, 70), st.sampled_from(GRIDS), st.floats(1e-3, 1e3))
@settings(max_examples=60, deadline=None)
def test_codes_are_in_range_and_the_error_is_within_a_step(rows, columns, grid, size):
    weight = torch.randn(rows, columns) * size
    op = quantize_uniform(weight, grid, "absolute_maximum")
    low, high = code_range(grid.bits)
    assert op.codes.min() >= low
    assert op.codes.max() <= high
    assert torch.equal(op.scales, op.scales.half().float())
    step = steps(op)
    # Half a step, and what the scale lost when it was rounded to float16 (2^-25 if subnormal);
    # a zero point is rounded too, which may take half a step at either end.
    share = 1.0 if op.zeros is not None else 0.5
    slack = 2**grid.bits
    limit = step * (share + slack * 2**-10) + slack * 2**-25 + 1e-7
    assert ((op.dense() - weight).abs() <= limit).all()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("tail", ["normal", "heavy", "skewed"])
def test_least_squares_is_never_worse_than_other_rules(grid, tail):
    torch.manual_seed(0)
    weight = torch.randn(48, 256)
    weight = {"normal": weight, "heavy": weight**3, "skewed": weight.exp()}[tail]
    fitted = signal_to_noise(weight, approximation(weight, grid))
    # float16 scales may cost a hair at 8 bits.
    assert fitted >= signal_to_noise(weight, approximation(weight, grid, "absolute_maximum")) - 0.01
    clipped = approximation(weight, grid, "percentile", percentile=98.0)
    assert fitted >= signal_to_noise(weight, clipped) - 0.01


@pytest.mark.parametrize("bits", [4, 3, 2])
@pytest.mark.parametrize("levels", ["mid_tread", "mid_rise"])
def test_least_squares_finds_the_best_scale_of_a_row(bits, levels):
    """Against an exhaustive search over a fine grid of scales of both signs."""
    torch.manual_seed(1)
    weight = torch.randn(12, 40) ** 3
    reached = (approximation(weight, Grid(bits, None, levels)) - weight).square().sum(1)
    low, high = code_range(bits)
    total, best_total = 0.0, 0.0
    for row, error in zip(weight, reached, strict=True):
        scales = torch.linspace(-1, 1, 8001) * row.abs().max()
        scales = scales[scales != 0].unsqueeze(1)
        if levels == "mid_rise":
            values = 2 * ((row / scales - 1) / 2).round().clamp(low, high) + 1
        else:
            values = (row / scales).round().clamp(low, high)
        best = (values * scales - row).square().sum(1).min()
        assert error <= best * 1.15
        total, best_total = total + float(error), best_total + float(best)
    assert total <= best_total * 1.04


def test_a_tiny_row_gets_the_best_codes_there_are():
    """Against all codes, each with its own least-squares scale."""
    torch.manual_seed(2)
    reached = best_sum = 0.0
    for _ in range(8):
        row = torch.randn(1, 5)
        codes = torch.tensor(list(itertools.product(range(-2, 2), repeat=5))).float()
        explained = (codes @ row[0]).square() / codes.square().sum(1).clamp(min=1)
        best_sum += float(row.square().sum() - explained.max())
        reached += float((approximation(row, Grid(2)) - row).square().sum())
    assert reached <= best_sum * 1.05


def test_a_zero_point_serves_weights_that_are_all_positive():
    torch.manual_seed(0)
    weight = torch.rand(32, 64) + 0.5
    lopsided = signal_to_noise(weight, approximation(weight, Grid(4, 32, symmetric=False)))
    even = signal_to_noise(weight, approximation(weight, Grid(4, 32)))
    assert lopsided > even + 3


def test_importance_lowers_the_error_where_it_counts():
    torch.manual_seed(0)
    weight = torch.randn(64, 40)
    importance = torch.rand(40) ** 4 + 1e-3

    def error(values):
        return ((values - weight).square() * importance).sum()

    for grid in (Grid(3), Grid(2, 16), Grid(4, 32, symmetric=False), Grid(2, "matrix")):
        weighed = error(approximation(weight, grid, importance=importance))
        assert weighed < error(approximation(weight, grid))
    even = quantize_uniform(weight, Grid(3, 8), importance=torch.full((40,), 7.0))
    assert torch.equal(even.codes, quantize_uniform(weight, Grid(3, 8)).codes)


def test_the_percentile_is_where_the_range_ends():
    weight = torch.arange(-100, 101.0).reshape(1, -1)
    op = quantize_uniform(weight, Grid(8), "percentile", percentile=50.0)
    # The median magnitude of -100..100 is 50; what lies above it gets the outermost code.
    assert float(op.scales) == pytest.approx(50 / 127, rel=1e-3)
    assert float(op.dense().max()) == pytest.approx(50, rel=1e-3)
    whole = quantize_uniform(weight, Grid(8), "percentile", percentile=100.0)
    assert torch.equal(whole.dense(), approximation(weight, Grid(8), "absolute_maximum"))


@pytest.mark.parametrize("count", [2, 32, 200, 650])
@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.9])
def test_the_percentile_is_that_of_numpy(count, percentile):
    torch.manual_seed(0)
    weight = torch.randn(5, count)
    op = quantize_uniform(weight, Grid(8), "percentile", percentile=percentile)
    ends = np.percentile(weight.abs().numpy(), percentile, axis=1)
    np.testing.assert_allclose(op.scales.detach().flatten().numpy() * 127, ends, rtol=1e-3)
    assert (ends < weight.abs().amax(1).numpy()).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_partial_group_is_clipped_as_if_it_were_alone(symmetric):
    torch.manual_seed(0)
    last = torch.arange(1.0, 9.0).expand(3, 8)  # 0.9 of the way from 1 to 8 is 7.3
    weight = torch.cat([torch.randn(3, 64), last], dim=1)
    grid = Grid(8, 64, symmetric=symmetric)
    found = approximation(weight, grid, "percentile", percentile=90.0)
    for part in (slice(0, 64), slice(64, 72)):
        alone = approximation(weight[:, part], grid, "percentile", percentile=90.0)
        assert torch.equal(found[:, part], alone)
    assert float(found[:, 64:].max()) == pytest.approx(7.3, rel=1e-2)


def test_levels_are_chosen_by_the_error():
    torch.manual_seed(0)
    flat, peaked = torch.rand(32, 640) - 0.5, torch.randn(32, 640) ** 5
    assert choose_levels(flat, Grid(2)).levels == "mid_rise"
    assert choose_levels(peaked, Grid(3)).levels == "mid_tread"
    assert choose_levels(flat, Grid(8)).levels == "mid_tread"


@pytest.mark.parametrize(
    ("grid", "floor"),
    [
        (Grid(8), 37.5),
        (Grid(4, 32), 21.5),
        (Grid(4), 19.3),
        (Grid(3, 32), 15.5),
        (Grid(3, None, "mid_rise"), 14.0),
        (Grid(2, 16), 10.0),
        (Grid(2, None, "mid_rise"), 9.0),
    ],
    ids=str,
)
def test_signal_to_noise_on_normal_weights(grid, floor):
    """Decibels that a normal matrix with rows of 640 must reach.

    The best uniform quantizers of a normal variable have 20.2, 14.3 and 9.25 dB at 4, 3 and 2
    bits (Max 1960), which rows of this length cannot beat by much.
    """
    torch.manual_seed(0)
    weight = torch.randn(128, 640)
    assert signal_to_noise(weight, approximation(weight, grid)) > floor


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_zero_matrix_stays_zero(grid):
    weight = torch.zeros(5, 20)
    assert torch.equal(approximation(weight, grid), weight)


def test_exact_is_infinitely_good():
    assert signal_to_noise(torch.ones(2, 2), torch.ones(2, 2)) == float("inf")
