"""Rounding that makes up for its own error, column by column, apart from models and files."""

from __future__ import annotations

import torch
from torch import Tensor

from terselm.compress.importance import damped
from terselm.compress.rounding import Grid, quantize_uniform
from terselm.linear.quantized import Quantized, group_size

BLOCK = 64
"""Columns between two updates of all columns that follow."""
LEAST_DAMPING = 1e-6
SYSTEM_NUMBERS = 2**23
"""Numbers of the systems of equations that are solved at once."""


def compensated_rounding(
    weight: Tensor,
    second_moment: Tensor,
    grid: Grid,
    *,
    damping: float = 0.01,
    by_importance: bool = False,
    sweeps: int = 2,
) -> Quantized:
    """Round a matrix so that its products with given inputs change least.

    Columns are rounded one after the other, and those not yet rounded take over what the
    rounding of each one changed in the output (GPTQ: Frantar et al. 2022, arXiv 2210.17323,
    algorithm 1, with ranges by least squares). Then the scales are fitted to the output error
    and each column is rounded anew given all others (coordinate descent).

    Parameters
    ----------
    weight : Tensor
        float [out, in], finite.
    second_moment : Tensor
        float64 [in, in], the mean of x xᵀ over the inputs x.
    grid : Grid
        The form of the result.
    damping : float
        What is added to the diagonal of the second moment, as a share of its mean.
    by_importance : bool
        Begin with the columns whose inputs are largest in the mean square.
    sweeps : int
        How often scales are fitted and columns rounded anew; 0 is plain GPTQ.

    Returns
    -------
    Quantized
        Its scales are exactly representable in float16; some are infinite where the weights
        are too large for that.
    """
    hessian = _hessian(second_moment, damping)
    importance = hessian.diagonal().float()
    # Groups of columns that are rounded in order get new ranges on the way, see `_new_range`.
    rule = "absolute_maximum" if _regroups(grid, by_importance) else "least_squares"
    start = quantize_uniform(weight, grid, rule, importance=importance)
    if not torch.isfinite(start.scales).all():
        return start
    problem = _Problem(weight.detach().float().T.contiguous(), hessian, grid, start)
    problem.round_in_order(by_importance)
    for _ in range(sweeps):
        problem.fit_scales()
        problem.round_anew()
    problem.fit_scales()
    return problem.result()


def output_error(weight: Tensor, approximation: Tensor, second_moment: Tensor) -> float:
    """Return the mean squared length of (W - Ŵ) x over inputs x of this second moment."""
    difference = (weight - approximation).detach().double()
    return float(((difference @ second_moment.double()) * difference).sum())


def _hessian(second_moment: Tensor, damping: float) -> Tensor:
    """Return the damped second moment, float64 [in, in], scaled to a diagonal of about 1.

    A matrix without any input gives the identity.
    """
    matrix = damped(second_moment, max(damping, LEAST_DAMPING))
    mean = second_moment.double().diagonal().mean()
    return matrix / mean if mean > 0 else matrix


def _regroups(grid: Grid, by_importance: bool) -> bool:
    return not by_importance and isinstance(grid.group, int)


class _Problem:
    """One matrix on its way to codes. Everything lies by columns: [in, out]."""

    def __init__(self, weight: Tensor, hessian: Tensor, grid: Grid, start: Quantized) -> None:
        self.weight = weight  # [in, out]
        self.hessian = hessian  # float64 [in, in]
        self.hessian_half = hessian.float()
        self.grid = grid
        self.columns, self.rows = weight.shape
        size = group_size(self.columns, grid.group)
        self.group_of = torch.arange(self.columns, device=weight.device) // size  # [in]
        self.scales = start.scales.detach().T.contiguous()  # [groups, out or 1]
        self.zeros = None if start.zeros is None else start.zeros.float().T.contiguous()
        self.levels = torch.zeros_like(weight)

    def _round_column(self, column: int, values: Tensor) -> Tensor:
        """Set the levels of a column to the nearest to values [out], return what they stand for."""
        group = self.group_of[column]
        zeros = None if self.zeros is None else self.zeros[group]
        levels = self.grid.levels_of(values, self.scales[group], zeros)
        self.levels[column] = levels
        return levels * self.scales[group]

    def round_in_order(self, by_importance: bool) -> None:
        """Round one column after the other; the rest takes over the error."""
        order = torch.arange(self.columns, device=self.weight.device)
        if by_importance:
            order = self.hessian.diagonal().argsort(descending=True, stable=True)
        hessian = self.hessian[order][:, order]
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        factor = torch.linalg.cholesky(inverse, upper=True).float()  # [in, in], upper
        rest = self.weight[order]
        regroup = _regroups(self.grid, by_importance)
        for start in range(0, self.columns, BLOCK):
            stop = min(start + BLOCK, self.columns)
            errors = self.weight.new_empty(stop - start, self.rows)
            for place in range(start, stop):
                if regroup and place % group_size(self.columns, self.grid.group) == 0:
                    self._new_range(place, rest, errors, factor, start, stop)
                column = int(order[place])
                rounded = self._round_column(column, rest[place])
                error = (rest[place] - rounded) / factor[place, place]
                rest[place + 1 : stop] -= factor[place, place + 1 : stop, None] * error
                errors[place - start] = error
            rest[stop:] -= factor[start:stop, stop:].T @ errors

    def _new_range(
        self, place: int, rest: Tensor, errors: Tensor, factor: Tensor, start: int, stop: int
    ) -> None:
        """Choose scale and zero point of the group that begins here, from its values so far."""
        end = min(place + group_size(self.columns, self.grid.group), self.columns)
        values = rest[place:end].clone()
        if end > stop:
            # What lies beyond the block has not taken over this block's errors yet.
            done = place - start
            values[stop - place :] -= factor[start:place, stop:end].T @ errors[:done]
        importance = self.hessian_half.diagonal()[place:end]
        grid = Grid(self.grid.bits, None, self.grid.levels, self.grid.symmetric)
        found = quantize_uniform(values.T, grid, importance=importance)
        group = self.group_of[place]
        self.scales[group] = found.scales.detach().squeeze(1)
        if self.zeros is not None and found.zeros is not None:
            self.zeros[group] = found.zeros.float().squeeze(1)

    def round_anew(self) -> None:
        """Round each column to what is best given all the others, once around."""
        diagonal = self.hessian_half.diagonal()
        approximation = self.levels * self.scales[self.group_of]
        # Half the derivative of the output error by every number: H (W - Ŵ), [in, out].
        slope = self.hessian_half @ (self.weight - approximation)
        for start in range(0, self.columns, BLOCK):
            stop = min(start + BLOCK, self.columns)
            steps = self.weight.new_empty(stop - start, self.rows)
            for column in range(start, stop):
                old = approximation[column]
                new = self._round_column(column, old + slope[column] / diagonal[column])
                step = new - old
                slope[start:stop] -= self.hessian_half[start:stop, column, None] * step
                steps[column - start] = step
            others = torch.ones(self.columns, dtype=torch.bool, device=slope.device)
            others[start:stop] = False
            slope[others] -= self.hessian_half[others][:, start:stop] @ steps

    def fit_scales(self) -> None:
        """Fit the scales to the output error, given the levels."""
        if self.grid.group == "matrix":
            self.scales = self._fitted(slice(None))
            return
        rows = max(1, SYSTEM_NUMBERS // len(self.scales) ** 2)
        for start in range(0, self.rows, rows):
            part = slice(start, start + rows)
            self.scales[:, part] = self._fitted(part)

    def _fitted(self, rows: slice) -> Tensor:
        """Return the least-squares scales of some rows, [groups, rows], exact in float16."""
        levels, old = self.levels[:, rows], self.scales[:, rows].double()
        groups, count = len(old), levels.shape[1]
        target = self.hessian_half @ self.weight[:, rows]  # [in, rows]
        products = levels.new_zeros(groups, count).index_add_(0, self.group_of, levels * target)
        squares = levels.new_empty(groups, groups, count)
        for group in range(groups):
            mine = self.group_of == group
            reach = self.hessian_half[:, mine] @ levels[mine]  # [in, rows]
            squares[group] = levels.new_zeros(groups, count).index_add_(
                0, self.group_of, reach * levels
            )
        if self.grid.group == "matrix":
            products, squares = products.sum(1, keepdim=True), squares.sum(2, keepdim=True)
        system = squares.permute(2, 0, 1).double()  # [rows, groups, groups]
        right = products.T.double()  # [rows, groups]
        diagonal = system.diagonal(dim1=1, dim2=2)
        # A hair of the old scales keeps the system solvable; groups of zeros keep them whole.
        hair = torch.where(diagonal > 0, 1e-6 * diagonal, 1.0)
        right = right + hair * old.T
        diagonal += hair
        return torch.linalg.solve(system, right).T.half().float()

    def result(self) -> Quantized:
        """Return the form that holds the levels and scales."""
        grid = self.grid
        zeros = None if self.zeros is None else self.zeros[self.group_of]
        codes = grid.codes_of(self.levels, zeros).T
        stored = None if self.zeros is None else self.zeros.T
        return Quantized(codes, self.scales.T, grid.bits, grid.group, grid.levels, stored)
