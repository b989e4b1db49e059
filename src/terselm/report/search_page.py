"""What the page of a search shows beside the results themselves: tiles, shades, footnotes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from terselm.report import search_reading as reading
from terselm.report.search_plots import ceiling
from terselm.report.search_shares import group_parts
from terselm.report.sizes import told_apart

Values = Mapping[str, Any]

TITLES = {
    "size": "size of the file",
    "perplexity": "perplexity",
    "latency": "time of a token",
    "memory": "memory",
}


@dataclass(frozen=True)
class Tile:
    """One of the four figures at the head of the page.

    Attributes
    ----------
    title, before, after, factor : str
        `after` and `factor` are empty where nothing was found.
    note : str
        The limit, the interval, or nothing.
    kept : bool or None
        Whether the limit is kept; None where there is none.
    """

    title: str
    before: str
    after: str
    factor: str
    note: str
    kept: bool | None


@dataclass(frozen=True)
class Cell:
    """A cell of the table of sensitivities: text, how strong its colour is (0 to 1), more text."""

    text: str
    shade: float
    about: str = ""


@dataclass(frozen=True)
class Panel:
    """A table of sensitivities: a row for each matrix."""

    title: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]


def page_values(results: Values) -> dict[str, Any]:
    """Return the names that the template uses, but for `results` and the figures."""
    subject = reading.shown(results)
    return {
        "subject": subject.candidate if subject else None,
        "role": subject.role if subject else "",
        "tiles": tiles(results),
        "marks": reading.marks(results),
        "kinds": sorted({reading.kind_of(each) for each in results["candidates"]}),
        "kind_of": reading.kind_of,
        "keeps_limits": reading.keeps_limits,
        "on_front": {each["number"] for each in results["front"]},
        "times": reading.times,
        "factor": reading.factor,
        "readings": reading.readings(results),
        "change": reading.change,
        "find": reading.find,
        "answers": answers(results),
        "bars": group_parts(results["parts"]),
        "legend": legend(results["parts"]),
        "parts": part_rows(results["parts"]),
        "panels": panels(results["sensitivity"]),
        "clipped": clipped(results),
        "ceiling": ceiling(results),
        "limits": limit_lines(results),
        "estimated": any(
            each["estimated_latency"] for each in (results["source"], *results["candidates"])
        ),
        "data": reading.data_name(results),
        "partial": sum(not each["whole_text"] for each in results["candidates"]),
    }


def tiles(results: Values) -> list[Tile]:
    """Return size, perplexity, time and memory, before and after."""
    subject = reading.shown(results)
    after = subject.candidate if subject else None
    return [_tile(results, name, title, after) for name, title in TITLES.items()]


def _tile(results: Values, name: str, title: str, after: Values | None) -> Tile:
    source, key, limit = results["source"], reading.KEYS[name], results["limits"][name]
    factor, note, kept, shown = "", "", None, ""
    allowed = "" if limit is None else reading.amount(name, limit)
    if after is not None:
        factor = reading.factor(name, source[key], after[key])
        shown = reading.amount(name, after[key])
        if name == "perplexity":
            note = f"95 %: {reading.interval(after, 1)}" if after["ci95"] else "no interval"
        kept = None if limit is None else after[key] <= limit
        if kept is False:
            write = partial(reading.amount, name)
            shown, allowed = told_apart(after[key], limit, write)
    if limit is not None:
        text = f"at most {allowed}"
        note = f"{text} · {note}" if note else text
    if name == "latency" and source["estimated_latency"]:
        note = f"{note} · estimated" if note else "estimated"
    return Tile(title, reading.amount(name, source[key]), shown, factor, note, kept)


def answers(results: Values) -> list[tuple[str, Values]]:
    """Return the three answers to no budget, as far as there are any."""
    numbers = results.get("answers") or {}
    found = [(words, reading.find(results, numbers.get(name))) for name, words in _names()]
    return [(words, candidate) for words, candidate in found if candidate is not None]


def _names() -> list[tuple[str, str]]:
    return list(reading.ANSWERS.items())


def clipped(results: Values) -> int:
    """Return how many points lie above the axis."""
    top = ceiling(results)
    return sum(each["perplexity"] > top for each in (results["source"], *results["candidates"]))


def limit_lines(results: Values) -> list[str]:
    """Return the budget in words, as it was written and in numbers."""
    budget = results["budget"] or {}
    lines = []
    for name in reading.LIMITS:
        limit, written = results["limits"][name], budget.get(f"max_{name}")
        if limit is not None:
            text = reading.amount(name, limit)
            as_written = f" ({written})" if written and "%" in str(written) else ""
            lines.append(f"{name} at most {text}{as_written}")
    return lines


def legend(parts: Values) -> list[tuple[str, int]]:
    """Return the names and colours of the pieces, each once."""
    pieces = [piece for bar in group_parts(parts) for piece in bar.pieces]
    return sorted({(piece.name, piece.color) for piece in pieces}, key=lambda each: each[1])


def part_rows(parts: Values) -> list[dict[str, Any]]:
    """Return a row for each part: what it was and what it is; None where it is missing."""
    before = {part["name"]: part for part in parts["before"]["parts"]}
    after = {part["name"]: part for part in (parts["after"] or {"parts": []})["parts"]}
    names = list(dict.fromkeys([*before, *after]))
    return [{"name": name, "before": before.get(name), "after": after.get(name)} for name in names]


def panels(sensitivity: Values) -> list[Panel]:
    """Return the two tables of sensitivities, shaded by the logarithm of the divergence."""
    weights = sensitivity["weights"]
    values = [
        point["divergence"]
        for weight in weights
        for point in (*weight["bits"], *weight["ranks"])
        if 0 < point["divergence"] < math.inf
    ]
    scale = (math.log(min(values)), math.log(max(values))) if values else (0.0, 1.0)
    found = []
    for key, title, name in (("bits", "fewer bits", _bits), ("ranks", "lower rank", _share)):
        heads = sorted({name(point) for weight in weights for point in weight[key]}, reverse=True)
        if heads:
            rows = [(weight["name"], _cells(weight[key], name, heads, scale)) for weight in weights]
            found.append(Panel(title, [text for _, text in heads], rows))
    return found


def _bits(point: Values) -> tuple[float, str]:
    return float(point["bits"]), f"{point['bits']} bits"


def _share(point: Values) -> tuple[float, str]:
    # Ranks are whole numbers, so the same share is a little different for every shape.
    share = max(5, 5 * round(20 * point["share"]))
    return float(share), f"{share} %"


def _cells(
    points: Sequence[Values], name: Any, heads: Sequence[Any], scale: tuple[float, float]
) -> list[Cell]:
    found = {name(point): point for point in points}
    return [_cell(found.get(head), scale) for head in heads]


def _cell(point: Values | None, scale: tuple[float, float]) -> Cell:
    if point is None or not math.isfinite(point["divergence"]):
        return Cell("–", 0.0)
    divergence, (low, high) = point["divergence"], scale
    about = f"groups of {point['group']}" if "bits" in point else f"rank {point['rank']}"
    if divergence <= 0 or high <= low:
        return Cell(f"{divergence:.2g}", 0.0, about)
    text = f"{divergence:.2g}" if divergence >= 1e-4 else f"{divergence:.0e}"
    shade = (math.log(divergence) - low) / (high - low)
    return Cell(text, min(1.0, max(0.0, shade)), about)
