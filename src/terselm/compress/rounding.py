"""The mathematics of uniform quantization, apart from models and files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from terselm.linear.quantized import LEVELS, Group, Levels, Quantized, code_range, group_size

CANDIDATES = 14
"""Ranges that the least-squares search starts from."""
REFINEMENTS = 4
"""Alternations of codes and scale after the best start."""
NORMAL_STEP = {8: 0.0308, 4: 0.3352, 3: 0.5860, 2: 0.9957}
"""The step of the best uniform quantizer of a normal variable, by bits (Max 1960)."""
MOST_EXTRA_ERROR = 1.05
"""How much more squared error even levels may have: they are balanced around zero."""
JUDGED_ROWS = 1024
"""At most so many rows of a matrix are looked at to choose its levels."""
CHUNK = 2**17
"""Numbers worked on at once, so that they stay in the processor's cache."""


@dataclass(frozen=True)
class Grid:
    """Which numbers a quantized form can hold; see `linear.quantized.Quantized`.

    Attributes
    ----------
    bits : {8, 4, 3, 2}
    group : int, "matrix" or None
    levels : {"mid_tread", "mid_rise"}
    symmetric : bool
        Without it every group has a zero point (mid-tread only).
    """

    bits: int
    group: Group = None
    levels: Levels = "mid_tread"
    symmetric: bool = True

    def levels_of(self, values: Tensor, scales: Tensor, zeros: Tensor | None) -> Tensor:
        """Return the nearest levels (integers as floats) to values / scales.

        Parameters
        ----------
        values : Tensor
            float32, any shape.
        scales : Tensor
            float32, broadcastable; where 0, the level next to zero is taken.
        zeros : Tensor or None
            float32, broadcastable.
        """
        low, high = code_range(self.bits)
        levels = values * torch.where(scales != 0, 1 / scales, torch.zeros_like(scales))
        if self.levels == "mid_rise":
            return levels.mul_(0.5).floor_().clamp_(low, high).mul_(2).add_(1)
        if zeros is None:
            return levels.round_().clamp_(low, high)
        return torch.minimum(torch.maximum(levels.round_(), low - zeros), high - zeros)

    def codes_of(self, levels: Tensor, zeros: Tensor | None) -> Tensor:
        """Return the int8 codes that stand for levels."""
        if self.levels == "mid_rise":
            levels = (levels - 1) / 2
        elif zeros is not None:
            levels = levels + zeros
        return levels.to(torch.int8)

    @property
    def outermost(self) -> int:
        """The level that the greatest magnitude gets where nothing is clipped."""
        _, high = code_range(self.bits)
        return 2 * high + 1 if self.levels == "mid_rise" else high


def quantize_uniform(
    weight: Tensor,
    grid: Grid,
    range_rule: str = "least_squares",
    *,
    percentile: float = 99.9,
    importance: Tensor | None = None,
) -> Quantized:
    """Round a matrix to integer codes times a scale for each row, group or all of it.

    Parameters
    ----------
    weight : Tensor
        float [out, in], finite.
    grid : Grid
        The form of the result.
    range_rule : {"least_squares", "absolute_maximum", "percentile"}
        How the scale is chosen. "absolute_maximum": nothing is clipped. "percentile": what
        lies above this percentile of the magnitudes that share a scale is clipped.
        "least_squares": from several ranges on (of both signs where the levels are not even),
        alternates between the best codes for a scale and the best scale for the codes, and
        keeps what has the least squared error (Xu et al. 2018, arXiv 1802.00150).
    percentile : float
        In (0, 100], for that rule.
    importance : Tensor, optional
        float [in], not negative: what the squared error of each column counts in the
        least-squares search.

    Returns
    -------
    Quantized
        Its scales are exactly representable in float16; some are infinite where the weights
        are too large for that.
    """
    rows, columns = weight.shape
    size = group_size(columns, grid.group)
    groups = -(-columns // size)
    padded = weight.new_zeros(rows, groups * size, dtype=torch.float32)
    padded[:, :columns] = weight.detach()
    counts = padded.new_zeros(groups * size)
    counts[:columns] = 1 if importance is None else importance / importance.mean().clamp(min=1e-30)
    values, counts = padded.view(rows, groups, size), counts.view(1, groups, size)
    weighted = importance is not None or columns % size != 0
    if grid.group == "matrix":
        values = values.reshape(1, 1, -1)
        counts = counts.expand(rows, 1, size).reshape(1, 1, -1) if weighted else counts
    results = [
        _quantize_chunk(chunk, counts if weighted else None, grid, range_rule, percentile)
        for chunk in _chunks(values)
    ]
    codes, scales = (torch.cat([result[k] for result in results]) for k in (0, 1))
    zeros = None if grid.symmetric else torch.cat([result[2] for result in results])
    return Quantized(
        codes.view(rows, -1)[:, :columns], scales, grid.bits, grid.group, grid.levels, zeros
    )


def choose_levels(weight: Tensor, grid: Grid, **search: Any) -> Grid:
    """Return the grid with those levels that suit this matrix.

    Mid-rise, unless its squared error is clearly larger, as it is where weights crowd around
    zero or few share a scale. An even number of levels with zero among them is lopsided, so
    clipping moves the mean of a row's errors, and with it that of its output: measured on a
    2 x 650 LSTM at 4 bits a row, mid-tread costs twice the perplexity at 2 % less error.

    Parameters
    ----------
    weight : Tensor
        float [out, in].
    grid : Grid
        Returned as it is at 8 bits or where it is not symmetric.
    **search
        Options of `quantize_uniform`.
    """
    if not grid.symmetric or grid.bits == 8:
        return grid
    weight = weight[:: -(-len(weight) // JUDGED_ROWS)]
    importance = search.get("importance")
    counts = 1.0 if importance is None else importance.to(weight.dtype)
    errors: dict[Levels, float] = {}
    for levels in LEVELS:
        op = quantize_uniform(weight, replace(grid, levels=levels), **search)
        error = (op.dense().detach() - weight).square() * counts
        errors[levels] = float(error.sum(dtype=torch.float64))
    rises = errors["mid_rise"] < MOST_EXTRA_ERROR * errors["mid_tread"]
    return replace(grid, levels="mid_rise" if rises else "mid_tread")


def signal_to_noise(weight: Tensor, approximation: Tensor) -> float:
    """Return the signal-to-quantization-noise ratio in decibels; infinite where exact."""
    noise = (weight.double() - approximation.double()).square().sum().detach()
    if noise == 0:
        return float("inf")
    return float(10 * torch.log10(weight.detach().double().square().sum() / noise))


def _chunks(values: Tensor) -> Iterator[Tensor]:
    rows = max(1, CHUNK // values[0].numel())
    for start in range(0, len(values), rows):
        yield values[start : start + rows]


def _quantize_chunk(
    values: Tensor, counts: Tensor | None, grid: Grid, range_rule: str, percentile: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes [n, groups, size], scales and zeros [n, groups] for values like the codes."""
    if range_rule == "percentile":
        scales, zeros = _full_range(_clip(values, counts, percentile), grid)
    else:
        scales, zeros = _full_range(values, grid)
    if range_rule == "least_squares":
        search = _Search(values, counts, grid)
        scales, zeros = search.run(scales, zeros)
    scales = scales.half().float()
    codes = grid.codes_of(grid.levels_of(values, scales, zeros), zeros)
    if zeros is None:
        zeros = torch.zeros_like(scales)
    return codes, scales.squeeze(-1), zeros.squeeze(-1).to(torch.int8)


def _full_range(values: Tensor, grid: Grid) -> tuple[Tensor, Tensor | None]:
    """Return scales [n, groups, 1] that clip nothing, and zeros of the same shape or None."""
    if grid.symmetric:
        return values.abs().amax(dim=-1, keepdim=True) / grid.outermost, None
    low, high = code_range(grid.bits)
    # Zero is always in the range, so a zero point fits into a code.
    least = values.amin(dim=-1, keepdim=True).clamp(max=0)
    greatest = values.amax(dim=-1, keepdim=True).clamp(min=0)
    scales = (greatest - least) / (high - low)
    return scales, _zeros(least, scales, low)


def _zeros(least: Tensor, scales: Tensor, low: int) -> Tensor:
    """Return the zero points with which `least` gets the least code."""
    inverse = torch.where(scales != 0, 1 / scales, torch.zeros_like(scales))
    return (low - least * inverse).round_().clamp_(-128, 127)


def _clip(values: Tensor, counts: Tensor | None, percentile: float) -> Tensor:
    groups, size = values.shape[1:]
    magnitudes = values.abs()
    present = [size] * groups
    if counts is not None:
        present = (counts > 0).sum(dim=-1).view(-1).tolist()  # the last group may be partial
    limit = torch.empty_like(magnitudes[..., :1])
    for number in set(present):
        alike = [group for group in range(groups) if present[group] == number]
        # Padding is zero, the least magnitude, so it comes before what is present.
        limit[:, alike] = _order_statistic(
            magnitudes[:, alike], size - number + (number - 1) * percentile / 100
        )
    return torch.minimum(torch.maximum(values, -limit), limit)


def _order_statistic(values: Tensor, place: float) -> Tensor:
    """Return the value at a place of the sorted ones, between two of them by interpolation.

    So a percentile of few values lies below the greatest too, and clips it.
    """
    below = int(place)
    low = values.kthvalue(below + 1, dim=-1, keepdim=True).values
    if below == place:
        return low
    high = values.kthvalue(below + 2, dim=-1, keepdim=True).values
    return torch.lerp(low, high, place - below)


class _Search:
    """The least-squares search over scales (and zero points) of one chunk of values.

    For given codes with levels q the best scale is Σ h v q / Σ h q², and what it explains of
    Σ h v² is gain = (Σ h v q)² / Σ h q²: one pass over the values gives both.
    """

    def __init__(self, values: Tensor, counts: Tensor | None, grid: Grid) -> None:
        self.values = values  # [n, groups, size]
        self.counts = counts  # [1, groups, size]
        self.grid = grid
        self.weighted = values if counts is None else values * counts

    def run(self, scales: Tensor, zeros: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the best scales [n, groups, 1] and zeros, from those that clip nothing."""
        self.zeros = zeros
        self.scales, self.gain = self._fit(scales, zeros)
        low, high = code_range(self.grid.bits)
        uneven = self.grid.symmetric and self.grid.levels == "mid_tread" and -low != high
        step = NORMAL_STEP[self.grid.bits] * (0.5 if self.grid.levels == "mid_rise" else 1.0)
        tightest = torch.minimum(0.6 * step * self._deviation(), scales)
        ratio = torch.where(tightest > 0, tightest / scales, torch.ones_like(scales))
        for share in torch.linspace(0, 1, CANDIDATES).tolist():
            candidate = scales * ratio**share
            shifted = None
            if zeros is not None:
                # The range shrinks towards zero from both sides.
                shifted = _zeros((low - zeros) * candidate, candidate, low)
            self._consider(candidate, shifted)
            if uneven:
                self._consider(-candidate, None)
        for _ in range(REFINEMENTS):
            self._consider(self.scales, self._shifted())
        return self.scales, self.zeros

    def _deviation(self) -> Tensor:
        """Return the standard deviation of normal values with this mean magnitude.

        Outliers move it less than they move the root mean square.
        """
        present = self.values.shape[-1]
        if self.counts is None:
            magnitude = self.values.abs().sum(dim=-1, keepdim=True) / present
        else:
            used = (self.counts > 0).float()
            total = (self.values.abs() * used).sum(dim=-1, keepdim=True)
            magnitude = total / used.sum(dim=-1, keepdim=True).clamp(min=1)
        return magnitude * math.sqrt(math.pi / 2)

    def _consider(self, scales: Tensor, zeros: Tensor | None) -> None:
        """Take the least-squares scale for the codes that `scales` gives, where it is better."""
        fitted, gain = self._fit(scales, zeros)
        wins = gain > self.gain
        self.scales = torch.where(wins, fitted, self.scales)
        self.gain = torch.where(wins, gain, self.gain)
        if zeros is not None and self.zeros is not None:
            self.zeros = torch.where(wins, zeros, self.zeros)

    def _fit(self, scales: Tensor, zeros: Tensor | None) -> tuple[Tensor, Tensor]:
        levels = self.grid.levels_of(self.values, scales, zeros)
        product = (levels * self.weighted).sum(dim=-1, keepdim=True)
        squares = levels.square_() if self.counts is None else levels.square_().mul_(self.counts)
        norm = squares.sum(dim=-1, keepdim=True)
        fitted = torch.where(norm > 0, product / norm, scales)
        return fitted, fitted * product

    def _shifted(self) -> Tensor | None:
        """Return the zero points of the straight line through codes and values."""
        if self.zeros is None:
            return None
        levels = self.grid.levels_of(self.values, self.scales, self.zeros)
        counts = torch.ones_like(self.values[:1]) if self.counts is None else self.counts
        total = counts.sum(dim=-1, keepdim=True).clamp(min=1e-30)
        mean_value = self.weighted.sum(dim=-1, keepdim=True) / total
        mean_level = (counts * levels).sum(dim=-1, keepdim=True) / total
        inverse = torch.where(self.scales != 0, 1 / self.scales, torch.zeros_like(self.scales))
        # value = scale · (level - shift), and the level is counted from the zero point.
        shift = mean_level - mean_value * inverse
        return (self.zeros + shift.round()).clamp_(-128, 127)
