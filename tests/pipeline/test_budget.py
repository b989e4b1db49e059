"""Budgets: what can be written, what it means, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from terselm.errors import UsageError
from terselm.pipeline.budget import Budget, Limits
from terselm.pipeline.measurement import Measurement
from terselm.pipeline.units import read_seconds

SOURCE = Measurement(
    bytes=80_000_000,
    perplexity=100.0,
    ci95=None,
    tokens=10,
    whole_text=True,
    microseconds=2_000.0,
    step_microseconds=1_000.0,
    memory=81_000_000,
)


@pytest.mark.parametrize(
    ("written", "bytes_"),
    [
        ("5MB", 5_000_000),
        ("5 mb", 5_000_000),
        ("5MiB", 5_242_880),
        ("500kB", 500_000),
        ("1.5MB", 1_500_000),
        ("123456", 123_456),
        (123_456, 123_456),
        ("25%", 20_000_000),
    ],
)
def test_sizes(written: str | int, bytes_: float):
    assert Budget(max_size=written).limits(SOURCE).size == pytest.approx(bytes_)


@pytest.mark.parametrize(
    ("written", "microseconds"),
    [("200us", 200), ("200µs", 200), ("0.2ms", 200), ("1s", 1e6), (150, 150), ("10%", 200)],
)
def test_latencies(written: str | float, microseconds: float):
    assert Budget(max_latency=written).limits(SOURCE).latency == pytest.approx(microseconds)


@pytest.mark.parametrize(
    ("written", "perplexity"), [("85", 85), (85, 85), ("+3%", 103), ("+2.5", 102.5), ("+0%", 100)]
)
def test_perplexities(written: str | float, perplexity: float):
    assert Budget(max_perplexity=written).limits(SOURCE).perplexity == pytest.approx(perplexity)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "nothing in it"),
        ({"max_size": "5 parsecs"}, "--max-size is '5 parsecs'; write 5MB"),
        ({"max_size": "-5MB"}, "--max-size"),
        ({"max_size": "0"}, "more than nothing"),
        ({"max_size": "MB"}, "--max-size is 'MB'"),
        ({"max_memory": "1e9"}, "--max-memory"),
        ({"max_latency": "200"}, "--max-latency is '200'; write 200us"),
        ({"max_latency": math.nan}, "--max-latency"),
        ({"max_perplexity": "3%"}, "write +3%"),
        ({"max_perplexity": "good"}, "'good' where a number should be"),
        ({"max_perplexity": "+-3%"}, "where a number should be"),
        ({"max_size": "nan%"}, "where a number should be"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, str], said: str):
    with pytest.raises(UsageError) as caught:
        Budget(**values)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("limit", "value"),
    [("size", 40_000_000), ("latency", 1_000), ("memory", 40_500_000), ("perplexity", 50)],
)
def test_each_limit_counts(limit: str, value: float):
    limits = Limits(**{limit: value})
    assert limits.excess(SOURCE) == pytest.approx(2.0)
    assert limits.cost_excess(SOURCE) == pytest.approx(0.0 if limit == "perplexity" else 2.0)
    (said,) = limits.missed(SOURCE)
    assert said.startswith(limit)
    kept = Limits(**{limit: 2 * value})
    assert kept.excess(SOURCE) == pytest.approx(1.0) and kept.missed(SOURCE) == []


def test_excess_is_the_worst_factor():
    limits = Limits(size=40_000_000, perplexity=80)
    assert limits.excess(SOURCE) == pytest.approx(2.0)
    assert limits.cost_excess(SOURCE) == pytest.approx(2.0)
    assert Limits(perplexity=80).cost_excess(SOURCE) == 0
    assert [text.split()[0] for text in limits.missed(SOURCE)] == ["size", "perplexity"]


def test_a_limit_that_is_just_missed_does_not_look_kept():
    measured = replace(SOURCE, microseconds=200.004, perplexity=100.0004)
    limits = Limits(size=79_999_999.7, latency=200.0, memory=80_999_999, perplexity=100.0)
    assert limits.missed(measured) == [
        "size 80,000,000.0 bytes, the limit is 79,999,999.7",
        "latency 200.004 µs, the limit is 200.000",
        "memory 81,000,000 bytes, the limit is 80,999,999",
        "perplexity 100.0004, the limit is 100.0000",
    ]
    broken = replace(SOURCE, perplexity=1e300)
    assert Limits(perplexity=85).missed(broken) == ["perplexity 1e+300, the limit is 85.00"]


@pytest.mark.parametrize(
    ("written", "seconds"), [("600", 600), ("90s", 90), ("10min", 600), ("1.5h", 5400), ("2m", 120)]
)
def test_durations(written: str, seconds: float):
    assert read_seconds(written, "--time-limit") == seconds
