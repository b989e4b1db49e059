"""The picture of many methods on one model: bytes against perplexity, a line a method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from terselm.errors import UsageError
from terselm.report.plots import DOTS_PER_INCH, FAINT, dress_axes, write_figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
"""Okabe and Ito's palette without its yellow, which is too faint on white."""
MARKERS = ("o", "s", "^", "D", "v")
INCHES = (8.6, 5.4)
TALLEST_RATIO = 1.5
STRIP_ROW = 0.05
"""Height of a row of points that are cut off, as a share of the heights that are not."""
MARKER_WIDTH, DIGIT_WIDTH = 0.022, 0.0125
"""What a point that is cut off and a digit of its label take, as shares of the width."""


@dataclass(frozen=True)
class MethodLine:
    """What one method reached.

    Attributes
    ----------
    label : str
    points : sequence of (int, float)
        Bytes of the file and perplexity, smallest first.
    style : int or None
        Number of its colour and marker, so that a method looks the same in several pictures; None:
        its place among the lines.
    """

    label: str
    points: Sequence[tuple[int, float]]
    style: int | None = None


def methods_plot(lines: Sequence[MethodLine], path: str | Path, *, title: str) -> None:
    """Draw bytes (logarithmic) against perplexity, one line a method.

    Perplexities beyond one and a half times the best one stand in a strip at the upper edge, each
    with its number and joined to nothing: a collapsed model would squeeze all others together.

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
    cut = []
    for number, line in enumerate(lines):
        color, marker = _style(number if line.style is None else line.style)
        axes.plot(
            [size for size, _ in line.points],
            [value if value <= ceiling else math.nan for _, value in line.points],
            color=color,
            marker=marker,
            markersize=5,
            linewidth=1.2,
            label=line.label,
            zorder=3,
        )
        cut += [(size, value, color, marker) for size, value in line.points if value > ceiling]
    dress_axes(axes, title)
    sizes = [size for line in lines for size, _ in line.points]
    room = max(max(sizes) / min(sizes), 1.5) ** 0.06
    axes.set_xlim(min(sizes) / room, max(sizes) * room)
    margin = 0.06 * (ceiling - lowest) or 0.01 * lowest
    axes.set_ylim(lowest - margin, ceiling + margin)
    if cut:
        _strip(axes, cut, ceiling + margin)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return figure


def _strip(axes: Axes, cut: Sequence[tuple[int, float, str, str]], edge: float) -> None:
    """Put what is beyond the edge above it, in as many rows as keep the labels apart."""
    low, _ = axes.get_ylim()
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= edge]
    row_height = STRIP_ROW * (edge - low)
    ends: list[float] = []
    left, right = (math.log(limit) for limit in axes.get_xlim())
    for size, value, color, marker in sorted(cut):
        text = f"{value:.1f}" if value < 20 else f"{value:,.0f}"
        width = MARKER_WIDTH + DIGIT_WIDTH * len(text)
        place = (math.log(size) - left) / (right - left)
        row = next((row for row, end in enumerate(ends) if end < place), len(ends))
        ends[row : row + 1] = [place + width]
        height = edge + (row + 0.6) * row_height
        axes.plot([size], [height], color=color, marker=marker, markersize=5, zorder=3)
        axes.annotate(
            text,
            (size, height),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=color,
        )
    top = edge + (len(ends) + 0.2) * row_height
    axes.axhspan(edge, top, color=FAINT, alpha=0.5, linewidth=0, zorder=0)
    axes.text(
        0.995,
        top,
        "beyond the scale, with their perplexities ",
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="bottom",
        fontsize=7.5,
        color="#555555",
    )
    axes.set_yticks(ticks)
    axes.set_ylim(low, top)


def _style(number: int) -> tuple[str, str]:
    # A marker for each round of the colours, so that no two methods look alike.
    return COLORS[number % len(COLORS)], MARKERS[number // len(COLORS) % len(MARKERS)]
