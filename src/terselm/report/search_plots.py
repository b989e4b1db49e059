"""The results of a search as still pictures, for papers, READMEs and readers without scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from terselm.report.labels import place_labels
from terselm.report.plots import DOTS_PER_INCH, FAINT, FRONT, INK, dress_axes, write_figure
from terselm.report.search_reading import Values, kind_of, marks, microseconds, shown
from terselm.report.search_shares import group_parts
from terselm.report.sizes import human_bytes

ORANGE = "#D55E00"
MARKERS = {
    "source": "s",
    "preset": "^",
    "single method": "D",
    "searched": "o",
    "trained after": "P",
}
TALLEST_RATIO = 1.35
"""How far above the best perplexity the axis goes if nothing that matters lies higher."""
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#6B5B95", "#999999")
"""Okabe and Ito's, a violet, and grey for what is taken together."""


def ceiling(results: Values) -> float:
    """Return the perplexity above which points are drawn at the upper edge.

    The axis ends `TALLEST_RATIO` times above the best perplexity, or above the source, the limit
    and the candidate that the report is about: a collapsed model would squeeze all others.
    """
    values = [each["perplexity"] for each in (results["source"], *results["candidates"])]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 1.0
    needed = [results["source"]["perplexity"], results["limits"]["perplexity"] or 0.0]
    subject = shown(results)
    if subject is not None:
        needed.append(subject.candidate["perplexity"])
    top = max(
        TALLEST_RATIO * min(finite), *(1.05 * value for value in needed if math.isfinite(value))
    )
    return top if max(finite) > top else max(finite)


def front_picture(results: Values, path: Path) -> None:
    """Draw bytes against perplexity of everything that was tried; the front is a line."""
    write_figure(lambda: _front(results), path)


def parts_picture(results: Values, path: Path) -> None:
    """Draw where bytes and time go before and after, as stacked bars."""
    write_figure(lambda: _parts(results), path)


def sensitivity_picture(results: Values, path: Path) -> None:
    """Draw how far predictions move when one matrix is made coarse, a line for each matrix."""
    write_figure(lambda: _sensitivity(results), path)


def _new_figure(width: float, height: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _front(results: Values) -> Figure:
    figure = _new_figure(8.4, 5.2)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    rows = [results["source"], *results["candidates"]]
    top = ceiling(results)
    lowest = min((row["perplexity"] for row in rows if row["perplexity"] < math.inf), default=1.0)
    step = (top - lowest) or 0.02 * lowest
    edge = top + 0.05 * step
    drawn = _scatter(axes, rows, top, edge)
    heights = [min(each["perplexity"], edge) for each in results["front"]]
    axes.plot([each["bytes"] for each in results["front"]], heights, color=FRONT, alpha=0.6)
    axes.set_ylim(lowest - 0.12 * step, top + 0.14 * step)
    sizes = [row["bytes"] for row in rows]
    axes.set_xlim(min(sizes) / 1.35, max(sizes) * 1.6)
    _draw_limits(axes, results)
    title = f"{results['model']}: perplexity against size"
    if any(row["perplexity"] > top for row in rows):
        axes.axhline(top, color="#999999", linewidth=0.8, linestyle=(0, (1, 2)))
        title += f" (above {top:.0f}: at the edge)"
    dress_axes(axes, title)
    _draw_colors(figure, axes, drawn)
    _draw_legend(axes, rows)
    figure.draw_without_rendering()
    _label_special(figure, axes, results, edge)
    return figure


def _scatter(axes: Axes, rows: Sequence[Values], top: float, edge: float) -> Any:
    times = [max(row["microseconds_per_token"], 1e-3) for row in rows]
    low, high = min(times), max(times)
    norm = LogNorm(low, high if high > low else low * 1.01)
    drawn = None
    for kind, marker in MARKERS.items():
        group = [row for row in rows if kind_of(row) == kind]
        drawn = axes.scatter(
            [row["bytes"] for row in group],
            [row["perplexity"] if row["perplexity"] <= top else edge for row in group],
            c=[max(row["microseconds_per_token"], 1e-3) for row in group],
            norm=norm,
            cmap="cividis",
            marker=marker,
            s=44,
            edgecolor=INK,
            linewidth=0.7,
            zorder=3,
        )
    return drawn


def _draw_colors(figure: Figure, axes: Axes, drawn: Any) -> None:
    bar = figure.colorbar(drawn, ax=axes, pad=0.01, aspect=30)
    bar.ax.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.ax.tick_params(which="both", length=0, labelsize=8, colors="#555555")
    bar.outline.set_visible(False)
    bar.set_label("microseconds a token", color=INK)


def _draw_legend(axes: Axes, rows: Sequence[Values]) -> None:
    present = {kind_of(row) for row in rows}
    for kind, marker in MARKERS.items():
        if kind in present:
            style: dict[str, Any] = {"facecolor": "white", "edgecolor": INK, "marker": marker}
            axes.scatter([], [], label=kind, **style)
    axes.legend(loc="upper right", frameon=True, framealpha=0.9, edgecolor="none", fontsize=8)


def _draw_limits(axes: Axes, results: Values) -> None:
    limits = results["limits"]
    if limits["size"] is not None:
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, limits["size"] / 1.3), max(high, limits["size"] * 1.3))
        axes.axvspan(limits["size"], axes.get_xlim()[1], color=FAINT, alpha=0.5, zorder=0)
        axes.axvline(limits["size"], color=ORANGE, linewidth=1.2)
    if limits["perplexity"] is not None:
        axes.axhline(limits["perplexity"], color=ORANGE, linewidth=1.2)


def _label_special(figure: Figure, axes: Axes, results: Values, edge: float) -> None:
    marked = marks(results)
    named = [(results["source"], "source")]
    named += [
        (row, marked[row["number"]]) for row in results["candidates"] if row["number"] in marked
    ]
    places = [(float(row["bytes"]), min(row["perplexity"], edge)) for row, _ in named]
    axes.scatter(
        [x for x, _ in places[1:]],
        [y for _, y in places[1:]],
        s=190,
        facecolor="none",
        edgecolor=ORANGE,
        linewidth=1.8,
        zorder=4,
    )
    texts = [
        f"{word}\n{human_bytes(row['bytes'])} · {row['perplexity']:.2f}" for row, word in named
    ]
    line = [(float(each["bytes"]), min(each["perplexity"], edge)) for each in results["front"]]
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    place_labels(canvas, axes, places, texts, [INK] * len(places), [line])


def _parts(results: Values) -> Figure:
    figure = _new_figure(8.4, 3.9)
    axes = figure.add_subplot()
    bars = group_parts(results["parts"])
    names = {piece.name: piece.color for bar in bars for piece in bar.pieces}
    for place, bar in enumerate(bars):
        start = 0.0
        for piece in bar.pieces:
            drawn = axes.barh(-place, piece.share, left=start, color=COLORS[piece.color])
            drawn.patches[0].set(edgecolor="white", height=0.62, y=-place - 0.31)
            start += piece.share
        total = human_bytes(bar.total) if bar.unit == "bytes" else microseconds(bar.total)
        axes.text(1.015, -place, total, va="center", fontsize=9, color=INK)
    axes.set_yticks([-place for place in range(len(bars))], [bar.title for bar in bars])
    axes.set_xlim(0, 1.14)
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for name, color in names.items():
        axes.barh(0, 0, color=COLORS[color], label=_safe(name))
    legend = axes.legend(
        loc="upper center", bbox_to_anchor=(0.45, -0.02), ncols=4, frameon=False, fontsize=8
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    heading = axes.set_title("Where the bytes and the time go", loc="left", pad=10)
    heading.set(color=INK, fontsize=12, fontweight="bold")
    return figure


def _sensitivity(results: Values) -> Figure:
    figure = _new_figure(8.4, 4.2)
    weights = results["sensitivity"]["weights"]
    panels = (
        ("bits", "bits", "bits of a weight"),
        ("ranks", "share", "parameters left by low rank, of all"),
    )
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, (key, across, label) in zip((left, right), panels, strict=True):
        for number, weight in enumerate(weights):
            points = [
                (point[across], point["divergence"])
                for point in weight[key]
                if 0 < point["divergence"] < math.inf
            ]
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                color=COLORS[number % len(COLORS)],
                marker="os^Dv"[(number // len(COLORS)) % 5],
                markersize=4.5,
                linewidth=1.2,
                label=_safe(weight["name"]),
            )
        axes.set_yscale("log")
        axes.set_xlabel(label, color=INK)
        axes.grid(True, color=FAINT, linewidth=0.8)
        axes.tick_params(which="both", length=0, labelsize=9, colors="#555555")
        axes.yaxis.set_minor_formatter(NullFormatter())
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    left.set_ylabel("divergence, nats a token (down is better)", color=INK)
    heading = left.set_title("How much each matrix matters", loc="left", pad=10)
    heading.set(color=INK, fontsize=12, fontweight="bold")
    if weights:
        legend = right.legend(
            loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    else:
        left.text(0.5, 0.5, "not measured", transform=left.transAxes, ha="center")
    return figure


def _safe(name: str) -> str:
    # matplotlib leaves out of the legend what begins with an underscore.
    text = name if len(name) <= 40 else name[:39] + "…"
    return " " + text if text.startswith("_") else text
