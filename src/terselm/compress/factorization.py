"""The mathematics of low rank, apart from models and files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

Damping = Annotated[float, Field(ge=1e-8)]
DAMPING = 0.03
"""Added to a second moment, as a share of the mean of its diagonal; without any, inputs that
never occur have no inverse."""
SMOOTHING = 1.0
"""Added to word counts: a word that calibration text happens to lack is still a word."""


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
    return decompose(weight).factors(rank)


def weighted_svd(
    weight: Tensor,
    rank: int,
    second_moment: Tensor | None = None,
    row_weights: Tensor | None = None,
    damping: float = DAMPING,
) -> tuple[Tensor, Tensor]:
    """Return the factors that err least on the inputs and rows that occur.

    Least Σ_i d_i E((W − left · right) x)_i² over inputs x with second moment S = E[x xᵀ]. With
    S = R Rᵀ that is ‖D^½ (W − left · right) R‖², so a plain SVD of D^½ W R has the answer
    (Srebro & Jaakkola 2003, section 2, for weights that are separable).

    Parameters
    ----------
    weight : Tensor
        float [out, in].
    rank : int
        In [1, min(out, in)].
    second_moment : Tensor, optional
        float64 [in, in]; the identity without it.
    row_weights : Tensor, optional
        float [out], positive: how much each row matters; all the same without them.
    damping : float
        Share of the mean of its diagonal that is added to the diagonal of `second_moment`.

    Returns
    -------
    left : Tensor
        float32 [out, rank].
    right : Tensor
        float32 [rank, in].
    """
    return decompose(weight, second_moment, row_weights, damping).factors(rank)


@dataclass(frozen=True)
class Decomposition:
    """A matrix as a sum of rank-one terms, the one that matters most first.

    Attributes
    ----------
    left : Tensor
        float64 [out, terms].
    right : Tensor
        float64 [terms, in].
    singular : Tensor
        float64 [terms], falling; W is (left · singular) right. Leaving out term k adds
        singular[k]² to the weighted error.
    """

    left: Tensor
    right: Tensor
    singular: Tensor

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return left float32 [out, rank] and right float32 [rank, in] of the first terms."""
        # The singular values are shared, so that both factors have rows of like size.
        root = self.singular[:rank].sqrt()
        left = self.left[:, :rank] * root
        right = self.right[:rank] * root.unsqueeze(1)
        return left.float().contiguous(), right.float().contiguous()

    def error(self, rank: int) -> float:
        """Return the weighted squared error of the first `rank` terms."""
        return float(self.singular[rank:].square().sum())


def decompose(
    weight: Tensor,
    second_moment: Tensor | None = None,
    row_weights: Tensor | None = None,
    damping: float = DAMPING,
) -> Decomposition:
    """Return all terms of the (weighted) singular value decomposition; see `weighted_svd`."""
    work = weight.double()
    if row_weights is not None:
        row_roots = row_weights.double().sqrt().unsqueeze(1)  # [out, 1]
        work = work * row_roots
    if second_moment is not None:
        root, inverse = symmetric_roots(second_moment, damping)
        work = work @ root
    left, singular, right = thin_svd(work)
    if row_weights is not None:
        left = left / row_roots
    if second_moment is not None:
        right = right @ inverse
    return Decomposition(left, right, singular)


def thin_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U [m, k], s [k] falling and Vᵀ [k, n] of a float64 matrix, k = min(m, n).

    By the eigenvectors of the smaller Gram matrix, which cost a fraction of a full SVD; float64
    keeps the singular values that matter exact to float32. Vectors of singular value zero are
    zero on the longer side.
    """
    if matrix.shape[0] < matrix.shape[1]:
        left, singular, right = thin_svd(matrix.T)
        return right.T, singular, left.T
    eigenvalues, basis = torch.linalg.eigh(matrix.T @ matrix)  # ascending
    basis = basis.flip(-1)
    singular = eigenvalues.flip(-1).clamp(min=0).sqrt()
    inverse = torch.where(singular > 0, 1 / singular, torch.zeros_like(singular))
    return (matrix @ basis) * inverse, singular, basis.T


def symmetric_roots(second_moment: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Return S^½ and S^-½ of the damped second moment, float64 [in, in] each."""
    moment = second_moment.double()
    extra = damping * moment.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
    eigenvalues, basis = torch.linalg.eigh(moment)
    roots = (eigenvalues.clamp(min=0) + extra).sqrt()
    return (basis * roots) @ basis.T, (basis / roots) @ basis.T


def word_weights(counts: Tensor) -> Tensor:
    """Return how much the row of each word matters, float64 [words], with sum 1.

    The square root of its (smoothed) frequency: errors in frequent words cost more often, those
    in rare ones cost more each time. On PTB the root loses less than the frequency itself and
    than equal weights, for embeddings and output layers alike.

    Parameters
    ----------
    counts : Tensor
        Integers [words], how often each is in the text.
    """
    roots = (counts.double() + SMOOTHING).sqrt()
    return roots / roots.sum()


def rank_for_fraction(out_features: int, in_features: int, fraction: float) -> int:
    """Return the largest rank whose factors hold at most `fraction` of the numbers.

    At least 1, at most the rank of the matrix.
    """
    numbers = numbers_within(fraction, out_features * in_features)
    rank = numbers // (out_features + in_features)
    return max(1, min(rank, out_features, in_features))


def numbers_within(fraction: float, numbers: int) -> int:
    """Return how many whole numbers a share of `numbers` is; 0.29 of 100 is 29."""
    return int(fraction * numbers + 1e-6)


def least_fraction(needed: int, numbers: int) -> float:
    """Return the least share, to four digits, of which `numbers_within` is enough."""
    return -(-needed * 10_000 // numbers) / 10_000
