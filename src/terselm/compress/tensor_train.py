"""The mathematics of tensor trains, apart from models and files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from terselm.compress.factorization import thin_svd

PADDING = 1.08
"""A side may be padded by this factor to find balanced factors."""
SMALLEST_STEP = 1e-3
"""Where bisection of the error bound ends."""


def balanced_factors(side: int, cores: int) -> tuple[int, ...]:
    """Return `cores` factors, alike in size, of `side` or of a slightly larger number.

    The factors with the least sum times padding, rising: a core's size follows the product of
    a row and a column factor, so unbalanced ones make one core large.
    """
    best: tuple[float, tuple[int, ...]] = (math.inf, ())
    for padded in range(side, max(side + 1, int(side * PADDING)) + 1):
        for factors in _factorizations(padded, cores, 1):
            best = min(best, (sum(factors) * padded / side, factors))
    return best[1]


def tensor_train_svd(
    weight: Tensor,
    row_shape: Sequence[int],
    column_shape: Sequence[int],
    ranks: Sequence[int] | None = None,
    error: float = 0.0,
) -> list[Tensor]:
    """Return cores of a tensor train of a matrix (TT-SVD, Oseledets 2011, algorithm 1).

    Parameters
    ----------
    weight : Tensor
        float [out, in]; padded with zeros to what the factors make.
    row_shape, column_shape : sequence of int
        d factors each.
    ranks : sequence of int, optional
        The greatest inner ranks, d - 1 of them.
    error : float
        The greatest relative error in the Frobenius norm, where ranks do not make it larger:
        each of the d - 1 truncations may leave out error / √(d - 1) of the norm.

    Returns
    -------
    list of Tensor
        float32, core m is [r_{m-1} · rows_m, columns_m · r_m].
    """
    count = len(row_shape)
    work = _paired_digits(weight.double(), row_shape, column_shape)
    allowed = (error * float(work.norm())) ** 2 / max(1, count - 1)
    cores = []
    rank = 1
    for m in range(count - 1):
        rows, columns = row_shape[m], column_shape[m]
        left, singular, right = thin_svd(work.reshape(rank * rows * columns, -1))
        kept = _rank_within(singular, allowed)
        if ranks is not None:
            kept = min(kept, ranks[m])
        # All of the norm moves to the right; spread evenly again at the end.
        cores.append(left[:, :kept].reshape(rank * rows, columns * kept))
        work = singular[:kept].unsqueeze(1) * right[:kept]
        rank = kept
    cores.append(work.reshape(rank * row_shape[-1], column_shape[-1]))
    return [core.float() for core in _balanced(cores)]


def tensor_train_within(
    weight: Tensor, row_shape: Sequence[int], column_shape: Sequence[int], numbers: int
) -> list[Tensor]:
    """Return cores with at most `numbers` numbers, and about as many.

    The ranks are those of the least error bound that fits, then raised in turn as far as the
    numbers go; at least 1.
    """
    low, high = 0.0, 1.0
    ranks = [1] * (len(row_shape) - 1)
    while high - low > SMALLEST_STEP:
        middle = (low + high) / 2
        cores = tensor_train_svd(weight, row_shape, column_shape, error=middle)
        if sum(core.numel() for core in cores) <= numbers:
            high = middle
            widths = [core.shape[1] for core in cores[:-1]]
            ranks = [width // column_shape[m] for m, width in enumerate(widths)]
        else:
            low = middle
    ranks = _filled(ranks, row_shape, column_shape, numbers)
    return tensor_train_svd(weight, row_shape, column_shape, ranks)


def core_numbers(
    row_shape: Sequence[int], column_shape: Sequence[int], ranks: Sequence[int]
) -> int:
    """Return how many numbers cores of these inner ranks have."""
    edges = [1, *ranks, 1]
    return sum(
        edges[m] * rows * columns * edges[m + 1]
        for m, (rows, columns) in enumerate(zip(row_shape, column_shape, strict=True))
    )


def greatest_ranks(row_shape: Sequence[int], column_shape: Sequence[int]) -> list[int]:
    """Return the inner ranks at which a tensor train is exact for every matrix."""
    sizes = [rows * columns for rows, columns in zip(row_shape, column_shape, strict=True)]
    return [
        min(math.prod(sizes[: m + 1]), math.prod(sizes[m + 1 :])) for m in range(len(sizes) - 1)
    ]


def _factorizations(number: int, count: int, least: int) -> Iterator[tuple[int, ...]]:
    """Yield all rising tuples of `count` factors of a number."""
    if count == 1:
        yield (number,)
        return
    for factor in itertools.takewhile(lambda f: f**count <= number, itertools.count(least)):
        if number % factor == 0:
            for rest in _factorizations(number // factor, count - 1, factor):
                yield (factor, *rest)


def _filled(
    ranks: list[int], row_shape: Sequence[int], column_shape: Sequence[int], numbers: int
) -> list[int]:
    """Return the ranks raised by one in turn while the cores fit."""
    greatest = greatest_ranks(row_shape, column_shape)
    ranks = list(ranks)
    open_places = set(range(len(ranks)))
    while open_places:
        for m in sorted(open_places):
            ranks[m] += 1
            if ranks[m] > greatest[m] or core_numbers(row_shape, column_shape, ranks) > numbers:
                ranks[m] -= 1
                open_places.remove(m)
    return ranks


def _paired_digits(weight: Tensor, row_shape: Sequence[int], column_shape: Sequence[int]) -> Tensor:
    """Return the padded matrix as a tensor [rows_1 · columns_1, ..., rows_d · columns_d]."""
    padded = weight.new_zeros(math.prod(row_shape), math.prod(column_shape))
    padded[: weight.shape[0], : weight.shape[1]] = weight
    count = len(row_shape)
    order = [place for m in range(count) for place in (m, count + m)]
    sizes = [rows * columns for rows, columns in zip(row_shape, column_shape, strict=True)]
    return padded.reshape(*row_shape, *column_shape).permute(order).reshape(sizes)


def _rank_within(singular: Tensor, allowed: float) -> int:
    """Return the least rank, at least 1, whose squared error is at most `allowed`."""
    tails = singular.square().flip(0).cumsum(0)  # error of leaving out the last 1, 2, ...
    dropped = int((tails <= allowed).sum())
    nonzero = int((singular > singular[0] * 1e-12).sum())
    return max(1, min(len(singular) - dropped, nonzero))


def _balanced(cores: Sequence[Tensor]) -> list[Tensor]:
    """Return the cores scaled to the same root mean square; their product stays."""
    sizes = [core.norm() / math.sqrt(core.numel()) for core in cores]
    if not all(size > 0 for size in sizes):
        return list(cores)
    mean = math.exp(sum(math.log(size) for size in sizes) / len(sizes))
    return [core * (mean / size) for core, size in zip(cores, sizes, strict=True)]
