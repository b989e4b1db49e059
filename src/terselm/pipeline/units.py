"""Sizes and times as people write them."""

from __future__ import annotations

import math
import re

from terselm.errors import UsageError

SIZES = {
    "b": 1,
    "kb": 1_000,
    "mb": 1_000_000,
    "gb": 1_000_000_000,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
TIMES = {"ns": 1e-3, "us": 1.0, "µs": 1.0, "μs": 1.0, "ms": 1e3, "s": 1e6}
DURATIONS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([^\d\s.]*)\s*")


def read_bytes(text: str, what: str) -> float:
    """Return bytes of "5MB" (5,000,000), "5MiB" (5,242,880) or "5000000".

    Raises
    ------
    UsageError
        The message begins with `what` and says what can be written.
    """
    return _read(text, what, {"": 1, **SIZES}, "5MB, 500kB, 5MiB or a number of bytes")


def read_microseconds(text: str, what: str) -> float:
    """Return microseconds of "200us" or "0.2ms"; a unit is needed.

    Raises
    ------
    UsageError
    """
    return _read(text, what, TIMES, "200us or 0.2ms")


def read_seconds(text: str, what: str) -> float:
    """Return seconds of "600", "90s", "10min" or "1.5h".

    Raises
    ------
    UsageError
    """
    return _read(text, what, {"": 1.0, **DURATIONS}, "600, 90s, 10min or 1.5h")


def _read(text: str, what: str, units: dict[str, float], examples: str) -> float:
    found = NUMBER.fullmatch(text)
    scale = units.get(found.group(2).lower()) if found else None
    if found is None or scale is None:
        raise UsageError(f"{what} is {text!r}; write {examples}")
    value = float(found.group(1)) * scale
    if not 0 < value < math.inf:
        raise UsageError(f"{what} is {text!r}; it must be more than nothing")
    return value
