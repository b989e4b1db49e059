"""What share of a file and of a token's time each part takes, small parts taken together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SMALLEST = 0.02
"""Parts below this share in every bar are one piece."""
MOST = 7
"""So many parts have a colour of their own; `REST` has the next one."""
REST = "everything else"


@dataclass(frozen=True)
class Piece:
    """A part of a bar.

    Attributes
    ----------
    name, kind : str
        Of the matrix and of how it is stored.
    amount : float
        Bytes or microseconds.
    share : float
        Of the bar, between 0 and 1.
    color : int
        The number of its colour; the same part has the same one in every bar.
    """

    name: str
    kind: str
    amount: float
    share: float
    color: int


@dataclass(frozen=True)
class Bar:
    """A whole: a file, or the time of a token.

    Attributes
    ----------
    title, unit : str
        Unit is "bytes" or "microseconds".
    total : float
    pieces : sequence of Piece
    """

    title: str
    unit: str
    total: float
    pieces: Sequence[Piece]


def group_parts(parts: Mapping[str, Any]) -> list[Bar]:
    """Return the bars of bytes and of time, before and after (without it where there is none).

    Parameters
    ----------
    parts : mapping
        `before` and `after` as in the results document of a search.
    """
    wholes = [("before", parts["before"])]
    if parts["after"] is not None:
        wholes.append(("after", parts["after"]))
    order = _order([whole for _, whole in wholes])
    bars = []
    for unit, title in (("bytes", "bytes"), ("microseconds", "time")):
        for when, whole in wholes:
            pieces = _pieces(whole, unit, order)
            total = whole[unit]
            bars.append(Bar(f"{title} {when}", unit, total, pieces))
    return bars


def _order(wholes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names that get a piece of their own, in the order of the file."""
    largest: dict[str, float] = {}
    for whole in wholes:
        for unit in ("bytes", "microseconds"):
            total = sum(part[unit] for part in whole["parts"]) or 1.0
            for part in whole["parts"]:
                share = part[unit] / total
                largest[part["name"]] = max(share, largest.get(part["name"], 0.0))
    kept = sorted(largest, key=lambda name: -largest[name])[:MOST]
    return [name for name in largest if name in kept and largest[name] >= SMALLEST]


def _pieces(whole: Mapping[str, Any], unit: str, order: Sequence[str]) -> list[Piece]:
    total = sum(part[unit] for part in whole["parts"]) or 1.0
    pieces = []
    for number, name in enumerate(order):
        same = [part for part in whole["parts"] if part["name"] == name]
        amount = sum(part[unit] for part in same)
        if same and amount > 0:
            pieces.append(Piece(name, same[0]["kind"], amount, amount / total, number))
    rest = [part for part in whole["parts"] if part["name"] not in order]
    amount = sum(part[unit] for part in rest)
    if amount > 0:
        names = ", ".join(part["name"] for part in rest)
        pieces.append(Piece(REST, names, amount, amount / total, MOST))
    return pieces
