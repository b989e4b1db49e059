"""Ranks for the whole model under one budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.divergence import Divergence
from terselm.compress.factorization import (
    DAMPING,
    Decomposition,
    decompose,
    least_fraction,
    numbers_within,
)
from terselm.compress.mixed_bits import HELD_BACK
from terselm.compress.rank_allocation import (
    Candidate,
    allocate,
    measured_gains,
    smallest_cost,
)
from terselm.compress.stored_type import stored_type_of
from terselm.compress.weighting import Weighting, input_weighting
from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank
from terselm.models.checkpoint import lay_out
from terselm.models.language_model import LanguageModel

Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Bytes = Annotated[int, Field(ge=1)]
PROBES = (0.15, 0.4, 0.8)
"""Ranks at which the loss is measured, as a share of the rank where factors stop being smaller."""
CORRECTIONS = 8
ENOUGH = 0.002
"""The search for a number of bytes ends when the file is so close to it."""


@plain_dataclass(frozen=True)
class Plan:
    """What `rank_budget` found for the whole step.

    Attributes
    ----------
    terms : dict of str to Decomposition
        By the name of the leaf.
    ranks : dict of str to int or None
        None where the matrix stays as it is.
    """

    terms: dict[str, Decomposition]
    ranks: dict[str, int | None]


@register_method("rank_budget")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class RankBudget(WeightMethod):
    """Factor all matrices, with the ranks that lose least at a given size of the file.

    A singular value is worth what leaving it out does to the predictions: its square, weighted by
    the inputs and words of calibration text, is the error, and how much an error of this matrix
    is felt is measured at three ranks, as divergence from the model's own predictions. The budget
    is spent where a byte is worth most; a matrix not worth factoring stays as it is.

    Paper: singular values as the price of a rank, Eckart & Young 1936; spending by gain for
    cost, Shoham & Gersho 1988 (IEEE Trans. ASSP 36).

    Recipe::

        - {method: rank_budget, share: 0.5}

    Cost: as for `low_rank`, and three short runs for each matrix over calibration text (`--data`).

    When not: to make one matrix small, `low_rank` does it with less machinery.

    Parameters
    ----------
    bytes : int or None
        The most bytes of the file after this step, 1,024 of them held back for recipe and
        perplexity, which go into the file later.
    share : float or None
        The most parameters of the step's matrices, as a share of what they are. Exactly one of
        `bytes` and `share` is given.
    weighting : {"inputs", "none"}
        "none" needs no text: a singular value is worth its square as a share of all squares of
        its matrix.
    """

    takes = ("dense",)

    bytes: Bytes | None = None
    share: Fraction | None = None
    weighting: Literal["inputs", "none"] = "inputs"

    @model_validator(mode="after")
    def _check(self) -> RankBudget:
        if (self.bytes is None) == (self.share is None):
            raise ValueError("give exactly one of bytes and share")
        return self

    def needs_statistics(self) -> bool:
        """Return whether singular values are weighted."""
        return self.weighting == "inputs"

    def prepare(self, leaves: Mapping[str, LinearOp], context: Context) -> Plan:
        """Choose all ranks.

        Raises
        ------
        UsageError
            If even rank 1 everywhere is too large; the message has the nearest that is not.
        """
        if context.model is None:
            raise ValueError("rank_budget needs the model; call compress()")
        divergence = None
        if self.weighting == "inputs" and context.calibration is not None:
            divergence = Divergence(context.model, context.calibration)
        terms: dict[str, Decomposition] = {}
        candidates: dict[str, Candidate] = {}
        for name, leaf in leaves.items():
            weighting = self._weighting(leaf, name, context)
            found = decompose(leaf.dense(), weighting.second_moment, weighting.row_weights, DAMPING)
            terms[name] = found
            # Factors keep the stored type of their matrix, so numbers of it are the unit.
            itemsize = leaf.cost().bytes // leaf.parameter_count()
            candidates[name] = Candidate(
                _gains(leaf, name, found, divergence),
                (leaf.out_features + leaf.in_features) * itemsize,
                leaf.out_features * leaf.in_features * itemsize,
            )
        return Plan(terms, self._choose(leaves, candidates, context.model))

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return the factors of one matrix, or the matrix where that was the better choice."""
        plan = context.prepared
        assert isinstance(plan, Plan)
        rank = plan.ranks[name]
        if rank is None:
            return leaf
        return _factored(leaf, plan.terms[name], rank)

    def _weighting(self, leaf: LinearOp, name: str, context: Context) -> Weighting:
        return input_weighting(leaf, name, context) if self.weighting == "inputs" else Weighting()

    def _choose(
        self,
        leaves: Mapping[str, LinearOp],
        candidates: Mapping[str, Candidate],
        model: LanguageModel,
    ) -> dict[str, int | None]:
        least = smallest_cost(candidates)
        dense = sum(matrix.dense_cost for matrix in candidates.values())
        if self.share is not None:
            budget = numbers_within(self.share, dense)
            if budget < least:
                raise UsageError(
                    f"share {self.share} is too small for rank 1 everywhere; "
                    f"the least is {least_fraction(least, dense)}"
                )
            return allocate(candidates, budget)
        assert self.bytes is not None
        trial = _Trial(model, leaves)
        smallest = trial.size(allocate(candidates, least))
        if smallest > self.bytes:
            raise UsageError(
                f"bytes {self.bytes} is too small for rank 1 everywhere; the least is {smallest}"
            )
        # What is not factors (header, vocabulary, fillers) hardly changes with the ranks.
        budget = min(dense, self.bytes - smallest + least)
        best = allocate(candidates, least)
        for _ in range(CORRECTIONS):
            ranks = allocate(candidates, budget)
            room = self.bytes - trial.size(ranks)
            if room >= 0:
                best = ranks
            if 0 <= room < ENOUGH * self.bytes or budget == dense:
                break
            budget = min(dense, max(least, budget + room))
        return best


def _gains(
    leaf: LinearOp, name: str, terms: Decomposition, divergence: Divergence | None
) -> list[float]:
    """Return what each rank of a matrix is worth."""
    energy = terms.singular.square()
    if divergence is None:
        return (energy / energy.sum().clamp(min=1e-30)).tolist()
    errors = [*energy.flip(0).cumsum(0).flip(0).tolist(), 0.0]
    break_even = leaf.out_features * leaf.in_features // (leaf.out_features + leaf.in_features)
    ranks = {max(1, int(share * min(break_even, len(energy)))) for share in PROBES}
    probes = {rank: divergence.of(name, _factored(leaf, terms, rank)) for rank in sorted(ranks)}
    return measured_gains(errors, probes)


def _factored(leaf: LinearOp, terms: Decomposition, rank: int) -> LinearOp:
    left, right = terms.factors(rank)
    kind = stored_type_of(leaf)
    return LowRank(Dense(left, kind), Dense(right, kind))


class _Trial:
    """Tells the size of the file for given ranks, with what is held back."""

    def __init__(self, model: LanguageModel, leaves: Mapping[str, LinearOp]) -> None:
        self._model = model.clone()
        self._leaves = leaves

    def size(self, ranks: Mapping[str, int | None]) -> int:
        for whole, op in self._model.weights().items():
            self._model.replace_weight(whole, self._rebuilt(op, whole, ranks))
        return lay_out(self._model).size + HELD_BACK

    def _rebuilt(self, op: LinearOp, name: str, ranks: Mapping[str, int | None]) -> LinearOp:
        if name in ranks:
            return _placeholder(self._leaves[name], ranks[name])
        children = op.children_by_name()
        if not children:
            return op
        return op.with_children(
            {key: self._rebuilt(child, f"{name}.{key}", ranks) for key, child in children.items()}
        )


def _placeholder(leaf: LinearOp, rank: int | None) -> LinearOp:
    if rank is None:
        return leaf
    kind = stored_type_of(leaf)
    return LowRank(
        Dense(torch.zeros(leaf.out_features, rank), kind),
        Dense(torch.zeros(rank, leaf.in_features), kind),
    )
