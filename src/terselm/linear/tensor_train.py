"""The tensor-train form: a matrix as a chain of small cores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terselm.errors import TerselmError
from terselm.linear.base import FORMS, Cost, LinearOp, op_from_file, read_shape
from terselm.linear.dense import Dense

CORE = "core"
"""Children are named core0, core1, ... from the slowest index to the fastest."""
MAX_CORES = 16
MAX_PADDING = 2
"""A padded side is at most this many times the side itself."""


LARGEST_BETWEEN = 1 << 24
"""Numbers between two cores for all vectors at once: 64 MiB; a rank is paid with these."""


@FORMS.register("tensor_train")
class TensorTrain(LinearOp):
    """W[i, j] = G₁[i₁, j₁] · G₂[i₂, j₂] ··· G_d[i_d, j_d], a product of small matrices.

    Row i and column j are written as digits i₁ ... i_d and j₁ ... j_d, the first the slowest,
    in the bases `row_shape` and `column_shape`; where those make more rows or columns than the
    matrix has, the rest is cut off. Source: Oseledets 2011 (SIAM J. Sci. Comput. 33) for the
    tensor train, Novikov et al. 2015 (arXiv 1509.06569) for matrices.

    Parameters
    ----------
    cores : sequence of LinearOp
        Core m is [r_{m-1} · rows_m, columns_m · r_m], its rows numbered (rank, digit) and its
        columns (digit, rank), with r_0 = r_d = 1.
    row_shape, column_shape : sequence of int
        Bases of the digits, one a core.
    shape : (int, int)
        Rows and columns of the matrix.

    Raises
    ------
    TerselmError
        If the cores do not fit the shapes or one another.
    """

    kind = "tensor_train"

    def __init__(
        self,
        cores: Sequence[LinearOp],
        row_shape: Sequence[int],
        column_shape: Sequence[int],
        shape: tuple[int, int],
    ) -> None:
        super().__init__(*shape)
        self.row_shape = tuple(row_shape)
        self.column_shape = tuple(column_shape)
        check_digits("row_shape", self.row_shape, self.out_features)
        check_digits("column_shape", self.column_shape, self.in_features)
        self.ranks = _ranks_of(cores, self.row_shape, self.column_shape)
        self.cores = nn.ModuleList(cores)

    @classmethod
    def initialize(
        cls,
        row_shape: Sequence[int],
        column_shape: Sequence[int],
        ranks: Sequence[int],
        shape: tuple[int, int] | None = None,
        bound: float | None = None,
    ) -> TensorTrain:
        """Return random cores whose matrix has the variance of `Dense.initialize`.

        Parameters
        ----------
        row_shape, column_shape : sequence of int
            One factor a core.
        ranks : sequence of int
            The inner ranks r_1 ... r_{d-1}.
        shape : (int, int), optional
            Rows and columns; all that the factors make without it.
        bound : float, optional
            The dense matrix would be drawn from ±bound; default 1 / sqrt(columns).
        """
        shape = shape or (math.prod(row_shape), math.prod(column_shape))
        bound = 1 / math.sqrt(shape[1]) if bound is None else bound
        edges = [1, *ranks, 1]
        cores = [
            torch.randn(edges[m] * rows, columns * edges[m + 1])
            for m, (rows, columns) in enumerate(zip(row_shape, column_shape, strict=True))
        ]
        # A product of few random numbers is far from its expected size; so scale by what it is.
        square = _square_norm(cores, edges) / math.prod(row_shape) / math.prod(column_shape)
        scale = (bound**2 / 3 / square) ** (0.5 / len(cores))
        return cls([Dense(core * scale) for core in cores], row_shape, column_shape, shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ core by core, float32 [..., out]; in training by way of W where faster."""
        vectors = x.reshape(-1, self.in_features)
        if torch.is_grad_enabled() and self._is_faster_dense(len(vectors)):
            return x @ self.dense().T
        parts = vectors.split(max(1, LARGEST_BETWEEN // self._largest_between()))
        result = torch.cat([self._chain(part) for part in parts])
        return result.reshape(*x.shape[:-1], self.out_features)

    def _largest_between(self) -> int:
        """Return how many numbers there are between two cores, at most, for one vector."""
        done, to_do, most = 1, math.prod(self.column_shape), 1
        for m in reversed(range(len(self.cores))):
            to_do //= self.column_shape[m]
            done *= self.row_shape[m]
            most = max(most, done * to_do * self.ranks[m])
        return most

    def _chain(self, vectors: Tensor) -> Tensor:
        """Return the product core by core, [n, out], for vectors [n, in]."""
        batch = len(vectors)
        vectors = nn.functional.pad(vectors, (0, math.prod(self.column_shape) - self.in_features))
        # [batch, row digits done (fastest first made), column digits to do, columns_m · r_m]
        before = math.prod(self.column_shape[:-1])
        values = vectors.reshape(batch, 1, before, self.column_shape[-1])
        for m in reversed(range(len(self.cores))):
            values = self.cores[m](values)  # [batch, done, to do, r_{m-1} · rows_m]
            done, to_do = values.shape[1:3]
            rank, rows = self.ranks[m], self.row_shape[m]
            columns = self.column_shape[m - 1] if m else 1
            values = values.reshape(batch, done, to_do // columns, columns * rank, rows)
            # The new row digit is slower than those done: put it in front of them.
            values = values.permute(0, 4, 1, 2, 3).reshape(
                batch, rows * done, to_do // columns, columns * rank
            )
        return values.flatten(1)[:, : self.out_features]

    def dense(self) -> Tensor:
        """Return the matrix, float32 [out, in]."""
        made = torch.ones(1, 1, 1, device=self._core(0).dense().device)  # [rows, columns, rank]
        for m, (rows, columns) in enumerate(zip(self.row_shape, self.column_shape, strict=True)):
            core = self._core(m).dense().view(self.ranks[m], rows, columns, self.ranks[m + 1])
            made = torch.einsum("ijr,rkls->ikjls", made, core)
            made = made.reshape(made.shape[0] * rows, -1, self.ranks[m + 1])
        return made.squeeze(-1)[: self.out_features, : self.in_features]

    def _is_faster_dense(self, vectors: int) -> bool:
        made = building = 1
        chain = 0  # not that of `cost`, for which cores of codes are packed
        for m, (rows, columns) in enumerate(zip(self.row_shape, self.column_shape, strict=True)):
            made *= rows * columns
            building += made * self.ranks[m] * self.ranks[m + 1]
            chain += self.core_uses(m) * math.prod(self._core(m).shape)
        dense = self.out_features * self.in_features
        return building + vectors * dense < vectors * chain

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix from slices of the cores, float32 [*ids.shape, in]."""
        flat = ids.reshape(-1)
        digits = _digits(flat, self.row_shape)  # d tensors [n]
        made = torch.ones(len(flat), 1, 1, device=ids.device)  # [n, columns made, r_{m-1}]
        columns = 1
        for m, digit in enumerate(digits):
            rank = torch.arange(self.ranks[m], device=ids.device)
            core_rows = rank * self.row_shape[m] + digit.unsqueeze(-1)  # [n, r_{m-1}]
            piece = self._core(m).rows(core_rows)  # [n, r_{m-1}, columns_m · r_m]
            columns *= self.column_shape[m]  # not -1, which of no ids is undefined
            made = (made @ piece).reshape(len(flat), columns, self.ranks[m + 1])
        return made.squeeze(-1)[:, : self.in_features].reshape(*ids.shape, self.in_features)

    def _core(self, number: int) -> LinearOp:
        core = self.cores[number]
        assert isinstance(core, LinearOp)
        return core

    def children_by_name(self) -> dict[str, LinearOp]:
        """Return the cores as core0, core1, ..."""
        return {f"{CORE}{m}": self._core(m) for m in range(len(self.cores))}

    def with_children(self, children: Mapping[str, LinearOp]) -> TensorTrain:
        """Return the chain of other cores."""
        cores = [children[key] for key in self.children_by_name()]
        return TensorTrain(cores, self.row_shape, self.column_shape, self.shape)

    def options(self) -> dict[str, Any]:
        """Return the shapes of both sides and the ranks."""
        return {
            "row_shape": list(self.row_shape),
            "column_shape": list(self.column_shape),
            "ranks": list(self.ranks[1:-1]),
        }

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TensorTrain:
        """Build the form; see `LinearOp.from_file`."""
        shape = read_shape(spec)
        row_shape = _read_sizes(spec, "row_shape")
        column_shape = _read_sizes(spec, "column_shape")
        ranks = _read_sizes(spec, "ranks", least=0)
        names = [f"{CORE}{m}" for m in range(len(row_shape))]
        cores = [op_from_file(spec.get(name, {}), tensors, name) for name in names]
        op = cls(cores, row_shape, column_shape, shape)
        if ranks != list(op.ranks[1:-1]):
            raise TerselmError(
                f"its cores have ranks {list(op.ranks[1:-1])}, the description says {ranks}"
            )
        return op

    def cost(self) -> Cost:
        """Return the cost of the chain: each core is read once and used for many vectors."""
        return sum(self.core_costs().values(), Cost(0, 0, 0))

    def core_costs(self) -> dict[str, Cost]:
        """Return what each core adds to a product with one vector, by name."""
        costs = {}
        for m, (name, core) in enumerate(self.children_by_name().items()):
            own = core.cost()
            costs[name] = Cost(own.bytes, self.core_uses(m) * own.macs, own.bytes_read)
        return costs

    def core_uses(self, number: int) -> int:
        """Return how many vectors the core is multiplied with in one product of the matrix."""
        return math.prod(self.column_shape[:number]) * math.prod(self.row_shape[number + 1 :])

    def row_cost(self) -> Cost:
        """Return the cost of taking one row, as an embedding does each step."""
        return sum(self.core_row_costs().values(), Cost(0, 0, 0))

    def core_row_costs(self) -> dict[str, Cost]:
        """Return what each core adds to the cost of taking one row, by name."""
        costs = {}
        for m, (name, core) in enumerate(self.children_by_name().items()):
            own = core.cost()
            # The first core's row is where the product starts.
            vectors = math.prod(self.column_shape[:m]) * self.ranks[m] if m else 0
            read = -(-own.bytes_read // self.row_shape[m])
            costs[name] = Cost(own.bytes, vectors * core.in_features, read)
        return costs


def check_digits(name: str, sizes: Sequence[int], side: int) -> None:
    """Refuse factors of a side that make fewer rows or columns than it has, or far more.

    Raises
    ------
    TerselmError
        The message starts with `name` and says what would do.
    """
    product = math.prod(sizes)
    if not side <= product <= MAX_PADDING * side:
        raise TerselmError(
            f"{name} {list(sizes)} makes {product}, expected {side} to {MAX_PADDING * side}"
        )


def _ranks_of(
    cores: Sequence[LinearOp], row_shape: Sequence[int], column_shape: Sequence[int]
) -> tuple[int, ...]:
    """Return r_0 ... r_d, after checking that the cores make a chain."""
    if not 1 <= len(cores) <= MAX_CORES:
        raise TerselmError(f"it has {len(cores)} cores, expected 1 to {MAX_CORES}")
    if not len(cores) == len(row_shape) == len(column_shape):
        raise TerselmError(
            f"row_shape has {len(row_shape)} factors and column_shape {len(column_shape)}, "
            f"expected one for each of its {len(cores)} cores"
        )
    ranks = [1]
    for m, (core, rows, columns) in enumerate(zip(cores, row_shape, column_shape, strict=True)):
        after, rest = divmod(core.in_features, columns)
        if core.out_features != ranks[-1] * rows or rest:
            raise TerselmError(
                f"{CORE}{m} is {list(core.shape)}, expected {ranks[-1] * rows} rows and a "
                f"multiple of {columns} columns"
            )
        ranks.append(after)
    if ranks[-1] != 1:
        raise TerselmError(
            f"{CORE}{len(cores) - 1} is {list(cores[-1].shape)}, "
            f"expected {column_shape[-1]} columns"
        )
    return tuple(ranks)


def _read_sizes(spec: Mapping[str, Any], name: str, least: int = 1) -> list[int]:
    sizes = spec.get(name)
    if (
        not isinstance(sizes, list)
        or not least <= len(sizes) <= MAX_CORES
        or not all(type(size) is int and 0 < size < 2**31 for size in sizes)
    ):
        raise TerselmError(f"{name} is {sizes!r}, expected up to {MAX_CORES} positive integers")
    return sizes


def _digits(numbers: Tensor, bases: Sequence[int]) -> list[Tensor]:
    """Return the digits of int64 [n] numbers, the slowest first."""
    digits = []
    for base in reversed(bases):
        digits.append(numbers % base)
        numbers = numbers // base
    return digits[::-1]


def _square_norm(cores: Sequence[Tensor], ranks: Sequence[int]) -> float:
    """Return the sum of squares of the padded matrix, from the cores alone."""
    gram = torch.ones(1, 1, dtype=torch.float64)  # [r, r]
    for m, core in enumerate(cores):
        slices = core.double().view(ranks[m], -1, ranks[m + 1])  # [r_{m-1}, digits, r_m]
        gram = torch.einsum("ab,ani,bnj->ij", gram, slices, slices)
    return float(gram)
