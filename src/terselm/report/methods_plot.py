"""The picture of many methods on one model: bytes against perplexity, a line a method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from terselm.errors import UsageError
from terselm.report.plots import DOTS_PER_INCH, dress_axes, write_figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
"""Okabe and Ito's palette without its yellow, which is too faint on white."""
MARKERS = ("o", "s", "^", "D", "v")
INCHES = (8.6, 5.4)
TALLEST_RATIO = 1.5


@dataclass(frozen=True)
class MethodLine:
    """What one method reached.

    Attributes
    ----------
    label : str
    points : sequence of (int, float)
        Bytes of the file and perplexity, smallest first.
    """

    label: str
    points: Sequence[tuple[int, float]]


def methods_plot(lines: Sequence[MethodLine], path: str | Path, *, title: str) -> None:
    """Draw bytes (logarithmic) against perplexity, one line a method.

    Perplexities beyond one and a half times the best one are cut off and marked at the upper
    edge, since a collapsed model would squeeze all others together.

    Parameters
    ----------
    lines : sequence of MethodLine
    path : str or Path
        Ends in .png or .svg; written whole or not at all.
    title : str

    Raises
    ------
    UsageError
        If there is no point or the suffix is another one.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        raise UsageError("no points to draw")
    write_figure(lambda: _draw(lines, title), Path(path))


def _draw(lines: Sequence[MethodLine], title: str) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    values = [value for line in lines for _, value in line.points if math.isfinite(value)]
    lowest = min(values)
    ceiling = min(max(values), TALLEST_RATIO * lowest)
    styles = zip(lines, cycle(COLORS), _markers(), strict=False)
    for line, color, marker in styles:
        sizes = [size for size, _ in line.points]
        heights = [min(value, ceiling) for _, value in line.points]
        axes.plot(
            sizes,
            heights,
            color=color,
            marker=marker,
            markersize=5,
            linewidth=1.2,
            label=line.label,
            zorder=3,
        )
        for size, value in line.points:
            if value > ceiling:
                axes.annotate(f"{value:.0f}", (size, ceiling), (0, 6), textcoords="offset points")
    dress_axes(axes, title)
    margin = 0.06 * (ceiling - lowest) or 0.01 * lowest
    axes.set_ylim(lowest - margin, ceiling + 1.8 * margin)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return figure


def _markers() -> list[str]:
    # A marker for each round of the colours, so that no two methods look alike.
    return [marker for marker in MARKERS for _ in COLORS]
