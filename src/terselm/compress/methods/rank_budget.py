"""Ranks for the whole model under one budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.factorization import (
    DAMPING,
    Decomposition,
    decompose,
    least_fraction,
    numbers_within,
)
from terselm.compress.rank_allocation import Candidate, allocate, smallest_cost
from terselm.compress.sensitivity import output_sensitivities
from terselm.compress.weighting import Weighting, frequency_scale, input_weighting
from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank
from terselm.models.checkpoint import lay_out
from terselm.models.language_model import LanguageModel

Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Bytes = Annotated[int, Field(ge=1)]
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

    Every singular value is worth the rise of the loss that leaving it out would cost, to second
    order: its square, weighted by the inputs and words of calibration text, times how much the
    loss feels an error in that matrix's outputs. The budget is spent where a byte is worth
    most; a matrix that is not worth factoring stays as it is.

    Paper: singular values as the price of a rank, Eckart & Young 1936; spending by gain for
    cost, Shoham & Gersho 1988 (IEEE Trans. ASSP 36).

    Recipe::

        - {method: rank_budget, share: 0.5}

    Cost: as for `low_rank`, and a backward pass over some calibration text (`--data`).

    When not: to make one matrix small, `low_rank` does it with less machinery.

    Parameters
    ----------
    bytes : int or None
        The most bytes of the file after this step.
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
        scales = self._scales(leaves, context)
        terms: dict[str, Decomposition] = {}
        candidates: dict[str, Candidate] = {}
        for name, leaf in leaves.items():
            weighting = self._weighting(leaf, name, context)
            found = decompose(leaf.dense(), weighting.second_moment, weighting.row_weights, DAMPING)
            terms[name] = found
            energy = found.singular.square()
            scale = scales.get(name, 1.0 / max(float(energy.sum()), 1e-30))
            scale *= frequency_scale(leaf.dense(), weighting, context)
            # Factors keep the stored type of their matrix, so numbers of it are the unit.
            itemsize = leaf.cost().bytes // leaf.parameter_count()
            candidates[name] = Candidate(
                (energy * scale).tolist(),
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
        left, right = plan.terms[name].factors(rank)
        kind = _stored_type(leaf)
        return LowRank(Dense(left, kind), Dense(right, kind))

    def _weighting(self, leaf: LinearOp, name: str, context: Context) -> Weighting:
        return input_weighting(leaf, name, context) if self.weighting == "inputs" else Weighting()

    def _scales(self, leaves: Mapping[str, LinearOp], context: Context) -> dict[str, float]:
        """Return what one unit of weighted squared error of each matrix costs, in half nats."""
        if self.weighting == "none":
            return {}
        assert context.model is not None
        assert context.calibration is not None
        felt = output_sensitivities(context.model, context.calibration)
        # Rows of the output layer are weighted by their words, which is all there is to it:
        # the second derivative in logit i is p_i (1 - p_i).
        return {name: felt.get(name, 1.0) for name in leaves}

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


class _Trial:
    """Tells the size of the file for given ranks."""

    def __init__(self, model: LanguageModel, leaves: Mapping[str, LinearOp]) -> None:
        self._model = model.clone()
        self._leaves = leaves

    def size(self, ranks: Mapping[str, int | None]) -> int:
        for whole, op in self._model.weights().items():
            self._model.replace_weight(whole, self._rebuilt(op, whole, ranks))
        return lay_out(self._model).size

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
    kind = _stored_type(leaf)
    return LowRank(
        Dense(torch.zeros(leaf.out_features, rank), kind),
        Dense(torch.zeros(rank, leaf.in_features), kind),
    )


def _stored_type(leaf: LinearOp) -> str:
    assert isinstance(leaf, Dense)
    return leaf.stored_type
