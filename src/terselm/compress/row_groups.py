"""Rows in groups, each with a rank of its own, apart from models and files."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from terselm.compress.factorization import Decomposition, decompose, symmetric_roots
from terselm.compress.rank_allocation import Candidate, allocate, smallest_cost

BISECTIONS = 40


def groups_by_weight(row_weights: Tensor, count: int) -> Tensor:
    """Return the group of each row: the heaviest rows first, each group as heavy as the others.

    Parameters
    ----------
    row_weights : Tensor
        float [rows], positive.
    count : int
        How many groups, at most as many as rows; every one gets at least one row.

    Returns
    -------
    Tensor
        int64 [rows], group 0 has the heaviest rows.
    """
    rows = len(row_weights)
    order = row_weights.argsort(descending=True, stable=True)
    shares = row_weights[order].double().cumsum(0) / row_weights.double().sum()
    ends = [int((shares <= (number + 1) / count).sum()) for number in range(count - 1)]
    groups = torch.empty(rows, dtype=torch.int64, device=row_weights.device)
    start = 0
    for number, end in enumerate([*ends, rows]):
        end = min(max(end, start + 1), rows - (count - 1 - number))
        groups[order[start:end]] = number
        start = end
    return groups


@dataclass(frozen=True)
class GroupedFactors:
    """A matrix whose groups of rows have factors of their own.

    Attributes
    ----------
    groups : Tensor
        int64 [rows], the group of each row.
    ranks : list of int or None
        The rank of each group; None where its rows are kept as they are.
    terms : list of Decomposition
        Of the rows of each group, in their order.
    """

    groups: Tensor
    ranks: list[int | None]
    terms: list[Decomposition] = field(repr=False)

    @property
    def error(self) -> float:
        """The weighted squared error."""
        pairs = zip(self.terms, self.ranks, strict=True)
        return sum(terms.error(rank) for terms, rank in pairs if rank is not None)


@dataclass(frozen=True)
class RowGrouping:
    """The problem: a matrix, what its rows and columns weigh, and how many numbers may stay.

    Attributes
    ----------
    weight : Tensor
        float [rows, columns].
    row_weights : Tensor
        float [rows], positive.
    second_moment : Tensor or None
        float64 [columns, columns].
    damping : float
        See `factorization.weighted_svd`.
    numbers : int
        The most numbers of all factors together.
    """

    weight: Tensor
    row_weights: Tensor
    second_moment: Tensor | None
    damping: float
    numbers: int

    def least_numbers(self, groups: Tensor) -> int:
        """Return how many numbers rank 1 for every group takes."""
        return smallest_cost(self._candidates(groups, self._decompose(groups)))

    def factor(self, groups: Tensor) -> GroupedFactors:
        """Return the best factors for given groups, ranks chosen under the budget.

        Raises
        ------
        ValueError
            If there are fewer numbers than `least_numbers`.
        """
        terms = self._decompose(groups)
        ranks = allocate(self._candidates(groups, terms), self.numbers)
        return GroupedFactors(groups, [ranks[str(number)] for number in range(len(terms))], terms)

    def refine(self, found: GroupedFactors, rounds: int) -> GroupedFactors:
        """Return better groups: each row where its own error is least for what it costs.

        One round is the refinement of Chen et al. 2018 (section 3.4) under a fixed number of
        numbers. It ends early where a round does not help.
        """
        for _ in range(rounds):
            groups = self._reassigned(found)
            counts = torch.bincount(groups, minlength=len(found.ranks))
            if int(counts.min()) == 0 or torch.equal(groups, found.groups):
                break
            if self.least_numbers(groups) > self.numbers:
                break
            again = self.factor(groups)
            if again.error >= found.error:
                break
            found = again
        return found

    def _decompose(self, groups: Tensor) -> list[Decomposition]:
        return [
            decompose(
                self.weight[groups == number],
                self.second_moment,
                self.row_weights[groups == number],
                self.damping,
            )
            for number in range(int(groups.max()) + 1)
        ]

    def _candidates(self, groups: Tensor, terms: list[Decomposition]) -> dict[str, Candidate]:
        columns = self.weight.shape[1]
        heights = torch.bincount(groups).tolist()
        return {
            str(number): Candidate(
                found.singular.square().tolist(), height + columns, height * columns
            )
            for number, (found, height) in enumerate(zip(terms, heights, strict=True))
        }

    def _reassigned(self, found: GroupedFactors) -> Tensor:
        """Return the group of each row whose error plus price is least."""
        columns = self.weight.shape[1]
        work = self.weight.double()
        root = torch.eye(columns, dtype=torch.float64, device=work.device)
        if self.second_moment is not None:
            root, _ = symmetric_roots(self.second_moment, self.damping)
        work = work @ root
        norms = work.square().sum(1)
        errors, prices = [], []
        for terms, rank in zip(found.terms, found.ranks, strict=True):
            if rank is None:
                errors.append(torch.zeros_like(norms))
                prices.append(float(columns))
                continue
            basis = terms.right[:rank] @ root  # orthonormal rows
            errors.append(norms - (work @ basis.T).square().sum(1))
            prices.append(float(rank))
        table = torch.stack(errors, 1).clamp(min=0) * self.row_weights.double().unsqueeze(1)
        price = torch.tensor(prices, dtype=torch.float64, device=work.device)
        limit = float(price[found.groups].sum())
        low, high = 0.0, float(table.max()) + 1e-30
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            if float(price[(table + middle * price).argmin(1)].sum()) > limit:
                low = middle
            else:
                high = middle
        return (table + high * price).argmin(1)
