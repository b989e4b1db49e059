"""Plans: within their bytes, better with more, the same as a search through all choices."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terselm.compress.recipe import Recipe
from terselm.linear.base import tensor_bytes
from terselm.linear.low_rank import LowRank
from terselm.pipeline import plan as plans
from terselm.pipeline.jobs import planned_jobs
from terselm.pipeline.plan import (
    GROUPS,
    Knobs,
    make_plan,
    plan_recipe,
    quantized_bytes,
    smallest_possible,
)
from terselm.pipeline.sensitivity import (
    BitsProbe,
    MatrixSensitivity,
    RankProbe,
    Sensitivity,
    loss_at_rank,
)
from terselm.pipeline.space import Space
from tests.tiny import random_quantized


def matrix(name: str, rows: int, columns: int, weight: float = 1.0) -> MatrixSensitivity:
    most = rows * columns // (rows + columns)
    errors = tuple((1 - rank / most) ** 2 for rank in range(most + 1))
    ranks = tuple(
        RankProbe(rank, rank / most, weight * 0.5 * errors[rank])
        for rank in (most // 8, most // 4, most // 2)
    )
    bits = tuple(BitsProbe(width, 32, weight * 0.5 / 4**width) for width in (4, 3, 2))
    return MatrixSensitivity(name, (rows, columns), errors, ranks, bits)


SMALL = Sensitivity(
    1000,
    (
        replace(matrix("embedding", 300, 64), looked_up=True),
        matrix("cells.0.weight_ih", 256, 64, 3.0),
        matrix("cells.0.weight_hh", 256, 64, 5.0),
        matrix("output", 300, 64, 2.0),
    ),
)


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("group", [16, 32, 64, "row"])
@pytest.mark.parametrize(("rows", "columns"), [(37, 50), (256, 64), (300, 33)])
def test_bytes_are_those_of_the_stored_form(bits: int, group: int | str, rows: int, columns: int):
    op = random_quantized(rows, columns, bits, None if group == "row" else group)
    stored = sum(
        -(-tensor_bytes({name: tensor}) // 64) * 64 for name, tensor in op.tensors().items()
    )
    assert quantized_bytes(rows, columns, bits, group) == stored


def test_read_bytes_of_factors_are_those_of_the_stored_form():
    left, right = random_quantized(256, 24, 4, 32), random_quantized(24, 64, 4, 32)
    read = LowRank(left, right).cost().bytes_read
    assert abs(quantized_bytes(256, 24, 4, 32) + quantized_bytes(24, 64, 4, 32) - read) < 256


@settings(max_examples=60, deadline=None)
@given(
    st.integers(8_000, 90_000),
    st.sampled_from(["file", "read"]),
    st.floats(0.05, 2),
    st.floats(0.3, 3),
    st.booleans(),
    st.booleans(),
)
def test_a_plan_keeps_its_bytes(
    size: int, unit: str, rank: float, words: float, recurrent: bool, of_words: bool
):
    knobs = Knobs(
        size,
        unit,
        rank_price=rank,
        words_price=words,
        recurrent_rank=recurrent,
        words_rank=of_words,
    )
    plan = make_plan(SMALL, knobs, fixed_bytes=2_000)
    if plan is None:
        return
    assert (plan.bytes + 2_000 if unit == "file" else plan.read) <= size
    for name, each in plan.storage.items():
        allowed = of_words if name in ("embedding", "output") else recurrent
        assert allowed or each.rank is None
    Recipe.from_list(plan_recipe(plan))


def test_more_bytes_lose_no_more():
    losses = []
    for size in range(12_000, 80_000, 4_000):
        plan = make_plan(SMALL, Knobs(size), fixed_bytes=0)
        if plan is not None:
            losses.append(plan.loss)
    assert len(losses) > 10
    assert all(b <= a * 1.02 for a, b in itertools.pairwise(losses))
    assert losses[-1] < losses[0] / 20


def test_nothing_is_planned_that_is_too_small():
    assert make_plan(SMALL, Knobs(500), fixed_bytes=0) is None


@pytest.mark.parametrize("unit", ["file", "read"])
def test_the_smallest_size_is_possible_and_no_smaller_one_is(unit: str):
    fixed = 2_000 if unit == "file" else 0
    wide = Sensitivity(10, tuple(replace(each, errors=(1.0,)) for each in SMALL.matrices))
    least = smallest_possible(wide, fixed, unit)
    assert planned_jobs(wide, Space(unit, least, least, True, math.inf, fixed))
    for group in GROUPS:
        assert make_plan(wide, Knobs(least - 1, unit, group=group), fixed) is None


def test_a_width_that_is_slow_to_read_counts_for_more():
    knobs = Knobs(9_000, "read")
    even = make_plan(SMALL, knobs, fixed_bytes=0)
    uneven = make_plan(SMALL, knobs, fixed_bytes=0, paces={3: 4.0, 2: 4.0})
    assert even is not None and uneven is not None
    assert {3, 2} & {each.bits for each in even.storage.values()}
    assert {each.bits for each in uneven.storage.values()} <= {8, 4}
    assert uneven.read <= knobs.bytes


def test_a_plan_is_near_the_best_of_all(monkeypatch):
    monkeypatch.setattr(plans, "STEPS", 4)
    two = Sensitivity(10, SMALL.matrices[1:3])
    knobs = Knobs(14_000)
    choices = [plans._choices(each, knobs, plans.EVEN) for each in two.matrices]
    best = min(
        sum(each.loss for each in pair)
        for pair in itertools.product(*choices)
        if sum(each.bytes for each in pair) <= knobs.bytes
    )
    plan = make_plan(two, knobs, fixed_bytes=0)
    assert plan is not None
    assert plan.loss <= 1.25 * best


def test_loss_between_measured_ranks_lies_between_theirs():
    one = SMALL.matrices[1]
    losses = [loss_at_rank(one, rank) for rank in range(1, len(one.errors))]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(losses))
    for probe in one.ranks:
        assert math.isclose(loss_at_rank(one, probe.rank), probe.divergence)


def test_sensitivity_survives_json():
    assert Sensitivity.from_dict(SMALL.as_dict()) == SMALL
    assert torch.tensor(SMALL.report()["weights"][0]["shape"]).tolist() == [300, 64]
