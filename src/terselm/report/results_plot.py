"""A picture of measured models beside published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from terselm.errors import UsageError
from terselm.report.labels import place_labels
from terselm.report.plots import (
    BEATEN,
    DOTS_PER_INCH,
    FRONT,
    INCHES,
    FrontierPoint,
    dress_axes,
    pareto_front,
    write_figure,
)

COLORS = (FRONT, BEATEN, "#D55E00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True)
class Series:
    """Models that belong together.

    Attributes
    ----------
    name : str
        For the legend.
    points : sequence of FrontierPoint
    joined : bool
        Whether a line joins the best for their size.
    named : sequence of FrontierPoint
        Those of the points whose labels are written beside them.
    """

    name: str
    points: Sequence[FrontierPoint]
    joined: bool = False
    named: Sequence[FrontierPoint] = ()


def results_plot(series: Sequence[Series], path: Path, *, title: str) -> None:
    """Draw bytes (logarithmic) against perplexity, each series in its own colour and marker.

    Parameters
    ----------
    series : sequence of Series
        The first stands out.
    path : Path
        Ends in .png or .svg; written whole or not at all.
    title : str

    Raises
    ------
    UsageError
        If there is no point, there are more series than colours, or the suffix is another one.
    """
    drawn = [each for each in series if each.points]
    if not drawn:
        raise UsageError("no points to draw")
    if len(drawn) > len(COLORS):
        raise UsageError(f"{len(drawn)} series; a picture holds {len(COLORS)}")
    write_figure(lambda: _draw(drawn, title), path)


def _draw(series: Sequence[Series], title: str) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout=layout, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    lines = []
    for number, each in enumerate(series):
        axes.scatter(
            [point.bytes for point in each.points],
            [point.perplexity for point in each.points],
            s=42,
            marker=MARKERS[number],
            facecolor=COLORS[number] if number == 0 else "white",
            edgecolor=COLORS[number],
            linewidth=1.6,
            label=each.name,
            zorder=3 + (number == 0),
        )
        if each.joined:
            line = [(float(p.bytes), p.perplexity) for p in pareto_front(each.points)]
            lines.append(line)
            axes.plot(
                *zip(*line, strict=True),
                color=COLORS[number],
                linewidth=1.4,
                alpha=0.55,
                zorder=2,
            )
    dress_axes(axes, title)
    # Below the axes, where no point can lie.
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4, fontsize=9)
    figure.draw_without_rendering()
    places, texts, colors = [], [], []
    for number, each in enumerate(series):
        for point in each.points:
            places.append((float(point.bytes), point.perplexity))
            texts.append(point.label if point in each.named else "")
            colors.append(COLORS[number])
    place_labels(canvas, axes, places, texts, colors, lines)
    return figure
