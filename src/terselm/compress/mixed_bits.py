"""Sharing out a budget of bytes over matrices, apart from models and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from terselm.errors import UsageError

ALIGNMENT = 64
HELD_BACK = 1024
"""Bytes of the budget that are left for recipe and perplexity, which go into the file later."""
CELLS = 2**18
"""Steps of the budget at most; a larger budget is counted in larger units."""


@dataclass(frozen=True)
class Choice:
    """One way to store one matrix.

    Attributes
    ----------
    bytes : int
        In the file.
    loss : float
        What it costs; losses of different matrices are added.
    """

    bytes: int
    loss: float


def allocate(choices: Mapping[str, list[Choice]], budget: int) -> dict[str, int]:
    """Choose for each matrix so that the losses add up to least within the budget.

    Exact by dynamic programming over bytes, counted in units of 64 (larger ones, rounded up,
    where the budget is above 16 MB).

    Parameters
    ----------
    choices : mapping of str to list of Choice
        By matrix, at least one each.
    budget : int
        Bytes that all matrices together may have.

    Returns
    -------
    dict of str to int
        By matrix, the place of its choice in its list.

    Raises
    ------
    UsageError
        If even the smallest choices do not fit; the message names their bytes.
    """
    least = sum(min(choice.bytes for choice in of_one) for of_one in choices.values())
    if least > budget:
        raise UsageError(f"{budget:,} bytes are too few for the weights; the nearest is {least:,}")
    most = sum(max(choice.bytes for choice in of_one) for of_one in choices.values())
    unit = max(ALIGNMENT, -(-min(budget, most) // CELLS))
    cells = min(budget, most + unit * len(choices)) // unit
    best = np.zeros(cells + 1)  # least loss so far with at most this many units
    taken = []
    for of_one in choices.values():
        losses = np.full((len(of_one), cells + 1), np.inf)
        for place, choice in enumerate(of_one):
            size = -(-choice.bytes // unit)
            if size <= cells:
                losses[place, size:] = best[: cells + 1 - size] + choice.loss
        taken.append(losses.argmin(axis=0))
        best = losses.min(axis=0)
    if not np.isfinite(best[-1]):
        # Rounded up to units the smallest choices do not fit, in bytes they do.
        return {name: smallest_of(of_one) for name, of_one in choices.items()}
    chosen: dict[str, int] = {}
    left = cells
    for (name, of_one), places in zip(
        reversed(list(choices.items())), reversed(taken), strict=True
    ):
        chosen[name] = int(places[left])
        left -= -(-of_one[chosen[name]].bytes // unit)
    return {name: chosen[name] for name in choices}


def smallest_of(of_one: list[Choice]) -> int:
    """Return the place of the choice with the fewest bytes."""
    return min(range(len(of_one)), key=lambda place: of_one[place].bytes)


def noise_to_signal(weight: Tensor, approximation: Tensor, second_moment: Tensor | None) -> float:
    """Return the mean square of (W - Ŵ) x over that of W x.

    Parameters
    ----------
    weight, approximation : Tensor
        float [out, in].
    second_moment : Tensor or None
        float64 [in, in], the mean of x xᵀ; None takes all columns as equal and independent.
    """
    parts = []
    for matrix in (weight.double() - approximation.double(), weight.double()):
        seen = matrix if second_moment is None else matrix @ second_moment
        parts.append(float((seen * matrix).sum()))
    return parts[0] / parts[1] if parts[1] > 0 else 0.0
