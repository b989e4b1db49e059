"""The mathematics of codebooks of single numbers, apart from models and files.

On a line a cluster is an interval of the sorted numbers. With running sums over the sorted
numbers an iteration of Lloyd's algorithm costs one search for each boundary, however many
numbers there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from terselm.compress.statistics import Statistics
from terselm.linear.base import LinearOp
from terselm.linear.codebook import nearest

ITERATIONS = 16
CANDIDATES = 64
CANDIDATES_A_VALUE = 4
"""Clusters whose ends are candidates in `programmed_start`, at least and for each value."""
CHUNK_NUMBERS = 2**19
"""Numbers that are clustered together; more would not stay in the cache."""
LEAST_WEIGHT = 1e-4
"""The least weight of a number, as a share of the mean weight."""


@dataclass(frozen=True)
class SortedNumbers:
    """Rows of numbers, sorted, with running sums.

    Attributes
    ----------
    numbers : Tensor
        float64 [rows, columns], ascending in each row.
    sums : Tensor
        float64 [3, rows, columns + 1], running sums of weight, weight · x and weight · x²,
        beginning with 0.
    """

    numbers: Tensor
    sums: Tensor

    @classmethod
    def of(cls, numbers: Tensor, weights: Tensor | None = None) -> SortedNumbers:
        """Sort `numbers` [rows, columns]; `weights` is of the same shape, or [1, columns]."""
        ordered, order = numbers.sort(dim=1)
        x = ordered.double()
        if weights is None:
            w = torch.ones_like(x)
        else:
            w = weights.double().expand_as(x).gather(1, order)
        moments = torch.stack([w, w * x, w * x * x]).cumsum(-1)
        return cls(x, torch.nn.functional.pad(moments, (1, 0)))

    def boundaries(self, values: Tensor) -> Tensor:
        """Return where the numbers nearest to each value end, int64 [rows, n + 1] from 0.

        `values` is float64 [rows, n], ascending.
        """
        middles = ((values[:, :-1] + values[:, 1:]) / 2).contiguous()
        inner = torch.searchsorted(self.numbers, middles, right=True)
        start = inner.new_zeros(len(inner), 1)
        return torch.cat([start, inner, start + self.numbers.shape[1]], dim=1)

    def moments(self, boundaries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums of weight, weight · x and weight · x² of every interval, [rows, n]."""
        return self.moments_between(boundaries[:, :-1], boundaries[:, 1:])

    def moments_between(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same sums over the numbers from `first` up to `last`, int64 [rows, n]."""
        to = self.sums.gather(2, last.expand(3, *last.shape))
        weight, total, square = to - self.sums.gather(2, first.expand(3, *first.shape))
        return weight, total, square

    def error(self, values: Tensor) -> Tensor:
        """Return the weighted squared error of each row, float64 [rows], for sorted values."""
        weight, first, second = self.moments(self.boundaries(values))
        return (second - 2 * values * first + values.square() * weight).sum(1)


def means(data: SortedNumbers, boundaries: Tensor, default: Tensor) -> Tensor:
    """Return the mean of every interval [rows, n]; of an empty one the `default`."""
    weight, first, _ = data.moments(boundaries)
    filled = boundaries.diff(dim=1) > 0
    return torch.where(filled, first / torch.where(filled, weight, 1.0), default)


def split_edges(data: SortedNumbers, count: int) -> Tensor:
    """Return the ends of `count` clusters from splitting the one of greatest error at its mean.

    Returns
    -------
    Tensor
        int64 [rows, count + 1], from 0 to the number of numbers. In rows with at most `count`
        different numbers each has a cluster of its own.
    """
    rows, columns = data.numbers.shape
    edges = torch.tensor([[0, columns]]).repeat(rows, 1)  # [rows, clusters + 1]
    for _ in range(count - 1):
        first, last = edges[:, :-1], edges[:, 1:]
        low = data.numbers.gather(1, first.clamp(max=columns - 1))
        high = data.numbers.gather(1, (last - 1).clamp(min=0))
        weight, total, square = data.moments(edges)
        error = square - total.square() / weight.clamp(min=1e-300)
        # Only a cluster of different numbers can be split, whatever rounding says.
        error = torch.where((last > first) & (high > low), error.clamp(min=0), -1.0)
        worst = error.argmax(dim=1, keepdim=True)
        mean = total.gather(1, worst) / weight.gather(1, worst).clamp(min=1e-300)
        cut = torch.searchsorted(data.numbers, mean, right=True)
        begin, end = first.gather(1, worst), last.gather(1, worst)
        cut = torch.where(error.gather(1, worst) < 0, end, cut.clamp(min=begin, max=end))
        edges = torch.cat([edges, cut], dim=1).sort(dim=1).values
    return edges


def split_start(data: SortedNumbers, count: int) -> Tensor:
    """Return the means of the clusters of `split_edges`, float64 [rows, count], ascending."""
    return _interval_means(data, split_edges(data, count))


def programmed_start(data: SortedNumbers, count: int) -> Tensor:
    """Return the means of the best `count` intervals, by dynamic programming.

    Intervals end where one of many more clusters of `split_edges` ends. Where there are no
    more different numbers than such clusters this is the optimum. Source: Wang & Song 2011
    (The R Journal 3/2), section "Optimal one-dimensional k-means".
    """
    rows, columns = data.numbers.shape
    size = _candidate_count(count)
    places = torch.arange(columns + 1).repeat(rows, 1)
    if columns > size:
        places = split_edges(data, size)  # [rows, size + 1]
    at = data.sums.gather(2, places.expand(3, *places.shape))
    # The error of an interval from place k to place j, [rows, j, k]; impossible where k > j.
    weight, total, square = at.unsqueeze(3) - at.unsqueeze(2)
    error = (square - total.square() / weight.clamp(min=1e-300)).clamp(min=0)
    size = places.shape[1]
    above = torch.ones(size, size, dtype=torch.bool).triu(1)
    error = error.float().masked_fill(above, float("inf"))
    best = error[:, :, 0]  # the least error of the numbers before place j, with one interval
    origins = []
    for _ in range(count - 1):
        best, origin = (best.unsqueeze(1) + error).min(dim=2)
        origins.append(origin)
    place = torch.full((rows, 1), size - 1)
    path = [place]
    for origin in reversed(origins):
        place = origin.gather(1, place)
        path.append(place)
    path.append(torch.zeros_like(place))
    edges = places.gather(1, torch.cat(path[::-1], dim=1))  # [rows, count + 1]
    return _interval_means(data, edges)


def _interval_means(data: SortedNumbers, edges: Tensor) -> Tensor:
    # An empty interval has the number at its place, which moves nothing.
    middle = data.numbers.gather(1, edges[:, :-1].clamp(max=data.numbers.shape[1] - 1))
    return means(data, edges, middle).sort(dim=1).values


def _candidate_count(count: int) -> int:
    return max(CANDIDATES, CANDIDATES_A_VALUE * count)


def lloyd(data: SortedNumbers, values: Tensor, iterations: int) -> Tensor:
    """Return the values after iterations of Lloyd's algorithm, never worse than before."""
    for _ in range(iterations):
        before = values
        values = means(data, data.boundaries(values), values).sort(dim=1).values
        if torch.equal(values, before):
            break
    return values


def k_means(numbers: Tensor, bits: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return codes and values of least weighted squared error, row by row.

    Lloyd's algorithm from `programmed_start`; the error is within a few parts in a thousand
    of the least possible one.

    Parameters
    ----------
    numbers : Tensor
        float [rows, columns], finite.
    bits : int
        In [1, 8]; there are 2^bits values a row.
    weights : Tensor or None
        Importance of each number, [rows, columns] or [1, columns], not negative.

    Returns
    -------
    codes : Tensor
        uint8 [rows, columns].
    values : Tensor
        float32 [rows, 2^bits], ascending, each exactly representable in float16.
    """
    usable = None if weights is None else usable_weights(weights).expand_as(numbers)
    count = min(_candidate_count(2**bits), numbers.shape[1])
    rows = max(1, CHUNK_NUMBERS // max(numbers.shape[1], count * count // 8))
    chunks = []
    for start in range(0, len(numbers), rows):
        part = slice(start, start + rows)
        data = SortedNumbers.of(numbers[part], None if usable is None else usable[part])
        chunks.append(lloyd(data, programmed_start(data, 2**bits), ITERATIONS))
    values = torch.cat(chunks).float().half().float()
    return nearest(numbers.float(), values).to(torch.uint8), values


def usable_weights(weights: Tensor) -> Tensor:
    """Return weights of mean 1 with a small floor, so that no number counts for nothing."""
    mean = weights.double().mean()
    if mean <= 0:
        return torch.ones_like(weights, dtype=torch.float64)
    return (weights.double() / mean).clamp(min=LEAST_WEIGHT)


def number_weights(statistics: Statistics, leaf: LinearOp, name: str) -> tuple[Tensor, Tensor]:
    """Return how much the rows [out] and the columns [in] of a matrix matter, float64.

    A column counts by the mean square of its input. The rows of embedding and output (or of
    their left factors) count by how often their word occurs, others alike.
    """
    rows = torch.ones(leaf.out_features, dtype=torch.float64)
    whole, *factors = name.split(".")
    if whole in ("embedding", "output") and all(factor == "left" for factor in factors):
        # One more each: a word that the calibration text lacks may occur all the same.
        rows = torch.from_numpy(statistics.token_counts).double() + 1
    columns = torch.ones(leaf.in_features, dtype=torch.float64)
    if name in statistics.inputs:
        columns = statistics.inputs[name].mean_square.cpu()
    return rows, columns
