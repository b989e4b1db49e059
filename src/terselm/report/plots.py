"""Pictures of measurements."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from terselm.errors import UsageError
from terselm.files import write_bytes
from terselm.report.labels import place_labels
from terselm.report.sizes import human_bytes

FRONT = "#0072B2"
"""Blue of Okabe and Ito's palette, which colour-blind readers tell from the grey."""
BEATEN = "#8C8C8C"
INK = "#222222"
FAINT = "#E3E3E3"
INCHES = (7.2, 4.5)
DOTS_PER_INCH = 160
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.unicode_minus": False,
    "svg.hashsalt": "terselm",
    "svg.fonttype": "path",
}
SUFFIXES = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}
"""What each format would say about when and with what it was made."""


@dataclass(frozen=True)
class FrontierPoint:
    """A model in the picture.

    Attributes
    ----------
    label : str
    bytes : int
        Of its file.
    perplexity : float
    """

    label: str
    bytes: int
    perplexity: float


def frontier_plot(
    points: Sequence[FrontierPoint],
    path: str | Path,
    *,
    title: str = "Perplexity against size",
) -> None:
    """Draw bytes (logarithmic) against perplexity, the best models for their size joined.

    The same points give the same file, byte for byte, with the same version of matplotlib.

    Parameters
    ----------
    points : sequence of FrontierPoint
    path : str or Path
        Ends in .png or .svg; written whole or not at all.
    title : str

    Raises
    ------
    UsageError
        If there is no point, a number cannot be drawn, or the suffix is another one.
    TerselmError
        If the file cannot be written.
    """
    path = Path(path)
    if not points:
        raise UsageError("no points to draw")
    for point in points:
        if point.bytes <= 0 or not math.isfinite(point.perplexity):
            raise UsageError(
                f"{point.label!r} cannot be drawn: "
                f"{point.bytes} bytes, perplexity {point.perplexity}"
            )
    write_figure(lambda: _draw(points, title), path)


def write_figure(draw: Callable[[], Figure], path: Path) -> None:
    """Draw in terselm's style and write the picture, whole or not at all.

    Parameters
    ----------
    draw : callable
        Returns the figure; called with the style set.
    path : Path
        Ends in .png or .svg.

    Raises
    ------
    UsageError
        If the suffix is another one.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"cannot draw {path.name}; its name must end in .png or .svg")
    with rc_context(STYLE):
        data = io.BytesIO()
        draw().savefig(data, format=suffix[1:], dpi=DOTS_PER_INCH, metadata=SUFFIXES[suffix])
    write_bytes(path, data.getvalue())


def pareto_front(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """Return the points that no other beats, smallest first.

    A point is beaten by one that is no larger and no worse, and better in one of the two.
    """
    front: list[FrontierPoint] = []
    for point in sorted(points, key=lambda point: (point.bytes, point.perplexity)):
        same = front and (point.bytes, point.perplexity) == (front[-1].bytes, front[-1].perplexity)
        if not front or same or point.perplexity < front[-1].perplexity:
            front.append(point)
    return front


def _draw(points: Sequence[FrontierPoint], title: str) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout=layout, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    front = pareto_front(points)
    beaten = [point for point in points if point not in front]
    axes.set_xscale("log")
    _scatter(axes, beaten, BEATEN, "white")
    _scatter(axes, front, FRONT, FRONT)
    axes.plot(
        [point.bytes for point in front],
        [point.perplexity for point in front],
        color=FRONT,
        linewidth=1.4,
        alpha=0.55,
        zorder=2,
    )
    _dress(axes, points, title)
    figure.draw_without_rendering()
    colors = [FRONT if point in front else "#5F5F5F" for point in points]
    texts = [
        f"{point.label}\n{human_bytes(point.bytes)} · {point.perplexity:.1f}" for point in points
    ]
    places = [(float(point.bytes), point.perplexity) for point in points]
    line = [(float(point.bytes), point.perplexity) for point in front]
    place_labels(canvas, axes, places, texts, colors, [line])
    return figure


def _scatter(axes: Axes, points: Sequence[FrontierPoint], edge: str, face: str) -> None:
    axes.scatter(
        [point.bytes for point in points],
        [point.perplexity for point in points],
        s=46,
        facecolor=face,
        edgecolor=edge,
        linewidth=1.6,
        zorder=3,
    )


def _dress(axes: Axes, points: Sequence[FrontierPoint], title: str) -> None:
    axes.set_xlim(*_size_limits([point.bytes for point in points]))
    axes.set_ylim(*_perplexity_limits([point.perplexity for point in points]))
    dress_axes(axes, title)


def dress_axes(axes: Axes, title: str) -> None:
    """Give bytes-against-perplexity axes their ticks, grid, labels and title."""
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#AAAAAA")
    axes.tick_params(length=0, colors="#555555", labelsize=9)
    axes.set_xlabel("bytes of the file (left is smaller)", color=INK)
    axes.set_ylabel("perplexity (down is better)", color=INK)
    heading = axes.set_title(title, loc="left", pad=12)
    heading.set(color=INK, fontsize=12, fontweight="bold", parse_math=False)


def _size_limits(sizes: Sequence[int]) -> tuple[float, float]:
    """Return limits with room for labels, at least a factor of four apart."""
    low, high = math.log(min(sizes)), math.log(max(sizes))
    margin = max(0.16 * (high - low), (math.log(4) - (high - low)) / 2, 0.1)
    return math.exp(low - margin), math.exp(high + margin)


def _perplexity_limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = max(0.18 * (high - low), 0.005 * abs(high), 1e-6)
    return low - margin, high + margin


def _tick(value: float, position: int | None = None) -> str:
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:g} {unit}"
    return f"{value:g} B"
