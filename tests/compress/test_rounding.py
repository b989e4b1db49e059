"""The mathematics of quantization and low rank against plain definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terselm.compress.factorization import rank_for_fraction, truncated_svd
from terselm.compress.rounding import quantize_uniform, signal_to_noise
from terselm.linear.quantized import Quantized, code_range


def approximation(weight, bits, group, rule):
    codes, scales = quantize_uniform(weight, bits, group, rule)
    return Quantized(codes, scales, bits, group).dense().detach()


@given(
    st.integers(1, 20),
    st.integers(1, 70),
    st.sampled_from([(8, None), (8, 16), (4, None), (4, 8), (4, 32)]),
    st.floats(1e-3, 1e3),
)
@settings(max_examples=40, deadline=None)
def test_codes_are_in_range_and_the_error_is_within_a_step(rows, columns, form, size):
    bits, group = form
    weight = torch.randn(rows, columns) * size
    codes, scales = quantize_uniform(weight, bits, group, "absolute_maximum")
    low, high = code_range(bits)
    assert codes.min() >= low
    assert codes.max() <= high
    assert torch.equal(scales, scales.half().float())
    step = Quantized(torch.ones_like(codes), scales, bits, group).dense()
    error = (Quantized(codes, scales, bits, group).dense() - weight).abs()
    # Half a step, and what the scale lost when it was rounded to float16 (2^-25 if subnormal).
    assert (error <= step.abs() * (0.5 + high * 2**-10) + high * 2**-25 + 1e-7).all()


@pytest.mark.parametrize(("bits", "group"), [(8, None), (8, 32), (4, None), (4, 32), (4, 128)])
@pytest.mark.parametrize("tail", ["normal", "heavy", "skewed"])
def test_least_squares_is_never_worse_than_the_absolute_maximum(bits, group, tail):
    torch.manual_seed(0)
    weight = torch.randn(64, 256)
    weight = {"normal": weight, "heavy": weight**3, "skewed": weight.exp()}[tail]
    plain = signal_to_noise(weight, approximation(weight, bits, group, "absolute_maximum"))
    fitted = signal_to_noise(weight, approximation(weight, bits, group, "least_squares"))
    # float16 scales may cost a hair at 8 bits.
    assert fitted >= plain - 0.01


def test_least_squares_finds_the_best_scale_of_a_row():
    """Against an exhaustive search over a fine grid of scales of both signs."""
    torch.manual_seed(1)
    weight = torch.randn(6, 40) ** 3
    reached = (approximation(weight, 4, None, "least_squares") - weight).square().sum(1)
    for row, error in zip(weight, reached, strict=True):
        grid = torch.linspace(-1, 1, 8001) * row.abs().max() / 3
        grid = grid[grid != 0].unsqueeze(1)
        codes = (row / grid).round().clamp(-8, 7)
        best = (codes * grid - row).square().sum(1).min()
        assert error <= best * 1.02


@pytest.mark.parametrize(
    ("bits", "group", "floor"), [(8, None, 37.5), (4, 32, 19.0), (4, None, 15.0)]
)
def test_signal_to_noise_on_normal_weights(bits, group, floor):
    """Decibels that a normal matrix with rows of 640 must reach."""
    torch.manual_seed(0)
    weight = torch.randn(128, 640)
    assert signal_to_noise(weight, approximation(weight, bits, group, "least_squares")) > floor


def test_a_zero_matrix_stays_zero():
    weight = torch.zeros(5, 20)
    assert torch.equal(approximation(weight, 4, 8, "least_squares"), weight)


def test_exact_is_infinitely_good():
    assert signal_to_noise(torch.ones(2, 2), torch.ones(2, 2)) == float("inf")


@given(st.integers(1, 30), st.integers(1, 30), st.data())
@settings(max_examples=40, deadline=None)
def test_truncated_svd_is_the_best_of_its_rank(rows, columns, data):
    rank = data.draw(st.integers(1, min(rows, columns)))
    weight = torch.randn(rows, columns)
    left, right = truncated_svd(weight, rank)
    assert left.shape == (rows, rank)
    assert right.shape == (rank, columns)
    _, singular, _ = torch.linalg.svd(weight.double())
    best = singular[rank:].square().sum().sqrt()
    reached = (weight.double() - left.double() @ right.double()).norm()
    assert reached <= best + 1e-4 * singular[0]


def test_a_matrix_of_low_rank_is_exact_and_finite():
    torch.manual_seed(0)
    weight = torch.randn(20, 3) @ torch.randn(3, 15)
    left, right = truncated_svd(weight, 6)
    assert torch.isfinite(left).all()
    assert torch.isfinite(right).all()
    torch.testing.assert_close(left @ right, weight, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(0.001, 1.0))
def test_a_fraction_is_kept_where_rank_one_allows(rows, columns, fraction):
    rank = rank_for_fraction(rows, columns, fraction)
    assert 1 <= rank <= min(rows, columns)
    assert rank == 1 or rank * (rows + columns) <= fraction * rows * columns
