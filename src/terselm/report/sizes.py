"""Numbers the way people read them."""

from __future__ import annotations

import math
from collections.abc import Callable

UNITS = ((1e3, "B"), (1e6, "kB"), (1e9, "MB"), (1e12, "GB"))
MILLION = 1e6
MORE_DIGITS = 17
"""A float64 has no more."""


def human_bytes(count: float, more: int = 0) -> str:
    """Return a size with a decimal unit and three digits or so many more: "4.65 MB", "96 B"."""
    for limit, unit in UNITS:
        value = count / (limit / 1e3)
        # 999.6 kB would round to 1000 kB; it is 1.00 MB.
        if value < 999.5 or unit == "GB":
            break
    if unit == "B":
        return f"{count:.{more}f} B"
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits + more}f} {unit}"


def human_count(count: float) -> str:
    """Return a count with three digits: "6.50 M", "9.75 k", "60"."""
    text = human_bytes(count)
    return text.removesuffix("B").rstrip().replace("G", "billion")


def human_share(share: float) -> str:
    """Return a fraction as a percentage: "37.4 %"; "0 %" where there is nothing."""
    return "0 %" if share == 0 else f"{100 * share:.1f} %"


def human_shape(shape: tuple[int, ...]) -> str:
    """Return a shape: "800×200"."""
    return "×".join(str(size) for size in shape)


def human_number(value: float | None, digits: int = 2) -> str:
    """Return a number with a fixed count of digits after the point; a dash for None.

    What is beyond a million, as the perplexity of a broken model, is given to three figures, or
    to one more than that count.
    """
    if value is None:
        return "–"
    if MILLION <= abs(value) < math.inf:
        return f"{value:.{max(3, digits + 1)}g}"
    return f"{value:,.{digits}f}" if math.isfinite(value) else "not finite"


def told_apart(one: float, other: float, text: Callable[[float, int], str]) -> tuple[str, str]:
    """Return two numbers as text, with so many more digits that different ones look different.

    Parameters
    ----------
    one, other : float
    text : callable
        Given a number and how many more digits than usual it is to have.
    """
    for more in range(MORE_DIGITS):
        found = text(one, more), text(other, more)
        if found[0] != found[1]:
            return found
    return text(one, 0), text(other, 0)
