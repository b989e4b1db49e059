"""Masks of dropout."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 1 << 16


def keep_mask(shape: tuple[int, ...], probability: float, like: Tensor) -> Tensor:
    """Return zeros with a probability, and elsewhere what keeps the mean, 1 / (1 - probability).

    On CPU four values come out of one number of torch's generator, which is several times as
    fast as `Tensor.bernoulli_`; the probability is then a multiple of 1 / 65,536.

    Parameters
    ----------
    shape : tuple of int
    probability : float
        In [0, 1).
    like : Tensor
        What the mask's type and device are taken from.
    """
    if like.device.type != "cpu":
        return like.new_empty(shape).bernoulli_(1 - probability).div_(1 - probability)
    levels = min(round(probability * LEVELS), LEVELS - 1)
    count = torch.Size(shape).numel()
    numbers = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    keep = numbers.view(torch.int16)[:count] >= levels - LEVELS // 2
    return keep.view(shape).to(like.dtype).mul_(LEVELS / (LEVELS - levels))


def dropout(x: Tensor, probability: float) -> Tensor:
    """Return x with values left out at random and the others scaled up."""
    return x if probability == 0.0 else x * keep_mask(tuple(x.shape), probability, x)
