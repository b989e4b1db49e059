"""The picture of a suite: what was measured beside what was published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from terselm.experiments.table import Row
from terselm.report.plots import FrontierPoint
from terselm.report.results_plot import Series, results_plot

SUFFIXES = (".png", ".svg")


def measured_points(rows: Sequence[Row], named: Sequence[Row] = ()) -> list[FrontierPoint]:
    """Return what was run, by file bytes and mean test perplexity.

    Labels are titles, those of `named` rows their names.
    """
    found = []
    for row in rows:
        size, perplexity = row.bytes, row.perplexity("test")
        if size is not None and perplexity is not None:
            found.append(FrontierPoint(row.name if row in named else row.title, size, perplexity))
    return found


def published_points(rows: Sequence[Row]) -> list[FrontierPoint]:
    """Return what was published with both a size and a perplexity."""
    found = []
    for row in rows:
        other = row.published
        if other is not None and other.megabytes is not None and other.perplexity is not None:
            found.append(FrontierPoint(row.title, int(1e6 * other.megabytes), other.perplexity))
    return found


def draw(
    rows: Sequence[Row],
    stem: Path,
    title: str,
    others: Sequence[Series] = (),
    named: Sequence[Row] = (),
) -> list[Path]:
    """Draw the rows as PNG and SVG; return the files, none where nothing was run.

    Parameters
    ----------
    rows : sequence of Row
    stem : Path
        The file names without their suffix.
    title : str
    others : sequence of Series
        Further series, after ours and the published one.
    named : sequence of Row
        Those of the rows whose names stand beside their points.
    """
    ours = measured_points(rows, named)
    if not ours:
        return []
    series = [
        Series("measured here", ours, joined=True, named=measured_points(named, named)),
        Series("as published", published_points(rows)),
        *others,
    ]
    written = [stem.with_suffix(suffix) for suffix in SUFFIXES]
    for path in written:
        results_plot(series, path, title=title)
    return written
