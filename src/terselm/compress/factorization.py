"""The mathematics of low rank, apart from models and files."""

from __future__ import annotations

import torch
from torch import Tensor


def truncated_svd(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the two factors of the best rank-`rank` approximation (Eckart & Young 1936).

    Parameters
    ----------
    weight : Tensor
        float [out, in].
    rank : int
        In [1, min(out, in)].

    Returns
    -------
    left : Tensor
        float32 [out, rank].
    right : Tensor
        float32 [rank, in]. The singular values are shared evenly by both factors, so that
        both have rows of like size and quantize equally well.
    """
    tall = weight.shape[0] >= weight.shape[1]
    work = (weight if tall else weight.T).double()  # [long, short]
    # The eigenvectors of the small Gram matrix cost a fraction of a full SVD, and float64
    # keeps the singular values that matter exact to float32.
    eigenvalues, basis = torch.linalg.eigh(work.T @ work)  # ascending
    basis = basis[:, -rank:].flip(-1)  # [short, rank]
    singular = eigenvalues[-rank:].flip(-1).clamp(min=0).sqrt()
    root = singular.sqrt()
    inverse = torch.where(root > 0, 1 / root, torch.zeros_like(root))
    long_factor = (work @ basis) * inverse  # [long, rank]
    short_factor = basis * root  # [short, rank]
    if tall:
        return long_factor.float(), short_factor.T.contiguous().float()
    return short_factor.float(), long_factor.T.contiguous().float()


def rank_for_fraction(out_features: int, in_features: int, fraction: float) -> int:
    """Return the largest rank whose factors hold at most `fraction` of the numbers.

    At least 1, at most the rank of the matrix.
    """
    rank = int(fraction * out_features * in_features / (out_features + in_features))
    return max(1, min(rank, out_features, in_features))
