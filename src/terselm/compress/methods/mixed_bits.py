"""Bits for each matrix, within a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from terselm.compress.base import OPTIONS, Context, WeightMethod, register_method
from terselm.compress.divergence import Divergence
from terselm.compress.error_compensation import compensated_rounding
from terselm.compress.leaves import change_leaves
from terselm.compress.mixed_bits import (
    ALIGNMENT,
    HELD_BACK,
    Choice,
    allocate,
    noise_to_signal,
    smallest_of,
)
from terselm.compress.rounding import quantize_uniform
from terselm.compress.statistics import STREAMS, WARM_UP, Statistics
from terselm.compress.streams import parallel_streams
from terselm.compress.uniform import Bits, checked, grid_for, second_moment_of
from terselm.errors import UsageError
from terselm.linear.base import LinearOp, tensor_bytes
from terselm.linear.quantized import Quantized
from terselm.models.checkpoint import lay_out
from terselm.models.language_model import LanguageModel

WAYS: tuple[tuple[int, int | str], ...] = (
    (8, "row"),
    (4, 32),
    (4, 128),
    (3, 32),
    (3, 128),
    (2, 16),
    (2, 32),
)
"""Bits and groups that a matrix may get."""
STEPS = 40
"""Steps of text that the divergence is measured on, in 32 streams, with the warm-up."""


@register_method("mixed_bits")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class MixedBits(WeightMethod):
    """Quantize each matrix with as many bits as it needs, within a budget.

    Each matrix is quantized in every way (8, 4, 3 or 2 bits, in several groups) and what that
    costs is measured, one matrix at a time. Then the ways whose costs add up to least within
    the budget are taken, by dynamic programming.

    Paper: sensitivities as in HAWQ (Dong et al. 2019, arXiv 1905.03696) and its allocation
    under a budget (Yao et al. 2021, arXiv 2011.10680); here they are measured and not
    estimated from curvature.

    Recipe::

        - {method: mixed_bits, weights: "*", bytes: 2000000}

    Cost: what the budget says; needs calibration text (`--data`). Minutes, since every matrix
    is quantized in seven ways.

    When not: for a model whose matrices are alike, `gptq` with one width is as good.

    Parameters
    ----------
    bytes : int or None
        Bytes of the whole file. A kilobyte of it is left for the recipe.
    average_bits : float or None
        Bits a weight, scales counted, over the matrices that are quantized. Give this or
        `bytes`.
    bits : tuple of int
        Which widths to choose from.
    rounding : {"gptq", "least_squares"}
        How matrices are rounded; see the methods `gptq` and `quantize`.
    sensitivity : {"divergence", "error"}
        What a way costs: how far it alone moves the model's predictions, or, quicker, the
        noise it adds to the matrix's product as a share of the product.
    """

    takes = ("dense",)
    uses_statistics = True

    bytes: Annotated[int, Field(gt=0)] | None = None
    average_bits: Annotated[float, Field(gt=0.0)] | None = None
    bits: Annotated[tuple[Bits, ...], Field(min_length=1)] = (8, 4, 3, 2)
    rounding: Literal["gptq", "least_squares"] = "gptq"
    sensitivity: Literal["divergence", "error"] = "divergence"

    @model_validator(mode="after")
    def _check(self) -> MixedBits:
        if (self.bytes is None) == (self.average_bits is None):
            raise ValueError("give either bytes or average_bits")
        return self

    def prepare(self, leaves: Mapping[str, LinearOp], context: Context) -> dict[str, Quantized]:
        """Return the quantized form of every leaf.

        Raises
        ------
        UsageError
            If the budget cannot be met; the message names the nearest that can.
        """
        model, calibration = context.model, context.calibration
        if model is None or calibration is None:
            raise UsageError("needs a model and calibration text; give --data")
        candidates = self._candidates(leaves, model, calibration, context.statistics)
        choices = {
            name: [Choice(candidate.bytes, candidate.loss) for candidate in of_one]
            for name, of_one in candidates.items()
        }
        if self.average_bits is None:
            return self._within_bytes(model, candidates, choices)
        numbers = sum(leaf.parameter_count() for leaf in leaves.values())
        least = sum(min(choice.bytes for choice in of_one) for of_one in choices.values())
        budget = int(self.average_bits * numbers / 8)
        if least > budget:
            raise UsageError(
                f"average_bits {self.average_bits:g} cannot be met with bits {list(self.bits)}; "
                f"the nearest is {math.ceil(8000 * least / numbers) / 1000:g}"
            )
        return _pick(candidates, allocate(choices, budget))

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return what `prepare` chose for this leaf."""
        op: Quantized = context.prepared[name]
        return op

    def _within_bytes(
        self,
        model: LanguageModel,
        candidates: dict[str, list[_Candidate]],
        choices: dict[str, list[Choice]],
    ) -> dict[str, Quantized]:
        assert self.bytes is not None
        smallest = {name: smallest_of(of_one) for name, of_one in choices.items()}
        size = _file_size(model, _pick(candidates, smallest))
        if size > self.bytes:
            raise UsageError(
                f"{self.bytes:,} bytes cannot be met with bits {list(self.bits)}; "
                f"the nearest is {size:,}"
            )
        least = sum(choices[name][place].bytes for name, place in smallest.items())
        spare = self.bytes - size
        while True:
            found = _pick(candidates, allocate(choices, least + max(spare, 0)))
            # The descriptions in the header differ by some bytes too.
            excess = _file_size(model, found) - self.bytes
            if excess <= 0 or spare <= 0:
                return found
            spare -= max(excess, ALIGNMENT)

    def _candidates(
        self,
        leaves: Mapping[str, LinearOp],
        model: LanguageModel,
        calibration: npt.NDArray[np.integer[Any]],
        statistics: Statistics | None,
    ) -> dict[str, list[_Candidate]]:
        """Return by leaf the ways to store it and what each costs."""
        divergence = None
        if self.sensitivity == "divergence":
            divergence = Divergence(model, parallel_streams(calibration, STREAMS)[:STEPS], WARM_UP)
        found: dict[str, list[_Candidate]] = {}
        for name, leaf in leaves.items():
            weight = leaf.dense()
            moment = second_moment_of(name, statistics, model)
            found[name] = []
            for bits, group in self._ways():
                op = self._rounded(weight, name, bits, group, moment)
                if divergence is None:
                    loss = noise_to_signal(weight, op.dense(), moment)
                else:
                    loss = divergence.of(name, op)
                found[name].append(_Candidate(op, loss))
        return found

    def _ways(self) -> list[tuple[int, int | str]]:
        return [way for way in WAYS if way[0] in self.bits]

    def _rounded(
        self, weight: Tensor, name: str, bits: int, group: int | str, moment: Tensor | None
    ) -> Quantized:
        if moment is None or self.rounding == "least_squares":
            return checked(quantize_uniform(weight, grid_for(weight, bits, group)), name)
        grid = grid_for(weight, bits, group, importance=moment.diagonal())
        return checked(compensated_rounding(weight, moment, grid), name)


@plain_dataclass(frozen=True)
class _Candidate:
    op: Quantized
    loss: float

    @property
    def bytes(self) -> int:
        tensors = self.op.tensors().values()
        return sum(-(-tensor_bytes({"": tensor}) // ALIGNMENT) * ALIGNMENT for tensor in tensors)


def _pick(
    candidates: Mapping[str, list[_Candidate]], places: Mapping[str, int]
) -> dict[str, Quantized]:
    return {name: candidates[name][place].op for name, place in places.items()}


def _file_size(model: LanguageModel, chosen: Mapping[str, LinearOp]) -> int:
    """Return the bytes of the file with these leaves, and what is held back."""
    changed = model.clone()
    change_leaves(changed, lambda leaf, name: chosen.get(name, leaf))
    return lay_out(changed).size + HELD_BACK
