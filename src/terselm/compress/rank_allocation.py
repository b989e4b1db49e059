"""Ranks for many matrices under one budget, apart from models and files."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A matrix whose rank is to be chosen.

    Attributes
    ----------
    gains : sequence of float
        What each rank saves of the loss, the first one first; falling. For a plain singular
        value decomposition the squares of the singular values.
    cost : int
        What one rank costs, in the unit of the budget: out + in numbers, or their bytes.
    dense_cost : int
        What the matrix costs as it is, which saves the whole loss.
    """

    gains: Sequence[float]
    cost: int
    dense_cost: int

    @property
    def ranks(self) -> int:
        """The most ranks that cost less than the matrix as it is; at least 1."""
        return max(1, min(len(self.gains), (self.dense_cost - 1) // self.cost))


def measured_gains(errors: Sequence[float], probes: Mapping[int, float]) -> list[float]:
    """Return what each rank saves of a loss that was measured at a few ranks only.

    The loss is taken to be a piecewise linear function of the error through the measured points
    and zero: errors of the same matrix in other directions are not felt alike.

    Parameters
    ----------
    errors : sequence of float
        The error that remains at rank 0, 1, 2, ...; falling, the last is (nearly) zero.
    probes : mapping of int to float
        The measured loss by rank.

    Returns
    -------
    list of float
        One number a rank, the first for rank 1; none below zero.
    """
    points = sorted({(0.0, 0.0), *((errors[rank], loss) for rank, loss in probes.items())})
    for number in range(1, len(points)):  # what noise turned around
        error, loss = points[number]
        points[number] = error, max(loss, points[number - 1][1])
    losses = [_interpolated(error, points) for error in errors]
    return [max(0.0, before - after) for before, after in itertools.pairwise(losses)]


def _interpolated(error: float, points: Sequence[tuple[float, float]]) -> float:
    """Return the loss at an error, beyond the last point along the last piece."""
    for (left, low), (right, high) in itertools.pairwise(points):
        last = (right, high) == points[-1]
        if (error <= right or last) and right > left:
            return low + (high - low) * (error - left) / (right - left)
    return 0.0


def smallest_cost(candidates: Mapping[str, Candidate]) -> int:
    """Return what it costs to give every matrix rank 1, or to keep it where that is less."""
    return sum(min(matrix.cost, matrix.dense_cost) for matrix in candidates.values())


def allocate(candidates: Mapping[str, Candidate], budget: int) -> dict[str, int | None]:
    """Spend a budget on the ranks that save most for what they cost.

    Every matrix begins with rank 1. Then the step with the greatest gain for its cost is taken,
    over and over, where a step is the next rank of a matrix, or all of it at once (kept as it
    is) where that gains more for its cost than ranks do. This is the exact optimum of the
    Lagrangian relaxation, short of it by less than one step (Shoham & Gersho 1988).

    Parameters
    ----------
    candidates : mapping of str to Candidate
    budget : int
        At least `smallest_cost(candidates)`.

    Returns
    -------
    dict of str to int or None
        The rank of every matrix; None where it is kept as it is.

    Raises
    ------
    ValueError
        If the budget is too small.
    """
    least = smallest_cost(candidates)
    if budget < least:
        raise ValueError(f"budget {budget} is less than the least possible, {least}")
    chosen: dict[str, int | None] = {}
    queue: list[tuple[float, str, bool]] = []
    left = budget - least
    for name, matrix in candidates.items():
        whole = matrix.dense_cost <= matrix.cost
        chosen[name] = None if whole else 1
        if not whole:
            heapq.heappush(queue, _next_step(name, matrix, 1, left))
    while queue:
        slope, name, whole = heapq.heappop(queue)
        matrix, rank = candidates[name], chosen[name]
        if slope == 0 or rank is None:
            continue
        cost = matrix.dense_cost - rank * matrix.cost if whole else matrix.cost
        if cost > left:
            if whole:
                # No longer affordable: go on rank by rank.
                heapq.heappush(queue, _next_step(name, matrix, rank, left))
            continue
        left -= cost
        chosen[name] = None if whole else rank + 1
        if not whole:
            heapq.heappush(queue, _next_step(name, matrix, rank + 1, left))
    return chosen


def _next_step(name: str, matrix: Candidate, rank: int, left: int) -> tuple[float, str, bool]:
    """Return (-gain for its cost, name, whether the matrix is kept whole) of the best step."""
    best = 0.0
    whole = False
    if rank < matrix.ranks:
        best = matrix.gains[rank] / matrix.cost
    rest = matrix.dense_cost - rank * matrix.cost
    if 0 < rest <= left and sum(matrix.gains[rank:]) / rest >= best:
        best, whole = sum(matrix.gains[rank:]) / rest, True
    return -best, name, whole
