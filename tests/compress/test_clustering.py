"""k-means on a line, binary codes and product quantization against exhaustive searches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terselm.compress.alternating import binary_codes, greedy_scales
from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.clustering import (
    SortedNumbers,
    k_means,
    lloyd,
    number_weights,
    programmed_start,
    split_start,
)
from terselm.compress.product import cluster, product_codes
from terselm.compress.recipe import Recipe
from terselm.compress.statistics import InputStatistics, Statistics, collect
from terselm.errors import TerselmError, UsageError
from terselm.linear.binary_codes import BinaryCodes
from terselm.linear.codebook import Codebook
from terselm.linear.dense import Dense
from terselm.linear.product_codes import blocks_of
from tests.tiny import WORDS, make_model


def clustered(numbers, bits, weights=None):
    codes, values = k_means(numbers, bits, weights)
    return Codebook(codes, values, "row" if len(numbers) > 1 else "matrix").dense().detach()


def coded(weight, bits, group=None, weights=None):
    codes, scales = binary_codes(weight, bits, group, weights)
    return BinaryCodes(codes, scales, group).dense().detach()


def squared_error(weight, approximation, weights=None):
    error = (weight.double() - approximation.double()).square()
    return float((error if weights is None else error * weights).sum())


def best_clustering(numbers, count, weights):
    """The least weighted squared error of `count` intervals, by dynamic programming."""
    order = np.argsort(numbers)
    x, w = np.asarray(numbers, dtype=np.float64)[order], np.asarray(weights, np.float64)[order]

    sums = [np.concatenate([[0], (w * x**power).cumsum()]) for power in range(3)]
    first, last = np.meshgrid(np.arange(len(x) + 1), np.arange(len(x) + 1), indexing="ij")
    weight, total, square = (part[last] - part[first] for part in sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(last > first, square - total**2 / weight, np.inf)
    best = np.full(len(x) + 1, np.inf)
    best[0] = 0.0
    for _ in range(count):
        best = np.minimum(best, (best[:, None] + spread).min(0))
    return best[-1]


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("tail", ["normal", "heavy", "skewed"])
@pytest.mark.parametrize("weighted", [False, True])
def test_k_means_of_short_rows_is_the_optimum(bits, tail, weighted):
    torch.manual_seed(0)
    numbers = torch.randn(6, 40)
    numbers = {"normal": numbers, "heavy": numbers**3, "skewed": numbers.exp()}[tail]
    weights = torch.rand(1, 40) + 0.05 if weighted else None
    for row in numbers:
        row = row.unsqueeze(0)
        reached = squared_error(row, clustered(row, bits, weights), weights)
        plain = torch.ones(1, 40) if weights is None else weights
        best = best_clustering(row[0].numpy(), 2**bits, plain[0].numpy())
        assert reached >= best * (1 - 1e-6)
        assert reached <= best * 1.002  # float16 values


@pytest.mark.parametrize("bits", [2, 4])
def test_k_means_of_long_rows_is_nearly_the_optimum(bits):
    torch.manual_seed(0)
    numbers = torch.randn(4, 250) ** 3
    reached = (clustered(numbers, bits) - numbers).square().sum(1).tolist()
    for row, error in zip(numbers, reached, strict=True):
        best = best_clustering(row.numpy(), 2**bits, np.ones(250))
        assert best * (1 - 1e-6) <= error <= best * 1.02


@pytest.mark.parametrize("start", [split_start, programmed_start])
def test_lloyd_is_never_worse_than_its_start(start):
    torch.manual_seed(0)
    data = SortedNumbers.of(torch.randn(30, 50) ** 3, torch.rand(30, 50))
    values = start(data, 8)
    error = data.error(values)
    for _ in range(5):
        values = lloyd(data, values, 1)
        after = data.error(values)
        assert (after <= error * (1 + 1e-9)).all()
        error = after


def test_the_error_from_running_sums_is_the_error():
    torch.manual_seed(0)
    numbers, weights = torch.randn(7, 33), torch.rand(7, 33)
    values = torch.randn(7, 5).sort(dim=1).values
    nearest = (numbers.unsqueeze(2) - values.unsqueeze(1)).square().amin(2)
    expected = (weights * nearest).sum(1).double()
    found = SortedNumbers.of(numbers, weights).error(values.double())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@given(st.integers(1, 4), st.integers(2, 60), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_k_means_of_few_values_is_exact(bits, columns, seed):
    """Also where some values are rare, and fewer than the list could hold."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(3, 2**bits, generator=generator).half().float()
    skewed = torch.rand(3, columns, generator=generator) ** 4
    numbers = values.gather(1, (skewed * 2**bits).long())
    codes, found = k_means(numbers, bits)
    assert torch.equal(found.gather(1, codes.long()), numbers)
    assert torch.equal(found, found.half().float())


@pytest.mark.parametrize("bits", [1, 2])
def test_binary_codes_are_nearly_the_optimum(bits):
    """Against every pattern of signs with its least-squares scales."""
    torch.manual_seed(2)
    weight = torch.randn(12, 6 if bits == 2 else 9)
    size = weight.shape[1]
    planes = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=size)))
    reached = (weight - coded(weight, bits)).square().sum(1)
    for row, error in zip(weight, reached, strict=True):
        best = float("inf")
        for chosen in itertools.combinations_with_replacement(range(2 ** (size - 1)), bits):
            basis = planes[list(chosen)].T.double()  # [size, bits]
            fit = basis @ torch.linalg.pinv(basis) @ row.double()
            best = min(best, float((row - fit).square().sum()))
        assert error >= best * (1 - 1e-3) - 1e-6
        assert error <= best * 1.25 + 2e-3


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("group", [None, 16])
@pytest.mark.parametrize("weighted", [False, True])
def test_alternating_is_never_worse_than_greedy(bits, group, weighted):
    torch.manual_seed(0)
    weight = torch.randn(20, 50) ** 3
    weights = torch.rand(1, 50) + 0.1 if weighted else torch.ones(1, 50)
    size = group or 50
    for start in range(0, 50, size):
        part, importance = weight[:, start : start + size], weights[:, start : start + size]
        scales = greedy_scales(part, importance.double().expand_as(part), bits)
        greedy = torch.zeros_like(part).double()
        for scale in scales.T.unsqueeze(2):
            greedy += scale * torch.where(part - greedy >= 0, 1.0, -1.0)
        ours = coded(weight, bits, group, weights)[:, start : start + size]
        for row in range(20):
            before = squared_error(part[row], greedy[row], importance)
            assert squared_error(part[row], ours[row], importance) <= before * (1 + 1e-3) + 1e-5


@pytest.mark.parametrize(("bits", "floor"), [(1, 4.3), (2, 9.2), (3, 14.4), (4, 19.5)])
def test_signal_to_noise_on_normal_weights(bits, floor):
    """The optimum for normal numbers is 4.40, 9.30, 14.62 and 20.22 decibels (Max 1960)."""
    torch.manual_seed(0)
    weight = torch.randn(48, 640)
    for approximation in (coded(weight, bits), clustered(weight.view(1, -1), bits)):
        noise = squared_error(weight.flatten(), approximation.flatten())
        assert 10 * np.log10(float(weight.square().sum()) / noise) > floor


@given(st.integers(1, 4), st.sampled_from([None, 64]), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_matrix_of_binary_codes_is_exact(bits, group, seed):
    generator = torch.Generator().manual_seed(seed)
    groups = 1 if group is None else 2
    # Scales a factor of two or more apart, as least squares makes them, in steps that are exact.
    ladder = 2.0 ** torch.arange(bits).flip(0)
    scales = ladder * (1 + torch.randint(8, (5, groups, bits), generator=generator) / 64)
    codes = torch.randint(2**bits, (5, 128), generator=generator)
    codes[:, : 2**bits] = codes[:, 64 : 64 + 2**bits] = torch.arange(2**bits)
    weight = BinaryCodes(codes, scales, group).dense().detach()
    torch.testing.assert_close(coded(weight, bits, group), weight, rtol=0, atol=1e-2)


@pytest.mark.parametrize("bits", [1, 3])
@pytest.mark.parametrize("value", [0.0, -0.5])
def test_a_constant_matrix_stays(bits, value):
    weight = torch.full((5, 40), value)
    torch.testing.assert_close(coded(weight, bits, 16), weight, rtol=1e-3, atol=0)
    assert torch.equal(clustered(weight, max(bits, 2)), weight)


def test_weights_pull_towards_what_matters():
    torch.manual_seed(0)
    weight = torch.randn(10, 64)
    weights = torch.ones(1, 64)
    weights[:, :8] = 100.0
    for method in (coded, clustered):
        plain, pulled = method(weight, 2), method(weight, 2, weights=weights)
        assert squared_error(weight, pulled, weights) < squared_error(weight, plain, weights)
        heavy = slice(None), slice(8)
        assert squared_error(weight[heavy], pulled[heavy]) < squared_error(
            weight[heavy], plain[heavy]
        )


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_few_different_blocks_are_exact(norms, shared):
    torch.manual_seed(0)
    parts = torch.randint(-8, 8, (16, 4)).float()
    weight = parts[torch.randint(16, (60, 5))].flatten(1)[:, :18]
    if norms:
        weight = weight[:1] * torch.randint(1, 9, (60, 1))
    op = product_codes(weight, 4, 16, norms=norms, shared=shared)
    atol = 0.05 if norms else 1e-6
    torch.testing.assert_close(op.dense(), weight, rtol=2e-3, atol=atol)


def test_more_centroids_than_rows_are_exact():
    torch.manual_seed(0)
    weight = torch.randn(9, 14).half().float()
    assert torch.equal(product_codes(weight, 4, 256).dense(), weight)


def test_clustering_is_near_the_best_of_many_starts():
    """Against plain k-means, written out, from 30 random starts."""
    torch.manual_seed(0)
    points = torch.randn(1, 300, 2)
    weights = torch.rand(300) + 0.1

    def error_of(centroids):
        distance = torch.cdist(points[0], centroids).square()
        return float((weights * distance.amin(1)).sum())

    best = float("inf")
    for _ in range(30):
        centroids = points[0, torch.randperm(300)[:16]].clone()
        for _ in range(30):
            code = torch.cdist(points[0], centroids).argmin(1)
            for k in range(16):
                own = code == k
                if own.any():
                    centroids[k] = (weights[own, None] * points[0, own]).sum(0) / weights[own].sum()
        best = min(best, error_of(centroids))
    assert error_of(cluster(points, 16, torch.ones(1, 2), weights, shared=False)[0]) <= 1.15 * best


def test_rows_and_columns_that_count_more_are_nearer():
    torch.manual_seed(0)
    weight = torch.randn(400, 12)
    rows, columns = torch.ones(400), torch.ones(12)
    rows[:20], columns[::4] = 500.0, 50.0

    def error_of(op, *where):
        return squared_error(weight[where], op.dense().detach()[where])

    plain = product_codes(weight, 4, 16)
    by_row = product_codes(weight, 4, 16, row_weights=rows)
    by_column = product_codes(weight, 4, 16, column_weights=columns)
    assert error_of(by_row, slice(20)) < 0.5 * error_of(plain, slice(20))
    every = slice(None)
    assert error_of(by_column, every, slice(0, 12, 4)) < 0.7 * error_of(
        plain, every, slice(0, 12, 4)
    )


def test_the_same_matrix_gives_the_same_codes():
    weight = torch.randn(100, 12, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    first = product_codes(weight, 4, 16)
    torch.manual_seed(2)
    assert torch.equal(product_codes(weight, 4, 16).dense(), first.dense())


def test_blocks_are_columns():
    matrix = torch.arange(14.0).view(2, 7)
    blocks = blocks_of(matrix, 3)
    assert blocks.shape == (3, 2, 3)
    assert blocks[1, 1].tolist() == [10.0, 11.0, 12.0]
    assert blocks[2, 0].tolist() == [6.0, 0.0, 0.0]


def test_what_rows_and_columns_count():
    moment = torch.diag(torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64))
    statistics = Statistics(
        dict.fromkeys(("output", "output.left"), InputStatistics(moment, 10, torch.zeros(3))),
        np.array([7, 0, 2, 1]),
    )
    for name in ("output", "output.left"):
        rows, columns = number_weights(statistics, Dense(torch.zeros(4, 3)), name)
        assert rows.tolist() == [8, 1, 3, 2]
        assert columns.tolist() == [4, 1, 0]
    rows, columns = number_weights(statistics, Dense(torch.zeros(4, 3)), "embedding")
    assert (rows.tolist(), columns.tolist()) == ([8, 1, 3, 2], [1, 1, 1])
    rows, columns = number_weights(statistics, Dense(torch.zeros(5, 3)), "output.right")
    assert (rows.tolist(), columns.tolist()) == ([1] * 5, [1] * 3)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("kmeans", {"bits": 5}, "2 to 4, use scope: matrix"),
        ("kmeans", {"bits": 1}, "2 to 4, use scope: matrix"),
        ("kmeans", {"bits": 9, "scope": "matrix"}, "bits: .*less than or equal to 8"),
        ("kmeans", {"scope": "column"}, "scope: "),
        ("binary_codes", {"bits": 5}, "bits: .*less than or equal to 4"),
        ("binary_codes", {"group": 8}, "group"),
        ("binary_codes", {"group": 20}, "group"),
        ("product_quantization", {"centroids": 64}, "centroids: "),
        ("product_quantization", {"size": 0}, "size: "),
        ("product_quantization", {"dimension": 4}, "unknown option 'dimension'"),
    ],
)
def test_impossible_options_are_named(method, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        Recipe.from_list([{"method": method, **options}])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["kmeans", "binary_codes", "product_quantization"])
def test_statistics_are_asked_for_only_where_they_are_used(method):
    model = make_model("lstm")
    items = [{"method": method}]
    compress(model, Recipe.from_list(items))
    with pytest.raises(UsageError, match="calibration text"):
        compress(model, Recipe.from_list([{**items[0], "weighted": True}]))


@pytest.mark.parametrize(
    "step",
    [
        {"method": "kmeans", "bits": 2},
        {"method": "binary_codes", "bits": 2},
        {"method": "product_quantization", "centroids": 16},
    ],
    ids=lambda step: step["method"],
)
def test_statistics_at_hand_change_nothing_that_does_not_ask_for_them(step):
    model = make_model("lstm")
    ids = np.random.default_rng(0).integers(len(WORDS), size=32 * 40).astype(np.uint16)
    context = Context(calibration=ids, statistics=collect(model, ids))
    weighted = {**step, "weighted": True}
    plain, at_hand, asked = (
        compress(model, Recipe.from_list([one]), where).model.weights()["output"].dense()
        for one, where in ((step, None), (step, context), (weighted, context))
    )
    assert torch.equal(plain, at_hand)
    assert not torch.equal(plain, asked)


@pytest.mark.parametrize("method", ["kmeans", "binary_codes", "product_quantization"])
def test_values_too_large_for_float16_are_named(method):
    model = make_model("lstm")
    with torch.no_grad():
        model.weights()["cells.0.weight_hh"].weight.mul_(1e9)
    items = [{"method": method, "weights": "cells.0.weight_hh"}]
    with pytest.raises(TerselmError, match=r"cells\.0\.weight_hh: values too large"):
        compress(model, Recipe.from_list(items))
