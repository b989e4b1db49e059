"""What was aimed at for the C library, and what a run of runtime_speed.py measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terselm.report.table import Column, Table

DENSE, LOW_RANK = "LSTM 2×650", "LSTM 2×650, low rank 128"
OURS_8, OURS_4, OTHERS_8 = "terselm 8 bits", "terselm 4 bits", "onnxruntime 8 bits"


@dataclass(frozen=True)
class Mark:
    """A ratio of two figures that is to be at most, or at least, a number."""

    title: str
    found: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.found >= self.limit if self.at_least else self.found <= self.limit


def marks_of(sizes: Mapping[str, Any]) -> list[Mark]:
    """Return the marks for the sizes of a result file; those that were not measured are absent."""

    def times(size: str, engine: str, other_size: str = "", other: str = OTHERS_8) -> float | None:
        return _ratio(sizes, "microseconds", (size, engine), (other_size or size, other))

    def batch(engine: str) -> float | None:
        return _ratio(sizes, "tokens_per_second", (DENSE, engine), (DENSE, OTHERS_8))

    def floor(engine: str) -> float | None:
        found = sizes.get(DENSE, {}).get("engines", {}).get(engine, {}).get("profile", {})
        return found.get("times_floor")

    wanted = [
        ("8 bits, of onnxruntime 8 bits", times(DENSE, OURS_8), 0.55, False),
        (
            "8 bits by AVX2 alone, of onnxruntime 8 bits",
            times(DENSE, f"{OURS_8}, AVX2"),
            0.7,
            False,
        ),
        ("4 bits, of onnxruntime 8 bits", times(DENSE, OURS_4), 0.30, False),
        (
            "low rank 4 bits, of onnxruntime 8 bits on the dense model",
            times(LOW_RANK, OURS_4, DENSE),
            0.08,
            False,
        ),
        (
            "low rank 4 bits, of onnxruntime 8 bits on the same model",
            times(LOW_RANK, OURS_4),
            0.35,
            False,
        ),
        ("8 bits, of the floor", floor(OURS_8), 1.35, False),
        ("4 bits, of the floor", floor(OURS_4), 1.35, False),
        ("64 states, tokens a second, 8 bits, of onnxruntime 8 bits", batch(OURS_8), 1.0, True),
    ]
    return [
        Mark(title, found, limit, at_least)
        for title, found, limit, at_least in wanted
        if found is not None
    ]


def marks_table(sizes: Mapping[str, Any]) -> str:
    """Return the marks as a Markdown table."""
    rows = [
        (
            mark.title,
            f"{mark.found:.2f}",
            f"{'at least' if mark.at_least else 'at most'} {mark.limit:g}",
            "met" if mark.met else "missed",
        )
        for mark in marks_of(sizes)
    ]
    columns = [Column("LSTM 2×650", "left"), Column("found"), Column("aim"), Column("", "left")]
    return Table(columns, rows).markdown()


def _ratio(
    sizes: Mapping[str, Any], what: str, one: tuple[str, str], other: tuple[str, str]
) -> float | None:
    values = [
        sizes.get(size, {}).get("engines", {}).get(engine, {}).get(what)
        for size, engine in (one, other)
    ]
    return None if None in values else values[0] / values[1]
