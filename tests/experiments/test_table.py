"""What a table says of a row: met, missed, larger, not run."""

from __future__ import annotations

from typing import Any

import pytest

from terselm.experiments.experiment import Budget, Experiment, Published
from terselm.experiments.table import Row, frontier_markdown, markdown, rows_of, steps_markdown
from tests.experiments.conftest import TRAIN

PAPER = Published(where="Table 1", row=2, megabytes=1.0, parameters=250_000, perplexity=100.0)


def run(test: float, size: int = 900_000, seed: int = 0) -> dict[str, Any]:
    return {
        "seed": seed,
        "bytes": size,
        "parameters": 240_000,
        "valid": {"perplexity": test + 3},
        "test": {"perplexity": test},
        "microseconds_per_token": 12.0,
    }


def row(*runs: dict[str, Any], budget: Budget | None = None) -> Row:
    published = None if budget else PAPER
    experiment = Experiment(title="Mine", train=TRAIN, published=published, budget=budget)
    return Row("mine", experiment, runs)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (row(run(99.9)), "met"),
        (row(run(100.1)), "missed"),
        (row(run(99.9, 1_005_000)), "met"),
        (row(run(99.9, 1_020_000)), "larger"),
        (row(), "not run"),
    ],
)
def test_against_the_paper(found: Row, verdict: str):
    assert found.verdict() == verdict


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (row(run(94.0), budget=Budget(megabytes=1, mark=95, stretch=85)), "met"),
        (row(run(84.0), budget=Budget(megabytes=1, mark=95, stretch=85)), "stretch met"),
        (row(run(96.0), budget=Budget(megabytes=1, mark=95)), "missed"),
        (row(run(84.0, 1_000_001), budget=Budget(megabytes=1, mark=95)), "too large"),
        (row(budget=Budget(megabytes=1, mark=95)), "not run"),
        # The mean counts, and the largest file.
        (row(run(94), run(97, seed=1), budget=Budget(megabytes=1, mark=95)), "missed"),
        (row(run(9), run(9, 1_000_001), budget=Budget(megabytes=1, mark=95)), "too large"),
    ],
)
def test_against_a_budget(found: Row, verdict: str):
    assert found.verdict() == verdict


def test_mean_and_spread():
    found = row(run(90.0), run(92.0), run(94.0))
    assert found.perplexity("test") == pytest.approx(92.0)
    assert found.spread("test") == pytest.approx(2.0)
    assert row(run(90.0)).spread("test") is None
    assert row().perplexity("test") is None


def test_rows_stand_in_the_order_of_print_and_notes_below():
    def experiment(number: int, note: str | None = None) -> Experiment:
        published = Published(where="Table 1", row=number)
        return Experiment(title=f"Row {number}", train=TRAIN, published=published, note=note)

    suite = {"b": experiment(2, "Read\nwith care."), "a": experiment(1)}
    suite["helper"] = Experiment(title="Helper", train=TRAIN)
    rows = rows_of(suite, list(suite), {"b": run(90.0)})
    assert [each.name for each in rows] == ["a", "b", "helper"]
    text = markdown(rows)
    lines = [line for line in text.splitlines() if line.startswith("| Table 1")]
    assert "Row 1" in lines[0] and "not run" in lines[0]
    assert "Row 2 [1]" in lines[1] and "900,000" in lines[1]
    assert "[1] Read with care." in text
    assert "Helper" not in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_the_frontier_starts_with_the_largest_budget():
    def experiment(megabytes: float) -> Experiment:
        budget = Budget(megabytes=megabytes, mark=95, stretch=85)
        return Experiment(title=f"At {megabytes:g}", train=TRAIN, budget=budget, seeds=[0, 1])

    suite = {"small": experiment(1), "large": experiment(5)}
    results = {"small": run(90.0), "small-seed-1": run(92.0, seed=1)}
    lines = frontier_markdown(rows_of(suite, list(suite), results)).splitlines()
    assert "At 5" in lines[2] and "not run" in lines[2]
    assert "91.00 ± 1.41" in lines[3] and "| 2 |" in lines[3] and "met" in lines[3]
    assert len({line.count("|") for line in lines}) == 1


def test_rows_of_ones_own_without_published_figures_are_shown():
    suite = {"mine": Experiment(title="My own", train=TRAIN)}
    text = markdown(rows_of(suite, ["mine"], {"mine": run(90.0)}))
    assert "My own" in text and "90.00" in text and "| run |" in text


def test_the_steps_show_where_they_come_from_and_only_validation():
    suite = {
        "dense": Experiment(title="Dense", train=TRAIN),
        "small": Experiment(
            title="Small",
            start="dense",
            teacher="dense",
            compress=[{"method": "quantize", "bits": 4}],
        ),
        "pupil": Experiment(
            title="Pupil", train=TRAIN, teacher=["dense", "small"], generated=2_500_000
        ),
        "own": Experiment(
            title="Own", start="dense", compress=[{"method": "recover", "distill": True}]
        ),
        "alone": Experiment(title="Alone", start="dense", compress=[{"method": "recover"}]),
    }
    text = steps_markdown(rows_of(suite, list(suite), {"small": run(90.0)}))
    dense, small, pupil, own, alone = text.splitlines()[2:]
    assert "random weights" in dense and "not run" in dense
    assert "| `dense` | `dense` |" in small and "93.00" in small and "90.00" not in text
    assert "| `dense`, `small`, who wrote 2.50 M tokens |" in pupil
    assert "| `dense` | `dense` |" in own and "| `dense` |  |" in alone
    assert len({line.count("|") for line in text.splitlines()}) == 1


def test_seeds_still_to_come_are_said():
    budget = Budget(megabytes=1, mark=95)
    suite = {"small": Experiment(title="Small", train=TRAIN, budget=budget, seeds=[0, 1, 2])}
    rows = rows_of(suite, ["small"], {"small": run(90.0)})
    assert "| 1 of 3 |" in frontier_markdown(rows) and "| 1 of 3 |" in steps_markdown(rows)
    assert "| 0 |" in frontier_markdown(rows_of(suite, ["small"], {}))


def test_a_verdict_says_that_seeds_are_still_to_come():
    suite = {"row": Experiment(title="Row", train=TRAIN, published=PAPER, seeds=[0, 1, 2])}
    results = {"row": run(90.0)}
    assert "| met (1 of 3 seeds) |" in markdown(rows_of(suite, ["row"], results))
    results |= {"row-seed-1": run(90.0, seed=1), "row-seed-2": run(90.0, seed=2)}
    assert "| met |" in markdown(rows_of(suite, ["row"], results))
    assert "| not run |" in markdown(rows_of(suite, ["row"], {}))


def test_a_bar_in_a_title_is_no_end_of_a_cell():
    budget = Budget(megabytes=1, mark=95)
    suite = {"row": Experiment(title="4 | 8 bits", train=TRAIN, budget=budget)}
    rows = rows_of(suite, ["row"], {"row": run(90.0)})
    for table in (markdown(rows), frontier_markdown(rows), steps_markdown(rows)):
        bars = {line.replace(r"\|", "").count("|") for line in table.splitlines()}
        assert r"4 \| 8 bits" in table and len(bars) == 1


def test_no_mean_over_some_of_the_runs():
    unread = run(190.0, seed=1)
    del unread["test"]
    found = row(run(70.0), unread, budget=Budget(megabytes=1, mark=80))
    assert found.perplexity("test") is None
    assert found.verdict() == "run"
    assert found.perplexity("valid") == 133.0
