"""Tensor trains from trained matrices: TT-SVD against its theorem and explicit loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.factorization import truncated_svd
from terselm.compress.recipe import Recipe
from terselm.compress.tensor_train import (
    PADDING,
    balanced_factors,
    core_numbers,
    greatest_ranks,
    tensor_train_svd,
    tensor_train_within,
)
from terselm.errors import UsageError
from terselm.linear.quantized import Quantized
from terselm.linear.tensor_train import TensorTrain
from tests.tiny import logits_of, make_model

SHAPES = ((2, 3, 4), (3, 2, 2))


def put_together(cores, row_shape, column_shape):
    """The matrix, number by number, in float64."""
    matrix = torch.zeros(math.prod(row_shape), math.prod(column_shape), dtype=torch.float64)
    for i, rows in enumerate(itertools.product(*map(range, row_shape))):
        for j, columns in enumerate(itertools.product(*map(range, column_shape))):
            product = torch.ones(1, 1, dtype=torch.float64)
            for m, core in enumerate(cores):
                ranks = core.shape[0] // row_shape[m], core.shape[1] // column_shape[m]
                slices = core.double().view(ranks[0], row_shape[m], column_shape[m], ranks[1])
                product = product @ slices[:, rows[m], columns[m]]
            matrix[i, j] = product.item()
    return matrix


def test_the_greatest_ranks_are_exact():
    torch.manual_seed(0)
    weight = torch.randn(24, 12)
    cores = tensor_train_svd(weight, *SHAPES, greatest_ranks(*SHAPES))
    torch.testing.assert_close(put_together(cores, *SHAPES).float(), weight, rtol=1e-4, atol=1e-5)


def test_a_padded_matrix_is_exact_where_it_was():
    torch.manual_seed(0)
    weight = torch.randn(23, 11)
    cores = tensor_train_svd(weight, *SHAPES)
    matrix = put_together(cores, *SHAPES).float()
    torch.testing.assert_close(matrix[:23, :11], weight, rtol=1e-4, atol=1e-5)
    assert matrix[23].abs().max() < 1e-5


@pytest.mark.parametrize("error", [0.05, 0.3, 0.7])
def test_the_error_bound_holds(error):
    torch.manual_seed(1)
    weight = torch.randn(24, 12)
    cores = tensor_train_svd(weight, *SHAPES, error=error)
    difference = (put_together(cores, *SHAPES) - weight).norm() / weight.norm()
    assert difference <= error + 1e-6
    full = core_numbers(*SHAPES, greatest_ranks(*SHAPES))
    assert sum(core.numel() for core in cores) <= (full if error < 0.5 else 0.6 * full)


def test_given_ranks_are_within_the_theorem():
    """The squared error is at most the sum of what each unfolding must lose (theorem 2.2)."""
    torch.manual_seed(2)
    weight = torch.randn(24, 12)
    ranks = [3, 4]
    difference = (
        (put_together(tensor_train_svd(weight, *SHAPES, ranks), *SHAPES) - weight).square().sum()
    )
    tensor = weight.double().reshape(2, 3, 4, 3, 2, 2).permute(0, 3, 1, 4, 2, 5)
    lost = [
        torch.linalg.svdvals(tensor.reshape(left, -1))[rank:].square().sum()
        for left, rank in ((6, 3), (36, 4))
    ]
    assert max(lost) <= difference <= sum(lost) + 1e-9


def test_two_cores_of_single_columns_are_the_svd():
    """With row digits in the first core and column digits in the second it is W = left right."""
    torch.manual_seed(3)
    weight = torch.randn(8, 6)
    cores = tensor_train_svd(weight, (8, 1), (1, 6), [3])
    left, right = truncated_svd(weight, 3)
    torch.testing.assert_close(
        put_together(cores, (8, 1), (1, 6)).float(), left @ right, rtol=1e-4, atol=1e-5
    )


def test_zero_stays_zero():
    cores = tensor_train_svd(torch.zeros(24, 12), *SHAPES, [2, 2])
    assert all(torch.equal(core, torch.zeros_like(core)) for core in cores[-1:])
    assert all(torch.isfinite(core).all() for core in cores)


@pytest.mark.parametrize("numbers", [20, 60, 150, 10**6])
def test_a_number_of_numbers_is_kept(numbers):
    torch.manual_seed(4)
    cores = tensor_train_within(torch.randn(24, 12), *SHAPES, numbers)
    used = sum(core.numel() for core in cores)
    assert used <= numbers
    ranks = [core.shape[1] // columns for core, columns in zip(cores, SHAPES[1], strict=True)]
    for m, greatest in enumerate(greatest_ranks(*SHAPES)):
        more = [rank + (place == m) for place, rank in enumerate(ranks[:-1])]
        assert ranks[m] == greatest or core_numbers(*SHAPES, more) > numbers


@pytest.mark.parametrize("side", [1, 2, 7, 23, 37, 600, 650, 2600, 9973, 10_000])
@pytest.mark.parametrize("cores", [2, 3, 4])
def test_factors_are_balanced_and_hardly_padded(side, cores):
    factors = balanced_factors(side, cores)
    assert len(factors) == cores
    assert side <= math.prod(factors) <= max(side + 1, PADDING * side)
    if side >= 100:
        assert max(factors) <= 3 * side ** (1 / cores)


def apply(model, **options):
    return compress(model, Recipe.from_list([{"method": "tensor_train", **options}])).model


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_method_at_full_rank_is_exact(cell):
    model = make_model(cell)
    torch.testing.assert_close(
        logits_of(apply(model, rank=10_000)), logits_of(model), rtol=1e-3, atol=1e-4
    )


def test_a_share_is_kept():
    model = make_model("lstm")
    small = apply(model, rank=0.5, cores=2)
    for name, op in small.weights().items():
        assert isinstance(op, TensorTrain)
        numbers = model.weights()[name].parameter_count()
        assert 0.3 * numbers < op.parameter_count() <= 0.5 * numbers


def test_tensor_train_then_codes():
    items = [
        {"method": "tensor_train", "rank": 6, "weights": "output"},
        {"method": "quantize", "bits": 8, "weights": "output"},
    ]
    op = compress(make_model("lstm"), Recipe.from_list(items)).model.output.weight
    assert isinstance(op, TensorTrain)
    assert all(isinstance(core, Quantized) for core in op.leaves().values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of rank and error"),
        ({"rank": 3, "error": 0.1}, "exactly one of rank and error"),
        ({"rank": [3, 3], "cores": 2}, "cores makes 2, rank makes 3"),
        ({"rank": 3, "row_shape": [6, 7], "column_shape": [2, 2, 5]}, "number of cores differs"),
        ({"rank": 3, "row_shape": [6, 6], "weights": "output"}, r"expected 37 to 74.*\[.*\]"),
        ({"rank": 3, "row_shape": [60, 60], "weights": "output"}, "expected 37 to 74"),
        ({"rank": 0.001}, r"use at least 0\.\d+"),
        ({"rank": 0}, "rank"),
        ({"error": 1.0}, "error"),
        ({"rank": 3, "cores": 1}, "cores"),
    ],
)
def test_wrong_options_say_what_would_do(options, message):
    with pytest.raises(UsageError, match=message):
        apply(make_model("lstm"), **options)


def test_the_least_share_named_is_possible():
    model = make_model("lstm")
    with pytest.raises(UsageError, match="use at least") as caught:
        apply(model, rank=0.001, weights="output")
    apply(model, rank=float(str(caught.value).rpartition(" ")[2]), weights="output")
