"""What the results of a search say, in words: the one reading of them that all outputs share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from terselm.report.sizes import MILLION, human_bytes, human_number

Values = Mapping[str, Any]

ANSWERS = {
    "closest": "closest to the source",
    "balanced": "balanced",
    "smallest": "smallest",
}
KINDS = {
    "source": "source",
    "preset": "preset",
    "single": "single method",
    "planned": "searched",
    "sampled": "searched",
    "check": "searched",
    "recovered": "trained after",
}
"""What a reader of the report tells apart, by the origin of a candidate."""
LIMITS = ("size", "latency", "memory", "perplexity")
KEYS = {
    "size": "bytes",
    "latency": "microseconds_per_token",
    "memory": "memory",
    "perplexity": "perplexity",
}
"""The limits and what they limit in a measurement."""


@dataclass(frozen=True)
class Shown:
    """The candidate that a report is about.

    Attributes
    ----------
    candidate : mapping
    role : str
        "chosen", "nearest" or one of the three answers to no budget.
    """

    candidate: Values
    role: str


def shown(results: Values) -> Shown | None:
    """Return the candidate to put first: the chosen one, the first answer, or the nearest.

    Parts, test text and agreement are those of the chosen one or of the first answer.
    """
    choices = [("chosen", results["chosen"])]
    choices += list((results.get("answers") or {}).items())
    choices.append(("nearest", results["nearest"]))
    for role, number in choices:
        candidate = find(results, number)
        if candidate is not None:
            return Shown(candidate, role)
    return None


def is_measured_further(results: Values, number: int) -> bool:
    """Return whether test text and agreement were measured on the candidate of that number."""
    subject = shown(results)
    return (
        subject is not None and subject.role != "nearest" and subject.candidate["number"] == number
    )


def data_name(results: Values) -> str:
    """Return the name of the text without the folders that it lies in."""
    return PurePath(str(results["data"])).name or str(results["data"])


def find(results: Values, number: int | None) -> Values | None:
    """Return the candidate of that number; None where there is none."""
    if number is None:
        return None
    return next((each for each in results["candidates"] if each["number"] == number), None)


def marks(results: Values) -> dict[int, str]:
    """Return the words that stand beside some candidates: "chosen", "smallest", ..."""
    found: dict[int, list[str]] = {}
    named = [("chosen", results["chosen"]), ("nearest", results["nearest"])]
    named += list((results.get("answers") or {}).items())
    for word, number in named:
        if number is not None:
            found.setdefault(number, []).append(word)
    return {number: ", ".join(words) for number, words in found.items()}


def kind_of(candidate: Values) -> str:
    """Return what sort of candidate it is, one of the values of `KINDS`."""
    return KINDS.get(candidate.get("origin", "source"), "searched")


def keeps_limits(results: Values, measured: Values) -> bool:
    """Return whether a measurement keeps every limit of the budget."""
    limits = results["limits"]
    return all(limits[name] is None or measured[KEYS[name]] <= limits[name] for name in LIMITS)


def step_line(step: Values) -> str:
    """Return a step of a recipe as one phrase: "low_rank on cells.*: rank 0.4"."""
    options = []
    for name, value in step.items():
        if name in {"method", "weights"} or value is False or value is None:
            continue
        words = name.replace("_", " ")
        options.append(words if value is True else f"{words} {_plain(value)}")
    text = str(step["method"])
    if step.get("weights") not in {None, "*"}:
        text += f" on {_plain(step['weights'])}"
    return text + (": " + ", ".join(options) if options else "")


def recipe_line(recipe: Sequence[Values]) -> str:
    """Return a recipe as one line, its steps joined by arrows."""
    return " → ".join(step_line(step) for step in recipe) or "as it is"


def recipe_yaml(recipe: Sequence[Values]) -> str:
    """Return a recipe as a file that `terselm compress --recipe` reads."""
    return "".join(
        yaml.safe_dump(
            [dict(step)], default_flow_style=None, sort_keys=False, allow_unicode=True, width=4096
        )
        for step in recipe
    )


def interval(measured: Values, digits: int = 2) -> str:
    """Return the 95 % interval of a perplexity, "101.2 to 119.9"; a dash where there is none."""
    ends = measured.get("ci95")
    return "–" if ends is None else " to ".join(human_number(end, digits) for end in ends)


def change(before: float, after: float) -> str:
    """Return how much more `after` is, in percent with a sign."""
    if not (math.isfinite(before) and math.isfinite(after)) or before == 0:
        return "–"
    percent = 100 * (after / before - 1)
    text = f"{percent:+,.1f}" if percent < MILLION else f"{percent:+.3g}"
    return f"{text} %".replace("-", "−")


def times(before: float, after: float) -> str:
    """Return how many times smaller `after` is: "16.7 ×"."""
    factor = before / after if after else math.inf
    if not math.isfinite(factor):
        return "–"
    return f"{factor:,.2f} ×" if factor < 9.995 else f"{factor:,.1f} ×"


def factor(name: str, before: float, after: float) -> str:
    """Return what became of one of `LIMITS`: "16.7 × smaller", "1.20 × slower", "+3.0 %"."""
    if name == "perplexity":
        return change(before, after)
    if after > before:
        return f"{times(after, before)} {'slower' if name == 'latency' else 'larger'}"
    return f"{times(before, after)} {'faster' if name == 'latency' else 'smaller'}"


def microseconds(value: float, more: int = 0) -> str:
    """Return a time in microseconds with three or four digits, or so many more."""
    return f"{value:,.{more + 1}f} µs" if value < 99.95 else f"{value:,.{more}f} µs"


def seconds(value: float) -> str:
    """Return a span of time: "48 s", "55 min", "2 h 05 min"."""
    if value < 120:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def amount(name: str, value: float, more: int = 0) -> str:
    """Return what one of `LIMITS` limits, or the limit, with its unit and so many more digits."""
    if name == "latency":
        return microseconds(value, more)
    if name == "perplexity":
        return human_number(value, 2 + more)
    return human_bytes(value, more)


def readings(results: Values) -> str:
    """Return how often the test text was read: "once", "3 times"; "" where that is not known."""
    count = (results["test"] or {}).get("readings")
    return "" if count is None else "once" if count == 1 else f"{count} times"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_plain(each)}" for name, each in value.items()) + ")"
    if isinstance(value, list | tuple):
        return " ".join(_plain(each) for each in value)
    return str(value)
