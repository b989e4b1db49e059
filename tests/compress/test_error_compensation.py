"""Rounding that makes up for its error, against exhaustive search and plain rounding."""

from __future__ import annotations

import itertools

import pytest
import torch

from terselm.compress.error_compensation import compensated_rounding, output_error
from terselm.compress.rounding import Grid, quantize_uniform
from terselm.linear.quantized import code_range

GRIDS = [
    Grid(4, 32),
    Grid(3),
    Grid(3, 8),
    Grid(2, 16),
    Grid(4, "matrix"),
    Grid(2, None, "mid_rise"),
    Grid(3, 16, symmetric=False),
]


def correlated_inputs(columns: int, count: int = 400) -> torch.Tensor:
    """Inputs [count, columns] that share a few causes, as hidden units do."""
    causes = torch.randn(count, 6).double()
    return causes @ torch.randn(6, columns).double() + 0.3 * torch.randn(count, columns).double()


def moment(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.T @ inputs / len(inputs)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("by_importance", [False, True])
@pytest.mark.parametrize("sweeps", [0, 1])
def test_the_output_error_is_below_that_of_rounding_to_nearest(grid, by_importance, sweeps):
    torch.manual_seed(0)
    weight, inputs = torch.randn(30, 70), correlated_inputs(70)
    op = compensated_rounding(
        weight, moment(inputs), grid, by_importance=by_importance, sweeps=sweeps
    )

    def error(form):
        difference = (form.dense().detach() - weight).double()
        return (inputs @ difference.T).square().sum(1).mean()

    assert error(op) < 0.7 * error(quantize_uniform(weight, grid))
    assert float(error(op)) == pytest.approx(
        output_error(weight, op.dense().detach(), moment(inputs)), rel=1e-6
    )
    low, high = code_range(grid.bits)
    assert low <= op.codes.min() <= op.codes.max() <= high
    assert torch.equal(op.scales, op.scales.half().float())


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_with_uncorrelated_inputs_it_is_rounding_to_nearest(grid):
    torch.manual_seed(0)
    weight = torch.randn(20, 50)
    op = compensated_rounding(weight, torch.eye(50).double() * 3, grid, sweeps=0)
    plain = quantize_uniform(weight, grid)
    assert torch.equal(op.codes, plain.codes)
    # The scales are fitted to the final codes once more.
    error = (op.dense() - weight).square().sum()
    assert error <= (plain.dense() - weight).square().sum() * 1.0001


def test_it_comes_near_the_best_codes_there_are():
    """Against all codes of a row at the scale that it chose."""
    torch.manual_seed(3)
    reached = best_sum = nearest_sum = 0.0
    for _ in range(10):
        weight, inputs = torch.randn(1, 5), correlated_inputs(5, 60)
        second = moment(inputs)
        op = compensated_rounding(weight, second, Grid(2), sweeps=2, damping=1e-6)
        scale = float(op.scales.detach())
        codes = torch.tensor(list(itertools.product(range(-2, 2), repeat=5))).double()
        differences = codes * scale - weight.double()
        best_sum += float(((differences @ second) * differences).sum(1).min())
        reached += output_error(weight, op.dense().detach(), second)
        plain = quantize_uniform(weight, Grid(2)).dense().detach()
        nearest_sum += output_error(weight, plain, second)
    assert best_sum <= reached < 0.5 * (best_sum + nearest_sum)


def test_the_paper_s_pass_is_that_of_the_paper():
    """Against algorithm 1 written out: one row at a time, the inverse eliminated explicitly."""
    torch.manual_seed(4)
    weight, second = torch.randn(3, 9), moment(correlated_inputs(9))
    op = compensated_rounding(weight, second, Grid(4), sweeps=0, damping=0.01)
    scaled = second + 0.01 * second.diagonal().mean() * torch.eye(9).double()
    start = quantize_uniform(weight, Grid(4), importance=scaled.diagonal().float())
    for row in range(3):
        rest, inverse = weight[row].double(), torch.linalg.inv(scaled)
        scale = float(start.scales.detach()[row])
        for column in range(9):
            code = (rest[column] / scale).round().clamp(-8, 7)
            assert int(op.codes[row, column]) == int(code)
            error = (rest[column] - code * scale) / inverse[column, column]
            rest = rest - error * inverse[:, column]
            # Gaussian elimination of the column from the inverse.
            reach = inverse[:, column].clone()
            inverse = inverse - torch.outer(reach, reach) / reach[column]


def test_more_sweeps_are_not_worse():
    torch.manual_seed(5)
    weight, second = torch.randn(40, 64), moment(correlated_inputs(64))
    errors = [
        output_error(
            weight,
            compensated_rounding(weight, second, Grid(3, 16), sweeps=sweeps).dense().detach(),
            second,
        )
        for sweeps in (0, 1, 3)
    ]
    assert errors == sorted(errors, reverse=True)


def test_inputs_that_are_always_zero_do_no_harm():
    torch.manual_seed(6)
    weight, inputs = torch.randn(10, 24), correlated_inputs(24)
    inputs[:, 5] = 0
    op = compensated_rounding(weight, moment(inputs), Grid(4, 8))
    assert torch.isfinite(op.dense()).all()
    nothing = compensated_rounding(weight, torch.zeros(24, 24).double(), Grid(4, 8), sweeps=0)
    assert torch.equal(nothing.codes, quantize_uniform(weight, Grid(4, 8)).codes)


def test_a_zero_matrix_stays_zero():
    op = compensated_rounding(torch.zeros(5, 20), moment(correlated_inputs(20)), Grid(4, 8))
    assert torch.equal(op.dense(), torch.zeros(5, 20))
