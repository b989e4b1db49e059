"""What is on the front, and what is picked from it, against a search through all of it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from terselm.pipeline.budget import Limits
from terselm.pipeline.front import answers, choose, front_of, nearest, possible_answers
from terselm.pipeline.measurement import Candidate, Measurement, merged, timed_alike
from terselm.pipeline.results import pick


def candidate(
    number: int, size: int, perplexity: float, time: float = 10.0, *, whole: bool = True
) -> Candidate:
    measured = Measurement(
        bytes=size,
        perplexity=perplexity,
        ci95=None,
        tokens=100 if whole else 10,
        whole_text=whole,
        microseconds=time,
        step_microseconds=time / 2,
        memory=size + 1000,
    )
    recipe = [{"method": "quantize", "bits": 4, "number": number}]
    return Candidate(number, "planned", f"c{number}", recipe, measured, f"{number}", 1.0)


numbers = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=20
)


def built(values: list[tuple[int, int, int]]) -> list[Candidate]:
    return [
        candidate(n, size, float(loss), float(time)) for n, (size, loss, time) in enumerate(values)
    ]


@given(numbers)
def test_front_is_what_nothing_smaller_beats(values: list[tuple[int, int, int]]):
    candidates = built(values)
    front = front_of(candidates)
    points = [(each.measured.bytes, each.measured.perplexity) for each in front]
    expected = {
        (a.measured.bytes, a.measured.perplexity)
        for a in candidates
        if not any(
            b.measured.bytes <= a.measured.bytes
            and b.measured.perplexity <= a.measured.perplexity
            and (b.measured.bytes, b.measured.perplexity)
            != (a.measured.bytes, a.measured.perplexity)
            for b in candidates
        )
    }
    assert points == sorted(expected)


@given(numbers, st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_choice_is_the_best_that_fits(
    values: list[tuple[int, int, int]], size: int, loss: int, limited: bool
):
    candidates = built(values)
    limits = Limits(size=size, perplexity=loss) if limited else Limits(size=size)
    fitting = [
        each
        for each in candidates
        if each.measured.bytes <= size and (not limited or each.measured.perplexity <= loss)
    ]
    chosen = choose(candidates, limits)
    if not fitting:
        assert chosen is None
        assert nearest(candidates, limits) in candidates
    elif limited:
        assert chosen.measured.bytes == min(each.measured.bytes for each in fitting)
    else:
        assert chosen.measured.perplexity == min(each.measured.perplexity for each in fitting)


def test_what_is_fast_enough_may_be_larger_and_worse_than_what_is_not():
    slow = candidate(0, 10, 50.0, time=30.0)
    small, large = candidate(1, 20, 70.0), candidate(2, 40, 60.0)
    nearly = candidate(3, 50, 65.0, time=15.2)
    others = [candidate(4, 60, 80.0), candidate(5, 70, 90.0)]
    found = possible_answers([slow, small, large, nearly, *others], Limits(latency=15.0))
    assert {each.number for each in found} == {1, 2, 3}


def test_answers_are_the_smallest_of_their_closeness():
    candidates = [candidate(0, 100, 100.2), candidate(1, 50, 102), candidate(2, 20, 109)]
    found = answers(candidates, 100.0)
    assert {name: each.number for name, each in found.items()} == {
        "closest": 0,
        "balanced": 1,
        "smallest": 2,
    }
    assert answers([candidate(0, 1, 150.0)], 100.0) == {}


def test_what_was_measured_again_counts_once_with_its_first_number():
    quick = candidate(3, 10, 50, whole=False)
    again = candidate(3, 10, 52)
    again = Candidate(9, again.origin, again.label, quick.recipe, again.measured, "3", 1.0)
    (found,) = merged([again, quick])
    assert found.number == 3
    assert found.measured.perplexity == 52


def test_training_changes_no_time():
    ranks, codes = {"method": "low_rank", "rank": 0.5}, {"method": "gptq", "bits": 4}
    training = {"method": "recover", "epochs": 1}
    plan = replace(candidate(0, 5_000, 30.0, time=12.0), recipe=[ranks, codes])
    trained = replace(candidate(1, 5_300, 25.0, time=18.0), recipe=[ranks, training, codes])
    again = replace(candidate(2, 5_400, 24.0, time=11.0), recipe=[ranks, training, codes, training])
    other = replace(candidate(3, 5_000, 29.0, time=9.0), recipe=[codes])
    ranked_anew = replace(candidate(4, 9_000, 26.0, time=19.0), recipe=[training, ranks, codes])
    found = timed_alike([plan, trained, again, other, ranked_anew])
    assert [each.measured.microseconds for each in found] == [11.0, 11.0, 11.0, 9.0, 19.0]
    assert [each.measured.step_microseconds for each in found] == [5.5, 5.5, 5.5, 4.5, 9.5]
    assert [each.measured.perplexity for each in found] == [30.0, 25.0, 24.0, 29.0, 26.0]


def test_only_what_was_measured_on_all_text_is_handed_over():
    source = candidate(0, 100, 10).measured
    candidates = [candidate(1, 5, 9.0, whole=False), candidate(2, 6, 11.0)]
    from terselm.pipeline.budget import Budget

    picked = pick(candidates, Limits(size=10), source, Budget(max_size=10))
    assert picked.chosen is not None and picked.chosen.number == 2
