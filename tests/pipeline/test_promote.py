"""Who is trained, and where the training stands in a recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest

from terselm.pipeline.budget import Limits
from terselm.pipeline.promote import (
    FIRST_RUNG,
    LAST,
    NEAR,
    SCALES,
    SECOND,
    SECOND_MANY,
    Training,
    first_epochs,
    first_rung,
    leading,
    next_rung,
    others_of_rung,
    parents_of,
    scales_rung,
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
    trainings = [1] * FIRST_RUNG + [SECOND] * SECOND_MANY + [SCALES]
    # The last one's scales are trained in the same trial.
    trainings.append(LAST + SCALES)
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


def recovered(jobs, first: int, perplexities):
    return [
        replace(candidate(first + number, 10, perplexity), recipe=job.recipe, label=job.label)
        for number, (job, perplexity) in enumerate(zip(jobs, perplexities, strict=True))
    ]


def recoveries(job):
    return [step for step in job.recipe if step["method"] == "recover"]


def test_the_others_are_trained_as_the_first_one_best():
    parents = [
        replace(candidate(bits, 10, 20.0), recipe=[{**CODES, "bits": bits}]) for bits in (2, 3, 4)
    ]
    jobs = first_rung(parents, 0.1, 0.3)
    assert [job.parent for job in jobs] == [2, 2, 2]
    assert len({job.key for job in jobs}) == 3
    assert all(job.whole_text for job in jobs)
    assert {job.label.partition("trained ")[2] for job in jobs} == {
        "0.1",
        "0.1 by text and source",
        "0.1 by the source",
    }
    single = replace(candidate(9, 10, 14.0), recipe=[{**CODES, "bits": 8}])
    for best in range(3):
        perplexities = [10.0 if number == best else 15.0 for number in range(3)]
        trained = recovered(jobs, 10, perplexities)
        others = others_of_rung(parents, trained, Limits(size=50), single)
        assert [job.parent for job in others] == [3, 4, 9]
        assert len([*jobs, *others]) == FIRST_RUNG
        for job in others:
            assert recoveries(job) == recoveries(jobs[best])
        far = candidate(9, 10, 10.0 * NEAR + 1)
        assert len(others_of_rung(parents, trained, Limits(size=50), far)) == 2
    assert others_of_rung(parents, [], Limits(size=50), single) == []


def test_rungs_grow_longer_and_keep_how_they_train():
    parents = [replace(candidate(3, 10, 20.0), recipe=[CODES])]
    jobs = first_rung(parents, 0.1, 0.3)
    for best, way in enumerate(jobs):
        perplexities = [19.0 if number == best else 20.0 for number in range(3)]
        trained = recovered(jobs, 10, perplexities)
        (longer,) = next_rung(leading(trained, Limits(size=50), 1), 0.2)
        assert longer.parent == 10 + best
        rate = 0.0002 if best == 2 else 0.0005
        last = {**recoveries(way)[0], "epochs": 0.2, "learning_rate": rate}
        assert recoveries(longer) == [*recoveries(way), last]


def test_the_rate_of_a_training_by_the_source_alone_rises_with_its_length():
    step = Training(0.1, 0.0001, 0.0, distillation=1.0).step()
    rates = [step["learning_rate"]]
    for epochs in (0.3, 1.2, 4.0):
        (job,) = next_rung([replace(candidate(1, 10, 19.0), recipe=[step, CODES])], epochs)
        step = recoveries(job)[-1]
        rates.append(step["learning_rate"])
    assert rates == [0.0001, 0.0002, 0.0003, 0.0003]


def test_a_recipe_without_a_weight_has_the_usual_one():
    step = {"method": "recover", "epochs": 1.0, "learning_rate": 0.001, "dropout": 0.1}
    taught = replace(candidate(1, 10, 19.0), recipe=[{**step, "distill": True}, CODES])
    (longer,) = next_rung([taught], 2.0)
    assert recoveries(longer)[-1] == {
        **step,
        "epochs": 2.0,
        "distill": True,
        "distill_weight": 0.5,
    }


def test_the_scales_of_the_best_one_are_trained_by_the_source():
    way = {"method": "recover", "epochs": 0.1, "learning_rate": 0.001, "dropout": 0.1}
    trained = [
        replace(candidate(number, 10, 20.0 - number), recipe=[RANKS, way, CODES])
        for number in range(3)
    ]
    (job,) = scales_rung(leading(trained, Limits(size=50), 1), 0.3)
    assert job.parent == 2
    assert [step["method"] for step in job.recipe] == ["low_rank", "recover", "gptq", "recover"]
    assert job.recipe[-1]["distill_weight"] == 1.0
    # Those that go on from there are trained before their codes, in the way that they were.
    (scaled,) = recovered([job], 10, [10.0])
    (longer,) = next_rung([scaled], 0.9)
    assert longer.label.endswith(", trained 0.1 + 0.9, scales 0.3")
    assert longer.recipe == [RANKS, way, {**way, "epochs": 0.9}, CODES, job.recipe[-1]]
    assert scales_rung([scaled], 0.3) == []
    dense = replace(candidate(5, 10, 1.0), recipe=[RANKS, way])
    assert scales_rung([dense], 0.3) == []
    assert scales_rung([], 0.3) == []
