"""Who is trained, and where the training stands in a recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest

from terselm.pipeline.budget import Limits
from terselm.pipeline.promote import (
    FIRST_RUNG,
    RUNGS,
    Training,
    first_epochs,
    first_rung,
    next_rung,
    parents_of,
    whole_or_part,
    with_training,
)
from tests.pipeline.test_front import candidate

RANKS = {"method": "low_rank", "weights": "output", "ranks": {"output": 8}}
CODES = {"method": "gptq", "weights": "*", "bits": 4}


def test_training_stands_between_factors_and_codes():
    step = Training(0.5, 0.001, 0.2).step()
    recipe = with_training([RANKS, CODES], step)
    assert [each["method"] for each in recipe] == ["low_rank", "recover", "gptq"]
    again = with_training(recipe, step)
    assert [each["method"] for each in again] == ["low_rank", "recover", "recover", "gptq"]
    assert with_training([RANKS], step) == [RANKS, step]


@pytest.mark.parametrize(
    ("epochs", "done"),
    [(0.004, 0.02), (0.237, 0.24), (0.999, 1.0), (1.4, 1.0), (2.6, 2.0), (2.8, 3.0)],
)
def test_epochs_are_those_that_recover_can_do(epochs: float, done: float):
    assert whole_or_part(epochs) == done


def test_a_round_fills_its_time():
    epochs = first_epochs(1000.0, 200.0, 20.0)
    trainings = [1.0] * FIRST_RUNG + [factor for factor, many in RUNGS for _ in range(many)]
    spent = sum(20.0 + 200.0 * epochs * factor for factor in trainings)
    assert spent == pytest.approx(1000.0)
    assert first_epochs(100.0, 200.0, 20.0) == 0


def test_parents_keep_the_limits_and_differ_in_kind():
    fitting = [replace(candidate(number, 10, 20.0 + number), recipe=[CODES]) for number in range(3)]
    other = replace(candidate(7, 10, 30.0), recipe=[RANKS, CODES])
    large = candidate(8, 99, 1.0)
    single = replace(candidate(9, 10, 1.0), origin="single")
    parents = parents_of([*fitting, other, large, single], Limits(size=50), many=2)
    assert [each.number for each in parents] == [0, 7]


def test_with_a_limit_on_perplexity_the_smallest_hopeful_ones_are_trained():
    candidates = [candidate(0, 50, 90.0), candidate(1, 20, 108.0), candidate(2, 5, 300.0)]
    parents = parents_of(candidates, Limits(perplexity=100.0), many=1)
    assert [each.number for each in parents] == [1]


def test_rungs_grow_longer_and_keep_how_they_train():
    parents = [
        replace(candidate(bits, 10, 20.0), recipe=[{**CODES, "bits": bits}]) for bits in (3, 4)
    ]
    jobs = first_rung(parents, 0.1, 0.3, single=None)
    assert len({job.key for job in jobs}) == 4
    assert all(job.whole_text for job in jobs)
    trained = [
        replace(candidate(10 + number, 10, 20.0 - number), recipe=job.recipe)
        for number, job in enumerate(jobs)
    ]
    (longer,) = next_rung(trained, Limits(size=50), 0.2, 1)
    assert longer.parent == 13
    steps = [step for step in longer.recipe if step["method"] == "recover"]
    assert [step["epochs"] for step in steps] == [0.1, 0.2]
    assert {step.get("distill", False) for step in steps} == {
        jobs[3].recipe[0].get("distill", False)
    }
