"""Which weights stay: masks from scores, apart from models and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from terselm.errors import UsageError


def zeros_for(total: int, sparsity: float) -> int:
    """Return how many of `total` weights are zero at a sparsity, to the nearest."""
    return round(total * sparsity)


def zeros_leaving_some(total: int, sparsity: float, of: str, units: str = "weights") -> int:
    """Return `zeros_for`, after checking that not all would be zero.

    Parameters
    ----------
    total : int
    sparsity : float
    of : str
        What has the weights, for the message.
    units : str
        What is counted: weights or blocks.

    Raises
    ------
    UsageError
        The message says at which sparsity one would be left.
    """
    zeros = zeros_for(total, sparsity)
    if zeros >= total:
        most = (total - 1) * 10_000 // total / 10_000
        raise UsageError(
            f"sparsity {sparsity} leaves none of the {total:,} {units} of {of}; "
            f"use at most {most:g}"
        )
    return zeros


def mask_of_largest(scores: Tensor, zeros: int) -> Tensor:
    """Return true where the score is among the largest.

    Parameters
    ----------
    scores : Tensor
        float, any shape.
    zeros : int
        How many are left out, exactly; of equal scores the first ones stay.

    Returns
    -------
    Tensor
        bool, the shape of `scores`.
    """
    flat = scores.reshape(-1)
    if zeros <= 0:
        return torch.ones_like(scores, dtype=torch.bool)
    if zeros >= flat.numel():
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = flat.kthvalue(zeros).values
    mask = flat > threshold
    missing = flat.numel() - zeros - int(mask.sum())
    mask[(flat == threshold).nonzero().squeeze(-1)[:missing]] = True
    return mask.view(scores.shape)


def mask_of_largest_in_rows(scores: Tensor, zeros: int) -> Tensor:
    """Return the same with exactly `zeros` left out in each row of scores [rows, columns]."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.scatter_(1, order[:, : scores.shape[1] - zeros], True)


def masks_over_all(scores: Mapping[str, Tensor], zeros: int) -> dict[str, Tensor]:
    """Return a mask for each of several matrices with one threshold for all of them.

    Parameters
    ----------
    scores : mapping of str to Tensor
        Scores that can be compared across matrices.
    zeros : int
        How many are left out in all matrices together, exactly.
    """
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    mask = mask_of_largest(flat, zeros)
    sizes = [score.numel() for score in scores.values()]
    return {
        name: part.view(scores[name].shape)
        for name, part in zip(scores, mask.split(sizes), strict=True)
    }


def block_sums(scores: Tensor, block: Sequence[int]) -> Tensor:
    """Return the sum of the scores in each block, [ceil(rows / r), ceil(columns / c)]."""
    high, wide = block
    rows, columns = scores.shape
    grid = -(-rows // high), -(-columns // wide)
    padded = scores.new_zeros(grid[0] * high, grid[1] * wide)
    padded[:rows, :columns] = scores
    return padded.view(grid[0], high, grid[1], wide).sum(dim=(1, 3))


def blocks_to_mask(kept: Tensor, block: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return the mask [rows, columns] of the weights in the kept blocks."""
    mask = kept.repeat_interleave(block[0], 0)[: shape[0]]
    return mask.repeat_interleave(block[1], 1)[:, : shape[1]]
