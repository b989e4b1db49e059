"""The mathematics of multi-bit binary codes, apart from models and files.

Source: Xu et al. 2018 (arXiv 1802.00150), section 3. For given scales the best codes are a
search among the sorted levels, for given codes the best scales are a small least-squares
problem. Both need no more than the running sums of the sorted numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from terselm.compress.clustering import (
    CHUNK_NUMBERS,
    SortedNumbers,
    lloyd,
    split_start,
    usable_weights,
)
from terselm.linear.binary_codes import fit_scales, joined, levels_of, nearest_codes, split

TRIAL_ITERATIONS = 8
ITERATIONS = 16
UNIFORM_SHARES = (1.0, 0.8, 0.65)
"""Shares of the greatest magnitude at which the outermost level of an even grid is put."""


def binary_codes(
    weight: Tensor, bits: int, group: int | None, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Approximate a matrix by sums of scaled signs, with scales for each row or group.

    The alternation runs from the greedy solution, from even grids and from the levels of a
    k-means clustering of the magnitudes; the best is kept.

    Parameters
    ----------
    weight : Tensor
        float [out, in], finite.
    bits : int
        In [1, 4]; matrices of signs.
    group : int or None
        Columns that share scales; None for the whole row.
    weights : Tensor or None
        Importance of each number, [out, in] or [1, in], not negative.

    Returns
    -------
    codes : Tensor
        uint8 [out, in]; bit k is set where the sign of matrix k is +1.
    scales : Tensor
        float32 [out, groups, bits], not negative, descending, each exactly representable in
        float16.
    """
    rows, columns = weight.shape
    values = split(weight.float(), group)  # [n, size]
    importance = torch.ones(1, columns) if weights is None else usable_weights(weights)
    # Padding has no weight.
    spread = split(importance.double().expand(rows, columns), group)
    count = max(1, CHUNK_NUMBERS // values.shape[1])
    scales = torch.cat(
        [
            _best_scales(values[start : start + count], spread[start : start + count], bits)
            for start in range(0, len(values), count)
        ]
    )
    codes = nearest_codes(values, scales)
    return joined(codes.to(torch.uint8), columns).contiguous(), scales.view(rows, -1, bits)


def greedy_scales(values: Tensor, weights: Tensor, bits: int) -> Tensor:
    """Return the scales that take the residual's mean magnitude again and again.

    Source: Guo et al. 2017, as in arXiv 1802.00150, equation 4.

    Parameters
    ----------
    values, weights : Tensor
        float [n, size].

    Returns
    -------
    Tensor
        float64 [n, bits].
    """
    residual, total = values.double(), weights.sum(1, keepdim=True).clamp(min=1e-300)
    found = []
    for _ in range(bits):
        scale = (weights * residual.abs()).sum(1, keepdim=True) / total
        residual = residual - torch.where(residual >= 0, scale, -scale)
        found.append(scale)
    return torch.cat(found, dim=1)


def alternate(data: SortedNumbers, scales: Tensor, iterations: int) -> Tensor:
    """Return the scales float64 [n, bits] after alternating codes and scales."""
    bits = scales.shape[1]
    for _ in range(iterations):
        before = scales
        levels, order = levels_of(scales).sort(dim=1)
        counts, sums, _ = data.moments(data.boundaries(levels))
        counts = torch.zeros_like(levels).scatter_(1, order, counts)
        sums = torch.zeros_like(levels).scatter_(1, order, sums)
        scales = fit_scales(counts, sums, bits)
        if torch.equal(scales, before):
            break
    return scales


def squared_error(data: SortedNumbers, scales: Tensor) -> Tensor:
    """Return the weighted squared error of each row with the best codes, float64 [n]."""
    return data.error(levels_of(scales).sort(dim=1).values)


def _best_scales(values: Tensor, weights: Tensor, bits: int) -> Tensor:
    data = SortedNumbers.of(values, weights)
    best = alternate(data, greedy_scales(values, weights, bits), TRIAL_ITERATIONS)
    best_error = squared_error(data, best)
    for start in _starts(values, weights, bits):
        scales = alternate(data, start, TRIAL_ITERATIONS)
        error = squared_error(data, scales)
        wins = error < best_error
        best = torch.where(wins.unsqueeze(1), scales, best)
        best_error = torch.where(wins, error, best_error)
    best = alternate(data, best, ITERATIONS)
    return best.abs().sort(dim=1, descending=True).values.float().half().float()


def _starts(values: Tensor, weights: Tensor, bits: int) -> list[Tensor]:
    if bits == 1:
        return []  # greedy is the optimum
    magnitudes = values.abs()
    ladder = 2.0 ** torch.arange(bits, dtype=torch.float64).flip(0) / (2**bits - 1)
    greatest = magnitudes.amax(dim=1, keepdim=True).double()
    starts = [greatest * share * ladder for share in UNIFORM_SHARES]
    folded = SortedNumbers.of(magnitudes, weights)
    centers = lloyd(folded, split_start(folded, 2 ** (bits - 1)), TRIAL_ITERATIONS)
    return starts + scales_from_levels(centers.flip(1), bits)


def scales_from_levels(levels: Tensor, bits: int) -> list[Tensor]:
    """Return the scales whose largest levels are the given ones.

    Flipping the sign of a scale lowers the greatest level by twice that scale, so the levels
    below it give the scales from the smallest on. With four, the fourth level may be the third
    scale flipped or the two smallest together, hence two answers.

    Parameters
    ----------
    levels : Tensor
        float64 [n, 2^(bits - 1)], the levels that are not negative, descending.

    Returns
    -------
    list of Tensor
        float64 [n, bits] each.
    """
    places: dict[int, list[tuple[int, ...]]] = {
        1: [()],
        2: [(1,)],
        3: [(1, 2)],
        4: [(1, 2, 3), (1, 2, 4)],
    }
    found = []
    for pick in places[bits]:
        small = [(levels[:, :1] - levels[:, place : place + 1]) / 2 for place in pick]
        largest = levels[:, :1] - sum(small)
        found.append(torch.cat([largest, *reversed(small)], dim=1))
    return found
