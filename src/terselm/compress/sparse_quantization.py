"""Rounding the values of sparse matrices to codes."""

from __future__ import annotations

import torch

from terselm.errors import TerselmError, UsageError
from terselm.linear.quantized import code_range
from terselm.linear.sparse_base import BITS, CodedValues, FloatValues

TIGHTEST = {8: 0.85, 4: 0.45}
TRIED = 12
REFINEMENTS = 3


def quantize_values(op: FloatValues, bits: int, name: str) -> CodedValues:
    """Return the form with the same zeros and small integers, a scale for each row.

    Tighter ranges than that of the largest value are tried, then codes and scales are fitted
    to each other in turn; of all, each row takes what has the least squared error.

    Parameters
    ----------
    op : FloatValues
    bits : {8, 4}
    name : str
        Of the weight, for messages.

    Raises
    ------
    UsageError
        If the form has no codes of so many bits.
    TerselmError
        If a scale does not fit float16.
    """
    if bits not in BITS:
        raise UsageError(
            f"{name} is {op.kind}, whose values can have {' or '.join(map(str, BITS))} bits, "
            f"not {bits}"
        )
    _, high = code_range(bits)
    weight = op.dense().detach()
    greatest = weight.abs().amax(dim=1)
    best_error = torch.full_like(greatest, float("inf"))
    best = greatest / high
    codes = torch.zeros(len(op.positions), dtype=torch.int8, device=weight.device)
    for share in torch.linspace(TIGHTEST[bits], 1.0, TRIED).tolist():
        fitted = op.coded_type(op.pattern, codes, greatest * (share / high), bits)
        for _ in range(REFINEMENTS):
            before = fitted.scales.detach()
            fitted = fitted.reround(weight)
            # The codes are the nearest ones for `before`, so that is what is kept.
            error = (fitted.dense().detach() - weight).square().sum(dim=1)
            wins = error < best_error
            best = torch.where(wins, before, best)
            best_error = torch.where(wins, error, best_error)
    if not torch.isfinite(best.half()).all():
        raise TerselmError(f"{name}: values too large for float16 scales; it cannot be quantized")
    return op.coded_type(op.pattern, codes, best, bits).reround(weight)
