"""Low rank against Eckart and Young, and weighted low rank against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.factorization import (
    decompose,
    least_fraction,
    numbers_within,
    rank_for_fraction,
    symmetric_roots,
    thin_svd,
    truncated_svd,
    weighted_svd,
    word_weights,
)
from terselm.compress.recipe import Recipe
from terselm.compress.statistics import collect
from terselm.errors import UsageError
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank
from terselm.linear.row_blocks import RowBlocks
from tests.compress.other_device import compress_elsewhere
from tests.tiny import WORDS, logits_of, make_model

IDS = np.random.default_rng(0).integers(len(WORDS), size=32 * 40).astype(np.uint16)


def random_moment(size: int, seed: int = 0) -> torch.Tensor:
    """A second moment with directions of very different size."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(50, size, generator=generator, dtype=torch.float64)
    inputs = inputs * torch.logspace(0, -2, size, dtype=torch.float64)
    mixing = torch.randn(size, size, generator=generator, dtype=torch.float64)
    inputs = inputs @ mixing
    return inputs.T @ inputs / 50


def weighted_error(weight, left, right, moment, rows):
    difference = weight.double() - left.double() @ right.double()
    return float((rows * torch.einsum("ij,jk,ik->i", difference, moment, difference)).sum())


@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (7, 7), (1, 5)])
def test_the_svd_is_numpys(shape):
    matrix = torch.randn(shape, dtype=torch.float64)
    left, singular, right = thin_svd(matrix)
    expected = np.linalg.svd(matrix.numpy(), compute_uv=False)
    np.testing.assert_allclose(singular.numpy(), expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(left * singular @ right, matrix, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_error_is_what_eckart_and_young_say(rank):
    weight = torch.randn(12, 8)
    left, right = truncated_svd(weight, rank)
    tail = np.linalg.svd(weight.double().numpy(), compute_uv=False)[rank:]
    error = (weight.double() - left.double() @ right.double()).square().sum()
    assert float(error) == pytest.approx(float((tail**2).sum()), rel=1e-4)


@pytest.mark.parametrize("weighted", ["inputs", "rows", "both"])
@pytest.mark.parametrize("shape", [(7, 5), (4, 6)])
def test_weighted_low_rank_is_the_best_that_descent_finds(weighted, shape):
    """Quasi-Newton descent from many starts, in float64, on the factors themselves."""
    torch.manual_seed(1)
    weight = torch.randn(shape)
    moment = random_moment(shape[1]) if weighted != "rows" else None
    rows = torch.rand(shape[0], dtype=torch.float64) + 0.05 if weighted != "inputs" else None
    full_moment = torch.eye(shape[1], dtype=torch.float64) if moment is None else moment
    full_rows = torch.ones(shape[0], dtype=torch.float64) if rows is None else rows
    left, right = weighted_svd(weight, 2, moment, rows, damping=0.0)
    ours = weighted_error(weight, left, right, full_moment, full_rows)

    best = float("inf")
    for _ in range(8):
        factors = [torch.randn(shape[0], 2), torch.randn(2, shape[1])]
        factors = [factor.double().requires_grad_() for factor in factors]
        optimizer = torch.optim.LBFGS(factors, max_iter=600, line_search_fn="strong_wolfe")

        def closure(factors=factors, optimizer=optimizer):
            optimizer.zero_grad()
            difference = weight.double() - factors[0] @ factors[1]
            error = (full_rows * ((difference @ full_moment) * difference).sum(1)).sum()
            error.backward()
            return error

        optimizer.step(closure)
        best = min(best, closure().item())
    assert ours <= best * (1 + 1e-4) + 1e-9
    assert ours == pytest.approx(best, rel=1e-2)
    plain = weighted_error(weight, *truncated_svd(weight, 2), full_moment, full_rows)
    assert ours < plain


def test_the_error_of_a_decomposition_is_the_weighted_error():
    weight, moment = torch.randn(10, 6), random_moment(6)
    rows = torch.rand(10, dtype=torch.float64)
    terms = decompose(weight, moment, rows, damping=0.0)
    for rank in (1, 2, 4):
        measured = weighted_error(weight, *terms.factors(rank), moment, rows)
        assert terms.error(rank) == pytest.approx(measured, rel=1e-3)


def test_damping_keeps_inputs_that_never_occur_from_exploding():
    moment = torch.zeros(6, 6, dtype=torch.float64)
    moment[0, 0] = 1.0
    weight = torch.randn(8, 6)
    left, right = weighted_svd(weight, 6, moment)
    assert torch.isfinite(left).all()
    torch.testing.assert_close(left @ right, weight, rtol=1e-4, atol=1e-4)
    root, inverse = symmetric_roots(torch.zeros(3, 3), 0.1)
    assert torch.isfinite(root).all()
    assert torch.isfinite(inverse).all()


def test_no_word_weighs_nothing():
    weights = word_weights(torch.tensor([99, 0, 0, 24]))
    assert float(weights.sum()) == pytest.approx(1)
    torch.testing.assert_close(weights[0] / weights[1], torch.tensor(10.0, dtype=torch.float64))
    assert (weights > 0).all()


@pytest.mark.parametrize(("fraction", "numbers", "expected"), [(0.29, 100, 29), (1.0, 7, 7)])
def test_shares_are_whole_numbers(fraction, numbers, expected):
    assert numbers_within(fraction, numbers) == expected


def test_the_least_share_is_enough():
    for needed in range(1, 37):
        assert numbers_within(least_fraction(needed, 370), 370) >= needed


def test_the_rank_for_a_share_is_the_largest():
    assert rank_for_fraction(100, 100, 0.58) == 29  # of 5,800 numbers, not of 5,799.99
    for percent in range(1, 101):
        expected = max(1, percent * 60 * 60 // 100 // 120)
        assert rank_for_fraction(60, 60, percent / 100) == expected


def test_a_rank_for_a_share_holds_at_most_that_share():
    for rows, columns, fraction in [(800, 200, 0.5), (10_000, 650, 0.2), (5, 3, 0.1)]:
        rank = rank_for_fraction(rows, columns, fraction)
        assert rank * (rows + columns) <= fraction * rows * columns or rank == 1


def measured_error(model, small, statistics, name):
    weight, other = model.weights()[name].dense(), small.weights()[name].dense()
    difference = (weight - other).detach().double()
    return float(((difference @ statistics.inputs[name].second_moment) * difference).sum())


@pytest.mark.parametrize("name", ["cells.0.weight_hh", "cells.1.weight_ih"])
def test_weighting_by_inputs_errs_less_on_the_inputs(name):
    model = make_model("lstm")
    statistics = collect(model, IDS)
    errors = []
    for weighting in ("none", "inputs"):
        step = {"method": "low_rank", "weights": name, "rank": 5, "weighting": weighting}
        small = compress(model, Recipe.from_list([step]), Context(calibration=IDS)).model
        errors.append(measured_error(model, small, statistics, name))
    assert errors[1] < 0.95 * errors[0]


def test_words_are_weighted_where_the_matrix_is(monkeypatch):
    model = make_model("lstm")
    context = Context(calibration=IDS, statistics=collect(model, IDS))
    step = {"method": "low_rank", "weights": "embedding output", "rank": 5, "weighting": "inputs"}
    small = compress_elsewhere(monkeypatch, model, [step], context)
    expected = compress(model, Recipe.from_list([step]), context).model
    assert torch.equal(logits_of(small), logits_of(expected))


def test_weighting_needs_text_and_only_then():
    model = make_model("lstm")
    compress(model, Recipe.from_list([{"method": "low_rank", "rank": 3}]))
    with pytest.raises(UsageError, match="needs calibration text; give --data"):
        compress(
            model, Recipe.from_list([{"method": "low_rank", "rank": 3, "weighting": "inputs"}])
        )


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3), ("rnn_tanh", 1)])
def test_every_gate_can_have_factors_of_its_own(cell, gates):
    model = make_model(cell)
    step = {"method": "low_rank", "rank": 4, "gates": "separate"}
    small = compress(model, Recipe.from_list([step])).model
    op = small.weights()["cells.0.weight_hh"]
    if gates == 1:
        assert isinstance(op, LowRank)
        return
    assert isinstance(op, RowBlocks)
    expected = [
        torch.cat([left @ right])
        for gate in model.weights()["cells.0.weight_hh"].dense().chunk(gates)
        for left, right in [truncated_svd(gate, 4)]
    ]
    torch.testing.assert_close(op.dense(), torch.cat(expected))
    assert isinstance(small.weights()["output"], LowRank)


@pytest.mark.parametrize("gates", ["stacked", "separate"])
@pytest.mark.parametrize("weighting", ["none", "inputs"])
def test_full_rank_is_exact_in_every_way(gates, weighting):
    model = make_model("gru")
    items = [
        {
            "method": "low_rank",
            "weights": name,
            "rank": min(20, op.in_features),
            "gates": gates,
            "weighting": weighting,
        }
        for name, op in model.weights().items()
    ]
    small = compress(model, Recipe.from_list(items), Context(calibration=IDS)).model
    torch.testing.assert_close(logits_of(small), logits_of(model), rtol=1e-3, atol=1e-4)


def test_gates_compose_with_codes():
    items = [
        {"method": "low_rank", "rank": 4, "gates": "separate", "weights": "cells.*"},
        {"method": "quantize", "bits": 8, "weights": "cells.*"},
    ]
    small = compress(make_model("lstm"), Recipe.from_list(items)).model
    leaves = small.weights()["cells.1.weight_ih"].leaves()
    assert list(leaves)[:2] == ["block0.left", "block0.right"]
    assert not any(isinstance(leaf, Dense) for leaf in leaves.values())


def test_a_rank_beyond_a_gate_names_the_most():
    step = {"method": "low_rank", "rank": 21, "gates": "separate", "weights": "cells.0.weight_hh"}
    with pytest.raises(UsageError, match="use at most 20"):
        compress(make_model("lstm"), Recipe.from_list([step]))
