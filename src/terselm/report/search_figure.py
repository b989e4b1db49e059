"""The front of a search as a plotly figure: every point answers to the mouse."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from terselm.report.search_plots import ceiling
from terselm.report.search_reading import (
    Values,
    change,
    factor,
    kind_of,
    marks,
    microseconds,
    recipe_line,
)
from terselm.report.sizes import human_bytes, human_number

SYMBOLS = {
    "source": "square",
    "preset": "triangle-up",
    "single method": "diamond",
    "searched": "circle",
    "trained after": "cross",
}
LIMIT = "#D55E00"
STEPS = (1, 2, 5)
HOVER_WIDTH = 44


def front_figure(results: Values) -> go.Figure:
    """Return bytes (logarithmic) against perplexity; colour is time, shape is kind.

    Perplexities above `search_plots.ceiling` are drawn in a band at the upper edge. Colours of
    text and grid are left to the page, which knows whether it is dark.

    Parameters
    ----------
    results : mapping
        The results document of a search.
    """
    top, lowest = ceiling(results), _lowest(results)
    step = (top - lowest) or 0.02 * lowest
    edge = top + 0.06 * step
    figure = go.Figure()
    figure.add_trace(_line(results, top, edge))
    for trace in _points(results, top, edge):
        figure.add_trace(trace)
    figure.add_trace(_rings(results, top, edge))
    sizes = [row["bytes"] for row in _rows(results)]
    limit = results["limits"]["size"]
    ends = [*sizes, limit] if limit is not None else sizes
    left, right = min(ends) / 1.25, max(ends) * 1.35
    figure.update_layout(
        xaxis={
            "type": "log",
            "range": [math.log10(left), math.log10(right)],
            "title": {"text": "bytes of the file (left is smaller)"},
            **_size_ticks(left, right),
        },
        yaxis={
            "range": [lowest - 0.12 * step, top + 0.13 * step],
            "title": {"text": "perplexity (down is better)"},
            "nticks": 8,
        },
        legend={"orientation": "h", "y": 1.05, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        hovermode="closest",
        hoverlabel={"align": "left"},
        margin={"l": 56, "r": 8, "t": 22, "b": 52},
        dragmode=False,
        shapes=_shapes(results, top, edge + 0.07 * step, right),
        annotations=[*_labels(results, top, edge), *_limit_labels(results)],
    )
    return figure


def _rows(results: Values) -> list[Values]:
    return [results["source"], *results["candidates"]]


def _lowest(results: Values) -> float:
    return min(
        (row["perplexity"] for row in _rows(results) if math.isfinite(row["perplexity"])),
        default=0.5,
    )


def _height(row: Values, top: float, edge: float) -> float:
    return row["perplexity"] if row["perplexity"] <= top else edge


def _line(results: Values, top: float, edge: float) -> go.Scatter:
    return go.Scatter(
        x=[each["bytes"] for each in results["front"]],
        y=[_height(each, top, edge) for each in results["front"]],
        mode="lines",
        name="the front",
        line={"width": 1.5},
        hoverinfo="skip",
        meta="front",
    )


def _points(results: Values, top: float, edge: float) -> list[go.Scatter]:
    rows = _rows(results)
    logarithms = [math.log10(max(row["microseconds_per_token"], 1e-3)) for row in rows]
    low, high = min(logarithms), max(logarithms)
    if high - low < 0.02:
        low, high = low - 0.1, high + 0.1
    traces: list[go.Scatter] = []
    for kind, symbol in SYMBOLS.items():
        group = [row for row in rows if kind_of(row) == kind]
        if not group:
            continue
        traces.append(
            go.Scatter(
                x=[row["bytes"] for row in group],
                y=[_height(row, top, edge) for row in group],
                mode="markers",
                name=kind,
                text=[_hover(results, row) for row in group],
                customdata=[row.get("number", -1) for row in group],
                hoverinfo="text",
                marker={
                    "symbol": symbol,
                    "size": 11 if symbol != "circle" else 10,
                    "color": [
                        math.log10(max(row["microseconds_per_token"], 1e-3)) for row in group
                    ],
                    "cmin": low,
                    "cmax": high,
                    "colorscale": "Cividis",
                    "line": {"width": 1},
                    "showscale": not traces,
                    "colorbar": {
                        "title": {"text": "µs a token", "side": "right"},
                        "thickness": 10,
                        "outlinewidth": 0,
                        **_time_ticks(low, high),
                    },
                },
            )
        )
    return traces


def _rings(results: Values, top: float, edge: float) -> go.Scatter:
    marked = marks(results)
    rows = [row for row in results["candidates"] if row["number"] in marked]
    return go.Scatter(
        x=[row["bytes"] for row in rows],
        y=[_height(row, top, edge) for row in rows],
        mode="markers",
        marker={"symbol": "circle-open", "size": 22, "color": LIMIT, "line": {"width": 2.5}},
        hoverinfo="skip",
        showlegend=False,
        meta="ring",
    )


def _hover(results: Values, row: Values) -> str:
    """Return the text of a point, escaped: plotly reads some tags."""
    source = results["source"]
    name = f"{row['number']}: {row['label']}" if "number" in row else f"source: {row['file']}"
    about = "≈ " if row["estimated_latency"] else ""
    lines = [
        *textwrap.wrap(name, HOVER_WIDTH),
        f"{human_bytes(row['bytes'])} ({factor('size', source['bytes'], row['bytes'])})",
        f"perplexity {human_number(row['perplexity'])} "
        f"({change(source['perplexity'], row['perplexity'])})",
        f"{about}{microseconds(row['microseconds_per_token'])} a token, "
        f"{human_bytes(row['memory'])} of memory",
    ]
    if not row["whole_text"]:
        lines.append(f"read on the first {row['tokens']:,} tokens only")
    if row.get("recipe"):
        lines += textwrap.wrap(recipe_line(row["recipe"]), HOVER_WIDTH)
    escaped = [html.escape(line, quote=False) for line in lines]
    return "<br>".join([f"<b>{escaped[0]}</b>", *escaped[1:]])


def _labels(results: Values, top: float, edge: float) -> list[dict[str, Any]]:
    marked = marks(results)
    named = [(results["source"], "source")]
    named += [
        (row, marked[row["number"]]) for row in results["candidates"] if row["number"] in marked
    ]
    return [
        {
            "x": math.log10(row["bytes"]),
            "y": _height(row, top, edge),
            "text": html.escape(word),
            "showarrow": False,
            "yshift": -21 if row["perplexity"] <= top else 20,
            "font": {"size": 13},
            "name": "label",
        }
        for row, word in named
    ]


def _limit_labels(results: Values) -> list[dict[str, Any]]:
    limits, found = results["limits"], []
    if limits["size"] is not None:
        place = {"x": math.log10(limits["size"]), "y": 1, "yref": "paper"}
        found.append({**place, "text": f"limit {human_bytes(limits['size'])}", "yanchor": "bottom"})
    if limits["perplexity"] is not None:
        place = {"x": 1, "xref": "paper", "y": limits["perplexity"], "xanchor": "right"}
        text = f"limit {human_number(limits['perplexity'])}"
        found.append({**place, "text": text, "yshift": 9})
    return [{**each, "showarrow": False, "font": {"size": 12}} for each in found]


def _shapes(results: Values, top: float, above: float, right: float) -> list[dict[str, Any]]:
    limits = results["limits"]
    shapes: list[dict[str, Any]] = []
    line = {"color": LIMIT, "width": 1.5}
    if limits["size"] is not None:
        area = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
        shapes.append({**area, "x0": limits["size"], "x1": 100 * right, "name": "beyond"})
        shapes.append({**area, "type": "line", "x0": limits["size"], "x1": limits["size"]})
        shapes[-1]["line"] = line
    if limits["perplexity"] is not None:
        area = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
        shapes.append({**area, "y0": limits["perplexity"], "y1": 100 * above, "name": "beyond"})
        shapes.append({**area, "type": "line", "y0": limits["perplexity"]})
        shapes[-1].update(y1=limits["perplexity"], line=line)
    if any(row["perplexity"] > top for row in _rows(results)):
        cut = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": top, "y1": top}
        shapes.append({**cut, "line": {"width": 1, "dash": "dot", "color": "#8A8A8A"}})
    return shapes


def _size_ticks(left: float, right: float) -> dict[str, Any]:
    places = _round_numbers(left, right)
    if len(places) > 7:
        places = [place for place in places if str(place)[0] != "2"]
    return {"tickvals": places, "ticktext": [_short(human_bytes(place)) for place in places]}


def _short(text: str) -> str:
    """Return "5 MB" for "5.00 MB"."""
    number, unit = text.split(" ")
    return f"{float(number.replace(',', '')):g} {unit}"


def _time_ticks(low: float, high: float) -> dict[str, Any]:
    places = _round_numbers(10**low, 10**high) or [10**low]
    texts = [f"{place:,.0f}" if place >= 10 else f"{place:g}" for place in places]
    return {"tickvals": [math.log10(place) for place in places], "ticktext": texts}


def _round_numbers(low: float, high: float) -> Sequence[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    numbers = [factor * 10.0**power for power in powers for factor in STEPS]
    return [number for number in numbers if low <= number <= high]
