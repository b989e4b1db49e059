"""Rows in groups with ranks of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.factorization import decompose
from terselm.compress.recipe import Recipe
from terselm.compress.row_groups import RowGrouping, groups_by_weight
from terselm.compress.statistics import collect
from terselm.errors import UsageError
from terselm.linear.grouped_rows import GroupedRows
from tests.compress.other_device import DEVICE, OtherDevice, compress_elsewhere
from tests.tiny import WORDS, logits_of, make_model

IDS = np.random.default_rng(0).zipf(1.3, size=32 * 60)
IDS = (IDS % len(WORDS)).astype(np.uint16)
CONTEXT = Context(calibration=IDS)


def test_groups_have_equal_weight_and_the_heaviest_come_first():
    weights = torch.tensor([1.0, 8.0, 1.0, 4.0, 1.0, 1.0])
    assert groups_by_weight(weights, 2).tolist() == [1, 0, 1, 1, 1, 1]
    assert groups_by_weight(torch.ones(6), 3).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_group_is_empty(count):
    weights = torch.tensor([1000.0, 1e-3, 1e-3, 1e-3, 1e-3])
    groups = groups_by_weight(weights, count)
    assert torch.bincount(groups, minlength=count).min() >= 1


def two_subspaces(rows: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows from two planes in ten dimensions, and which plane each is from."""
    torch.manual_seed(2)
    side = torch.arange(rows) % 2
    planes = torch.randn(2, 2, 10)
    return torch.einsum("nr,nrk->nk", torch.randn(rows, 2), planes[side]), side


def test_refinement_finds_rows_that_belong_together():
    weight, side = two_subspaces()
    problem = RowGrouping(weight, torch.ones(60), None, 0.0, 2 * 60 + 2 * 2 * 10 + 30)
    start = side.clone()
    start[:16] = 1 - start[:16]  # some rows in the wrong group
    before = problem.factor(start)
    after = problem.refine(before, 10)
    assert after.error < 0.05 * before.error
    assert (after.groups == side).float().mean() > 0.9


@pytest.mark.parametrize("weighted", [False, True])
def test_refinement_never_gets_worse_and_keeps_the_budget(weighted):
    torch.manual_seed(3)
    weight = torch.randn(50, 12)
    moment = torch.cov(torch.randn(12, 40)).double() if weighted else None
    rows = torch.rand(50) + 0.01
    problem = RowGrouping(weight, rows, moment, 0.1, 300)
    found = problem.factor(groups_by_weight(rows, 3))
    for _ in range(4):
        again = problem.refine(found, 1)
        assert again.error <= found.error
        heights = torch.bincount(again.groups).tolist()
        numbers = sum(
            height * 12 if rank is None else rank * (height + 12)
            for rank, height in zip(again.ranks, heights, strict=True)
        )
        assert numbers <= 300
        found = again


def test_the_error_is_that_of_the_groups_put_together():
    torch.manual_seed(4)
    weight, rows = torch.randn(30, 8), torch.rand(30) + 0.1
    problem = RowGrouping(weight, rows, None, 0.0, 160)
    found = problem.factor(groups_by_weight(rows, 2))
    approximation = torch.empty(30, 8)
    for number, (terms, rank) in enumerate(zip(found.terms, found.ranks, strict=True)):
        inside = found.groups == number
        if rank is None:
            approximation[inside] = weight[inside]
        else:
            left, right = terms.factors(rank)
            approximation[inside] = left @ right
    error = (rows.unsqueeze(1) * (weight - approximation).square()).sum()
    assert found.error == pytest.approx(float(error), rel=1e-4)


def test_one_group_of_full_budget_is_plain_low_rank():
    torch.manual_seed(5)
    weight = torch.randn(30, 8)
    problem = RowGrouping(weight, torch.ones(30), None, 0.0, 3 * 38)
    found = problem.factor(torch.zeros(30, dtype=torch.int64))
    assert found.ranks == [3]
    assert found.error == pytest.approx(decompose(weight).error(3))


def apply(model, **options):
    step = {"method": "group_reduce", "weights": "embedding output", **options}
    return compress(model, Recipe.from_list([step]), CONTEXT).model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_the_share_is_kept_and_frequent_words_are_nearer(tied, share):
    model = make_model("lstm", tied=tied)
    small = apply(model, rank=share, groups=3)
    op = small.embedding
    assert isinstance(op, GroupedRows)
    assert op.parameter_count() <= share * model.embedding.parameter_count()
    difference = (op.dense() - model.embedding.dense()).detach().square().sum(1)
    counts = np.bincount(IDS, minlength=len(WORDS))
    often = torch.from_numpy(counts >= np.median(counts))
    assert difference[often].mean() < difference[~often].mean()


@pytest.mark.parametrize("weighted", [False, True])
def test_groups_are_on_the_device_of_the_matrix(weighted):
    torch.manual_seed(3)
    weight, rows = torch.randn(50, 12), torch.rand(50) + 0.01
    moment = torch.cov(torch.randn(12, 40)).double() if weighted else None
    here = RowGrouping(weight, rows, moment, 0.1, 300)
    expected = here.refine(here.factor(groups_by_weight(rows, 3)), 2)
    with OtherDevice():
        rows = rows.to(DEVICE)
        there = RowGrouping(
            weight.to(DEVICE), rows, None if moment is None else moment.to(DEVICE), 0.1, 300
        )
        found = there.refine(there.factor(groups_by_weight(rows, 3)), 2)
        assert found.groups.device == DEVICE
    assert torch.equal(found.groups, expected.groups)
    assert found.ranks == expected.ranks


@pytest.mark.parametrize("tied", [False, True])
def test_the_method_works_where_the_matrix_is(tied, monkeypatch):
    model = make_model("lstm", tied=tied)
    step = {"method": "group_reduce", "weights": "embedding output", "rank": 0.7, "groups": 3}
    context = replace(CONTEXT, statistics=collect(model, IDS))
    small = compress_elsewhere(monkeypatch, model, [step], context)
    expected = apply(model, rank=0.7, groups=3)
    assert torch.equal(small.embedding.dense(), expected.embedding.dense())


def test_all_the_numbers_are_exact():
    model = make_model("gru")
    torch.testing.assert_close(logits_of(apply(model, rank=1.0)), logits_of(model))


def test_wrong_options_name_the_nearest():
    model = make_model("lstm")
    with pytest.raises(UsageError, match=r"cells\.0\.weight_hh has no rows of words"):
        apply(model, rank=0.5, weights="cells.0.weight_hh")
    with pytest.raises(UsageError, match="use at most 37"):
        apply(model, rank=0.5, groups=38)
    with pytest.raises(UsageError, match=r"use at least (0\.\d+)") as caught:
        apply(model, rank=0.01, weights="output")
    least = float(str(caught.value).rpartition(" ")[2])
    apply(model, rank=least, weights="output")
    with pytest.raises(UsageError, match="needs calibration text"):
        step = {"method": "group_reduce", "rank": 0.5, "weights": "output"}
        compress(model, Recipe.from_list([step]))
