"""One right factor for all matrices that read the same vector, apart from models and files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from terselm.compress.factorization import DAMPING, decompose


def shared_right_factor(
    readers: Sequence[Tensor],
    rank: int,
    second_moment: Tensor | None = None,
    row_weights: Sequence[Tensor] | None = None,
    damping: float = DAMPING,
) -> tuple[list[Tensor], Tensor]:
    """Factor matrices that read one vector h, with one right factor: M_i h ≈ left_i (right h).

    The right factor spans the leading right singular vectors of the stacked matrices, weighted
    as in `factorization.weighted_svd`.

    Parameters
    ----------
    readers : sequence of Tensor
        float [rows_i, size] each.
    rank : int
        In [1, min(all rows, size)].
    second_moment : Tensor, optional
        float64 [size, size], the mean of h hᵀ.
    row_weights : sequence of Tensor, optional
        float [rows_i] each, positive.
    damping : float
        Share of the mean of its diagonal that is added to the diagonal of `second_moment`.

    Returns
    -------
    lefts : list of Tensor
        float32 [rows_i, rank] each.
    right : Tensor
        float32 [rank, size] with orthonormal rows, so that right h is as large as h.
    """
    weights = None if row_weights is None else torch.cat(list(row_weights))
    terms = decompose(torch.cat(list(readers)), second_moment, weights, damping)
    basis, mixing = torch.linalg.qr(terms.right[:rank].T)  # right = mixingᵀ basisᵀ
    left = terms.left[:, :rank] * terms.singular[:rank] @ mixing.T
    lefts = left.float().split([len(reader) for reader in readers])
    return [part.contiguous() for part in lefts], basis.T.float().contiguous()


def unit_shares(projection: Tensor) -> Tensor:
    """Return how much of each projected number comes from each unit, rows with sum 1.

    Parameters
    ----------
    projection : Tensor
        float [rank, size].
    """
    squares = projection.square()
    return squares / squares.sum(1, keepdim=True).clamp(min=torch.finfo(squares.dtype).tiny)
