"""What each matrix loses at fewer ranks and fewer bits, measured before any search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from terselm.compress.base import Context
from terselm.compress.divergence import Divergence
from terselm.compress.factorization import DAMPING, Decomposition, decompose
from terselm.compress.statistics import Statistics
from terselm.compress.uniform import second_moment_of
from terselm.compress.weighting import input_weighting
from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank
from terselm.models.language_model import LanguageModel

SHARES = (0.08, 0.2, 0.4, 0.7)
"""Ranks that are measured, as a share of the rank at which factors stop being smaller."""
BITS = (4, 3, 2)
"""Widths that are measured; 8 bits lose next to nothing and are taken to lose `EIGHT`."""
GROUPS = {4: 32, 3: 32, 2: 16}
"""By width, the columns that share a scale where it is measured."""
REACHES = (1.0, 0.85, 0.7)
"""How far the levels reach, as a share of the largest number of a group."""
EIGHT = 1e-5
FEWEST = 4096
"""A matrix of fewer numbers is not worth a search; it is stored in 8 bits."""


@dataclass(frozen=True)
class RankProbe:
    """The divergence from the source's predictions, in nats a token, at a rank."""

    rank: int
    share: float
    divergence: float


@dataclass(frozen=True)
class BitsProbe:
    """The same at a width of the codes."""

    bits: int
    group: int | str
    divergence: float


@dataclass(frozen=True)
class MatrixSensitivity:
    """What is known of one matrix.

    Attributes
    ----------
    name : str
        Of the leaf.
    shape : (int, int)
        out, in.
    errors : tuple of float
        The weighted squared error that remains at rank 0, 1, 2, ... up to where factors stop
        being smaller, as a share of that at rank 0; empty for a matrix too small for factors.
    ranks : tuple of RankProbe
    bits : tuple of BitsProbe
    looked_up : bool
        Whether a token reads one row of it: an embedding that is not tied to the output layer.
    """

    name: str
    shape: tuple[int, int]
    errors: tuple[float, ...]
    ranks: tuple[RankProbe, ...]
    bits: tuple[BitsProbe, ...]
    looked_up: bool = False

    @property
    def numbers(self) -> int:
        """How many numbers the matrix has."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class Sensitivity:
    """What is known of all matrices.

    Attributes
    ----------
    tokens : int
        Tokens that the divergences were measured on.
    matrices : tuple of MatrixSensitivity
        In the order of the computation.
    """

    tokens: int
    matrices: tuple[MatrixSensitivity, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values from which `from_dict` makes the same."""
        return {"tokens": self.tokens, "matrices": [asdict(each) for each in self.matrices]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Sensitivity:
        """Return what `as_dict` gave the values of."""
        return cls(
            values["tokens"],
            tuple(
                MatrixSensitivity(
                    each["name"],
                    (each["shape"][0], each["shape"][1]),
                    tuple(each["errors"]),
                    tuple(RankProbe(**probe) for probe in each["ranks"]),
                    tuple(BitsProbe(**probe) for probe in each["bits"]),
                    each["looked_up"],
                )
                for each in values["matrices"]
            ),
        )

    def report(self) -> dict[str, Any]:
        """Return what a report shows: without the errors of single ranks."""
        weights = []
        for each in self.matrices:
            values = asdict(each)
            del values["errors"], values["looked_up"]
            weights.append(values)
        return {"tokens": self.tokens, "weights": weights}


def probe(
    model: LanguageModel,
    calibration: npt.NDArray[np.integer[Any]],
    statistics: Statistics,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Measure every dense matrix of a model, one at a time.

    Parameters
    ----------
    model : LanguageModel
        Unchanged.
    calibration : ndarray
        Token ids [n]; the first few thousand are used.
    statistics : Statistics
        Of the model on calibration text.
    progress : callable, optional
        Called with (matrices done, matrices in all).

    Raises
    ------
    UsageError
        If a matrix is not dense: such a model was compressed before.
    """
    check_dense(model)
    leaves = model.leaves()
    divergence = Divergence(model, calibration)
    context = Context(source=model, statistics=statistics, model=model)
    found = []
    with torch.no_grad():
        for number, (name, leaf) in enumerate(leaves.items()):
            if progress is not None:
                progress(number, len(leaves))
            looked_up = name == "embedding" and not model.ties()
            one = _probe_one(name, leaf, divergence, context)
            found.append(replace(one, looked_up=looked_up))
    return Sensitivity(divergence.tokens, tuple(found))


def check_dense(model: LanguageModel) -> None:
    """Check that a model is one to search from.

    Raises
    ------
    UsageError
        If a matrix is not dense: such a model was compressed before.
    """
    for name, leaf in model.leaves().items():
        if leaf.kind != "dense":
            raise UsageError(
                f"{name} of the model is stored {leaf.kind}, not dense; search from the model "
                "before it was compressed, or from this one after `terselm compress --recipe "
                "unpack`"
            )


def _probe_one(
    name: str, leaf: LinearOp, divergence: Divergence, context: Context
) -> MatrixSensitivity:
    rows, columns = leaf.shape
    shape = (rows, columns)
    if rows * columns < FEWEST:
        return MatrixSensitivity(name, shape, (), (), ())
    errors, ranks = _ranks(name, leaf, divergence, context)
    bits = [_bits(name, leaf, width, divergence, context) for width in BITS]
    return MatrixSensitivity(name, shape, tuple(errors), tuple(ranks), tuple(bits))


def _ranks(
    name: str, leaf: LinearOp, divergence: Divergence, context: Context
) -> tuple[list[float], list[RankProbe]]:
    rows, columns = leaf.shape
    break_even = min(rows * columns // (rows + columns), rows, columns)
    weighting = input_weighting(leaf, name, context)
    terms = decompose(leaf.dense(), weighting.second_moment, weighting.row_weights, DAMPING)
    energy = terms.singular.square()
    whole = float(energy.sum())
    if break_even < 2 or whole <= 0:
        return [], []
    rest = [whole, *(whole - energy.cumsum(0)).clamp(min=0).tolist()]
    errors = [error / whole for error in rest[: break_even + 1]]
    probes: list[RankProbe] = []
    for share in SHARES:
        rank = max(1, round(share * break_even))
        if not probes or rank > probes[-1].rank:
            lost = divergence.of(name, _factored(leaf, terms, rank))
            probes.append(RankProbe(rank, round(rank / break_even, 3), lost))
    return errors, probes


def _factored(leaf: LinearOp, terms: Decomposition, rank: int) -> LinearOp:
    left, right = terms.factors(rank)
    return LowRank(Dense(left), Dense(right)).to(leaf.dense().device)


def _bits(
    name: str, leaf: LinearOp, bits: int, divergence: Divergence, context: Context
) -> BitsProbe:
    group = GROUPS[bits]
    moment = second_moment_of(name, context.statistics, context.model)
    importance = None if moment is None else moment.diagonal()
    rounded = _rounded(leaf.dense(), bits, group, importance)
    return BitsProbe(bits, group, divergence.of(name, Dense(rounded)))


def _rounded(weight: Tensor, bits: int, group: int, importance: Tensor | None) -> Tensor:
    """Return a matrix rounded to 2^bits even levels about zero, in groups of columns.

    The levels reach as far as loses least of three; the methods that make candidates do better,
    in more time than a probe is worth.
    """
    rows, columns = weight.shape
    pad = -columns % group
    blocks = nn.functional.pad(weight, (0, pad)).view(rows, -1, group)  # [out, groups, group]
    columns_matter = torch.ones(columns) if importance is None else importance.float()
    matter = nn.functional.pad(columns_matter.to(weight), (0, pad)).view(1, -1, group)
    steps = 2 ** (bits - 1)
    best = torch.zeros_like(blocks)
    least = torch.full_like(blocks[..., :1], torch.inf)
    for reach in REACHES:
        scale = (reach * blocks.abs().amax(-1, keepdim=True) / (steps - 0.5)).clamp(min=1e-12)
        levels = (blocks / scale - 0.5).round().clamp(-steps, steps - 1) + 0.5
        error = ((levels * scale - blocks).square() * matter).sum(-1, keepdim=True)
        best = torch.where(error < least, levels * scale, best)
        least = torch.minimum(least, error)
    return best.view(rows, -1)[:, :columns].contiguous()


def loss_at_rank(matrix: MatrixSensitivity, rank: int) -> float:
    """Return the divergence at a rank, between the measured ones by the error that remains.

    Errors beyond the smallest measured rank are taken to be felt in proportion.
    """
    points = sorted((matrix.errors[probe.rank], probe.divergence) for probe in matrix.ranks)
    points = _rising([(0.0, 0.0), *points])
    error = matrix.errors[rank]
    for (left, low), (right, high) in pairwise(points):
        if error <= right and right > left:
            return low + (high - low) * (error - left) / (right - left)
    last_error, last_loss = points[-1]
    return last_loss * error / last_error if last_error > 0 else last_loss


def loss_at_bits(matrix: MatrixSensitivity, bits: int) -> float:
    """Return the divergence at a width of the codes."""
    if bits == 8:
        return EIGHT
    for probe in matrix.bits:
        if probe.bits == bits:
            return max(EIGHT, probe.divergence)
    return EIGHT


def _rising(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points with what noise turned around put right."""
    found: list[tuple[float, float]] = []
    for error, loss in points:
        found.append((error, max(loss, found[-1][1]) if found else loss))
    return found
