"""The table of a suite: what was published beside what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from terselm.experiments.experiment import Budget, Experiment, Published
from terselm.experiments.store import label_of
from terselm.experiments.suite import Suite

Results = Mapping[str, Mapping[str, Any]]
"""By the label of the run."""
NOT_RUN = "not run"
BAR = r"\|"
AS_LARGE = 1.01
"""A file is as large as published up to here: print counts parameters alone, and rounds."""


@dataclass(frozen=True)
class Row:
    """One experiment: the mean of its seeds.

    Attributes
    ----------
    name : str
    experiment : Experiment
    runs : sequence of mapping
        Results, one a seed; empty where it was not run.
    """

    name: str
    experiment: Experiment
    runs: Sequence[Mapping[str, Any]]

    @property
    def title(self) -> str:
        """What the row is called."""
        return self.experiment.title

    @property
    def published(self) -> Published | None:
        """What others printed."""
        return self.experiment.published

    @property
    def budget(self) -> Budget | None:
        """What the model is to keep."""
        return self.experiment.budget

    @property
    def bytes(self) -> int | None:
        """Of the largest file of the seeds."""
        return max((run["bytes"] for run in self.runs), default=None)

    @property
    def parameters(self) -> int | None:
        """Numbers that the model has."""
        return self.runs[0]["parameters"] if self.runs else None

    def perplexity(self, split: str) -> float | None:
        """Return the mean over the seeds."""
        values = self._perplexities(split)
        return statistics.fmean(values) if values else None

    def spread(self, split: str) -> float | None:
        """Return the sample standard deviation over the seeds, where there are several."""
        values = self._perplexities(split)
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def microseconds(self) -> float | None:
        """Median over the seeds."""
        values = [run["microseconds_per_token"] for run in self.runs]
        return statistics.median(values) if values else None

    def verdict(self) -> str:
        """Return whether the published perplexity, or the mark, is reached within the bytes."""
        found, size = self.perplexity("test"), self.bytes
        if size is None:
            return NOT_RUN
        if found is None:
            return "run"
        if self.budget is not None:
            if size > 1e6 * self.budget.megabytes:
                return "too large"
            if self.budget.stretch is not None and found <= self.budget.stretch:
                return "stretch met"
            return "met" if found <= self.budget.mark else "missed"
        published = self.published
        if published is None or published.perplexity is None:
            return "run"
        if published.megabytes is not None and size > AS_LARGE * 1e6 * published.megabytes:
            return "larger"
        return "met" if found <= published.perplexity else "missed"

    def _perplexities(self, split: str) -> list[float]:
        # A mean over some of the runs would be taken for one over all.
        if not all(split in run for run in self.runs):
            return []
        return [run[split]["perplexity"] for run in self.runs]


def rows_of(suite: Suite, names: Sequence[str], results: Results) -> list[Row]:
    """Return the rows of a table in the order of print; those without a result are not run."""
    found = []
    for name in names:
        experiment = suite[name]
        labels = [label_of(name, seed) for seed in experiment.seeds]
        runs = [results[label] for label in labels if label in results]
        found.append(Row(name, experiment, runs))
    return sorted(found, key=_place)


def _place(row: Row) -> tuple[float, str, int]:
    if row.budget is not None:
        return -row.budget.megabytes, "", 0
    return 0.0, *(("~", 0) if row.published is None else (row.published.where, row.published.row))


def markdown(rows: Sequence[Row]) -> str:
    """Return the table of rows with published figures, or of all if none has, notes below."""
    head = (
        "| | model | published: MB | params | test ppl | ours: bytes | params | valid ppl "
        "| test ppl | µs a token | |"
    )
    lines = [head, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|"]
    notes = []
    for row in [row for row in rows if row.published is not None] or rows:
        mark = ""
        if row.experiment.note is not None:
            notes.append(row.experiment.note)
            mark = f" [{len(notes)}]"
        where = "" if row.published is None else row.published.where
        lines.append(_line(where, f"{row.title}{mark}", *_cells(row)))
    footnotes = [f"[{number}] {' '.join(note.split())}" for number, note in enumerate(notes, 1)]
    return "\n".join([*lines, *(f"\n{note}" for note in footnotes)]) + "\n"


def frontier_markdown(rows: Sequence[Row]) -> str:
    """Return the table of rows with budgets."""
    lines = [
        "| budget | model | bytes | seeds | valid ppl | test ppl | mark | stretch | µs a token | |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        if row.budget is None:
            continue
        cells = (
            f"≤ {row.budget.megabytes:g} MB",
            row.title,
            _number(row.bytes, ",d"),
            _seeds(row),
            _with_spread(row, "valid"),
            _with_spread(row, "test"),
            f"{row.budget.mark:g}",
            "" if row.budget.stretch is None else f"{row.budget.stretch:g}",
            _number(row.microseconds, ".0f"),
            row.verdict(),
        )
        lines.append(_line(*cells))
    return "\n".join(lines) + "\n"


def steps_markdown(rows: Sequence[Row]) -> str:
    """Return the table of every step on the way: what it was made from, and what it gave.

    Validation text alone: it is what steps are chosen by.
    """
    lines = [
        "| step | | from | taught by | bytes | params | seeds | valid ppl |",
        "|---|---|---|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        experiment = row.experiment
        cells = (
            f"`{row.name}`",
            row.title,
            ", ".join(f"`{name}`" for name in experiment.starts()) or "random weights",
            _taught_by(experiment),
            _number(row.bytes, ",d"),
            _millions(row.parameters),
            _seeds(row),
            _with_spread(row, "valid") if row.runs else NOT_RUN,
        )
        lines.append(_line(*cells))
    return "\n".join(lines) + "\n"


def _line(*cells: str) -> str:
    """Return a row of a Markdown table; a bar in a cell would begin the next one."""
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"


def _cells(row: Row) -> tuple[str, ...]:
    published = row.published or Published(where="")
    return (
        _number(published.megabytes, "g"),
        _millions(published.parameters),
        _number(published.perplexity, ".2f"),
        _number(row.bytes, ",d"),
        _millions(row.parameters),
        _with_spread(row, "valid"),
        _with_spread(row, "test"),
        _number(row.microseconds, ".0f"),
        _verdict_so_far(row),
    )


def _verdict_so_far(row: Row) -> str:
    """Return the verdict, and of how many seeds it is where some are still to come."""
    missing = 0 < len(row.runs) < len(row.experiment.seeds)
    return f"{row.verdict()} ({_seeds(row)} seeds)" if missing else row.verdict()


def _seeds(row: Row) -> str:
    """Return how many seeds were run, and of how many where some are still to come."""
    run, wanted = len(row.runs), len(row.experiment.seeds)
    return str(run) if run in (0, wanted) else f"{run} of {wanted}"


def _with_spread(row: Row, split: str) -> str:
    spread = row.spread(split)
    mean = _number(row.perplexity(split), ".2f")
    return mean if spread is None else f"{mean} ± {spread:.2f}"


def _taught_by(experiment: Experiment) -> str:
    teachers = experiment.teachers()
    if not teachers and _distils(experiment):
        teachers = experiment.starts()
    names = ", ".join(f"`{name}`" for name in teachers)
    if experiment.generated is None:
        return names
    return f"{names}, who wrote {_millions(experiment.generated)} tokens"


def _distils(experiment: Experiment) -> bool:
    return any(step.get("distill") or step.get("distill_hidden") for step in experiment.compress)


def _millions(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:.2f} M"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
