"""The mathematics of uniform quantization, apart from models and files."""

from __future__ import annotations

import torch
from torch import Tensor

from terselm.linear.quantized import code_range

REFINEMENTS = 3
CLIPPING = {8: (0.85, 6), 4: (0.45, 23)}
"""By bits: the tightest range tried, as a share of the greatest magnitude, and how many."""


def quantize_uniform(
    weight: Tensor, bits: int, group: int | None, range_rule: str
) -> tuple[Tensor, Tensor]:
    """Round a matrix to signed codes times a scale for each row or group of columns.

    Parameters
    ----------
    weight : Tensor
        float [out, in], finite.
    bits : {8, 4}
    group : int or None
        Columns that share a scale; None for the whole row.
    range_rule : {"least_squares", "absolute_maximum"}
        "absolute_maximum" sets the scale so that the greatest magnitude gets the greatest
        code. "least_squares" tries tighter ranges of both signs, then alternates between the
        best codes for a scale and the best scale for the codes, and keeps what has the least
        squared error; at 4 bits this is a third of the loss in perplexity.

    Returns
    -------
    codes : Tensor
        int8 [out, in].
    scales : Tensor
        float32 [out, groups], each exactly representable in float16. Negative where the
        range reaches further down than up with the sign turned.
    """
    rows, columns = weight.shape
    size = columns if group is None else group
    groups = -(-columns // size)
    padded = weight.new_zeros(rows, groups * size, dtype=torch.float32)
    padded[:, :columns] = weight
    values = padded.view(rows * groups, size)  # [n, size]
    scales = _half(_choose_scales(values, bits, range_rule))
    codes = _codes(values, scales, bits).to(torch.int8)
    return codes.view(rows, -1)[:, :columns].contiguous(), scales.view(rows, groups)


def signal_to_noise(weight: Tensor, approximation: Tensor) -> float:
    """Return the signal-to-quantization-noise ratio in decibels; infinite where exact."""
    noise = (weight.double() - approximation.double()).square().sum()
    if noise == 0:
        return float("inf")
    return float(10 * torch.log10(weight.double().square().sum() / noise))


def _choose_scales(values: Tensor, bits: int, range_rule: str) -> Tensor:
    low, high = code_range(bits)
    greatest = values.abs().amax(dim=1, keepdim=True)
    if range_rule == "absolute_maximum":
        return greatest / high
    best = greatest / high
    best_error = _error(values, best, bits)
    tightest, count = CLIPPING[bits]
    # With codes from -8 to 7, a scale of either sign puts the -8 where the tail is longer.
    signs = (1.0,) if -low == high else (1.0, -1.0)
    for share in torch.linspace(tightest, 1.0, count).tolist():
        for sign in signs:
            scales = greatest * (share * sign / (high if len(signs) == 1 else -low))
            for _ in range(REFINEMENTS if share == 1.0 else 1):
                best, best_error = _better(values, best, best_error, scales, bits)
                scales = _fit(values, scales, bits)
            best, best_error = _better(values, best, best_error, scales, bits)
    for _ in range(REFINEMENTS):
        best, best_error = _better(values, best, best_error, _fit(values, best, bits), bits)
    return best


def _codes(values: Tensor, scales: Tensor, bits: int) -> Tensor:
    low, high = code_range(bits)
    inverse = torch.where(scales != 0, 1 / scales, torch.zeros_like(scales))
    return (values * inverse).round_().clamp_(low, high)


def _error(values: Tensor, scales: Tensor, bits: int) -> Tensor:
    """Return the squared error of each row, [n, 1]."""
    error = _codes(values, scales, bits).mul_(scales).sub_(values)
    return error.square_().sum(dim=1, keepdim=True)


def _fit(values: Tensor, scales: Tensor, bits: int) -> Tensor:
    """Return the least-squares scale for the codes that `scales` gives."""
    codes = _codes(values, scales, bits)
    norm = codes.square().sum(dim=1, keepdim=True)
    fitted = codes.mul_(values).sum(dim=1, keepdim=True) / norm.clamp(min=1)
    return torch.where(norm > 0, fitted, scales)


def _better(
    values: Tensor, best: Tensor, best_error: Tensor, scales: Tensor, bits: int
) -> tuple[Tensor, Tensor]:
    error = _error(values, scales, bits)
    wins = error < best_error
    return torch.where(wins, scales, best), torch.where(wins, error, best_error)


def _half(scales: Tensor) -> Tensor:
    return scales.half().float()
