"""What a weight is worth, and how the others make up for it, apart from models and files.

The error of a matrix W that becomes V is E ‖(W − V) x‖² over inputs x, which is the trace of
(W − V) S (W − V)ᵀ with the second moment S = E[x xᵀ]. All rows share S.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_NUMBERS = 2**24
"""Numbers of the largest temporary matrix when rows are solved one system each."""
FLOAT32_CONDITION = 1e6
"""The greatest condition number of a system that is solved in float32, which has seven digits."""


def damped(second_moment: Tensor, damping: float) -> Tensor:
    """Return S with `damping` times the mean of its diagonal added to the diagonal, float64.

    A column whose input is always zero gets a one, so that S can be inverted.
    """
    matrix = second_moment.double().clone()
    diagonal = matrix.diagonal()
    extra = damping * diagonal.mean()
    diagonal.add_(torch.where(diagonal + extra > 0, extra, torch.ones_like(diagonal)))
    return matrix


def in_solvable_type(damped_moment: Tensor, damping: float) -> Tensor:
    """Return a damped second moment in the type that is enough to solve systems of it.

    No eigenvalue is above the trace, and none below the damping, so that the condition number
    is at most columns / damping + 1.

    Parameters
    ----------
    damped_moment : Tensor
        float64 [in, in]; see `damped`.
    damping : float
        What it was damped with.

    Returns
    -------
    Tensor
        float32 [in, in], or float64 where the damping is too little for that.
    """
    enough = len(damped_moment) <= damping * FLOAT32_CONDITION
    return damped_moment.float() if enough else damped_moment


def wanda_scores(weight: Tensor, mean_square: Tensor) -> Tensor:
    """Return |W[i, j]| times the norm of input j (Sun et al. 2023, arXiv 2306.11695, eq. 1).

    Parameters
    ----------
    weight : Tensor
        float [out, in].
    mean_square : Tensor
        float [in], the mean of x_j².
    """
    return weight.abs() * mean_square.sqrt().to(weight.dtype)


def surgeon_scores(weight: Tensor, second_moment: Tensor) -> Tensor:
    """Return the error that leaving out one weight costs when its row makes up for it.

    W[i, j]² / [S⁻¹]_jj, the saliency of the optimal brain surgeon (Hassibi & Stork 1993) on
    the error of one layer; without making up for it, it would be W[i, j]² S_jj.

    Parameters
    ----------
    weight : Tensor
        float [out, in].
    second_moment : Tensor
        float64 [in, in], positive definite (see `damped`).
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(second_moment))
    return weight.square() / inverse.diagonal().to(weight.dtype)


def weighted_rows(scores: Tensor, frequencies: Tensor, power: float) -> Tensor:
    """Return scores [out, in] times (frequency / mean score of the row) ** power.

    Between comparing weights across rows as they are and giving every row the same share, and
    between an error of a rare word that matters as little as the word and one that matters as
    much as any. The mean over the matrix stays, so that other matrices can be compared.

    Parameters
    ----------
    scores : Tensor
        float [out, in].
    frequencies : Tensor
        float [out], positive.
    power : float
    """
    means = scores.mean(dim=1)
    factor = torch.where(means > 0, frequencies / means, torch.zeros_like(means)) ** power
    weighted = scores * factor.unsqueeze(1)
    total = weighted.mean()
    return weighted * (scores.mean() / total) if total > 0 else scores


def compensate(weight: Tensor, mask: Tensor, second_moment: Tensor) -> Tensor:
    """Return the weights at the places of the mask that have the least error for it.

    For row w with places K the optimum is w_K + S_KK⁻¹ S_Kr w_r, r being the places left out:
    least squares, exact, each row on its own.

    Parameters
    ----------
    weight : Tensor
        float [out, in].
    mask : Tensor
        bool [out, in].
    second_moment : Tensor
        float [in, in], positive definite.

    Returns
    -------
    Tensor
        float32 [out, in], zero where the mask is false.
    """
    result = torch.zeros_like(weight, dtype=torch.float32)
    for rows, places, solved, _ in _solutions(weight, mask, second_moment):
        result[rows] = result[rows].scatter(1, places, solved.float())
    return result


def next_costs(weight: Tensor, mask: Tensor, second_moment: Tensor) -> Tensor:
    """Return the error that leaving out one more weight of the mask would cost.

    v[i, j]² / [(S_KK)⁻¹]_jj with the compensated weights v and the places K of their row: the
    surgeon's saliency, exact for what is left.

    Parameters
    ----------
    weight, mask, second_moment
        As for `compensate`.

    Returns
    -------
    Tensor
        float32 [out, in], zero where the mask is false.
    """
    result = torch.zeros_like(weight, dtype=torch.float32)
    for rows, places, solved, factor in _solutions(weight, mask, second_moment):
        inverse = torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)
        costs = solved.square() / inverse
        result[rows] = result[rows].scatter(1, places, costs.float())
    return result


def _solutions(
    weight: Tensor, mask: Tensor, second_moment: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Solve the least-squares systems of rows with about as many places together.

    Yields
    ------
    rows : Tensor
        int64 [n].
    places : Tensor
        int64 [n, width], the columns of the mask in each row, then fillers.
    solved : Tensor
        [n, width], the weights at these places; zero for fillers.
    factor : Tensor
        [n, width, width], Cholesky factor of S_KK; the identity for fillers.
    """
    columns = weight.shape[1]
    target = weight.to(second_moment.dtype) @ second_moment  # [out, in]
    counts = mask.sum(dim=1)
    order = counts.argsort(descending=True)  # rows with alike many places go together
    start = 0
    while start < len(order):
        width = int(counts[order[start]])
        rows = order[start : start + max(1, CHUNK_NUMBERS // max(1, width * width))]
        start += len(rows)
        if width == 0:
            return
        # The kept columns first, then others as fillers.
        places = mask[rows].to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        places = places[:, :width]
        real = torch.arange(width, device=weight.device) < counts[rows].unsqueeze(1)
        systems = second_moment.reshape(-1)[
            places.unsqueeze(2) * columns + places.unsqueeze(1)
        ]  # [n, width, width]
        both = real.unsqueeze(2) & real.unsqueeze(1)
        systems = torch.where(both, systems, torch.zeros_like(systems))
        systems.diagonal(dim1=1, dim2=2)[~real] = 1.0
        goal = target[rows].gather(1, places) * real
        factor = torch.linalg.cholesky(systems)
        solved = torch.cholesky_solve(goal.unsqueeze(2), factor).squeeze(2) * real
        yield rows, places, solved, factor
