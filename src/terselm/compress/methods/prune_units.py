"""Removal of hidden units."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, ModelMethod, register_method
from terselm.compress.factorization import least_fraction
from terselm.compress.statistics import collect
from terselm.compress.unit_removal import (
    keep_units,
    readers_of_layer,
    unit_importance,
    units_to_keep,
)
from terselm.errors import UsageError
from terselm.models.language_model import LanguageModel

Share = Annotated[float, Field(gt=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Layer = Annotated[int, Field(ge=0)]


@register_method("prune_units")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class PruneUnits(ModelMethod):
    """Take the least important hidden units out of the recurrent layers, for real.

    A unit leaves with its row in every gate, its column in the recurrence, and the column that
    reads it in the next layer or in the output layer; with a projection, with its column in
    the projection. What is left is a dense model with fewer hidden units. A unit is worth the
    sum of squares of the columns that read it times the mean square of its incoming weights;
    with calibration text (`--data`) also times the variance of its activation, whose mean the
    biases take over, the rows of the output layer counting as often as their words.

    Paper: removal of whole units as in Wen et al. 2018 (arXiv 1709.05027); magnitudes in place of a
    penalty in training.

    Recipe::

        - {method: prune_units, keep: 0.75, multiple: 16}
        - {method: recover, epochs: 2}

    Cost: the recurrence shrinks with the square of the share that stays, its readers in
    proportion; nothing is spent on positions, and every engine runs it faster.

    When not: a unit's work is not made up for, so more than a tenth of the units without
    recovery is felt. Not on the last layer where the output is tied to the embedding, unless
    there is a projection.

    Parameters
    ----------
    keep : int or float
        How many units of each layer stay, or which share in (0, 1].
    layers : list of int or None
        The layers, from 0; None is all that can be pruned.
    multiple : int
        Sizes are rounded up to a multiple of this, so that registers are full.
    """

    keep: Count | Share
    layers: tuple[Layer, ...] | None = None
    multiple: Count = 1

    def apply(self, model: LanguageModel, context: Context) -> LanguageModel:
        """Return the model with fewer units.

        Raises
        ------
        UsageError
            If no layer can be pruned, a layer has too few units, or multiples leave them all.
        """
        units = model.config.hidden
        counts = {layer: self._count(units[layer], layer, model) for layer in self._layers(model)}
        smaller = {layer: count for layer, count in counts.items() if count < units[layer]}
        if not smaller:
            if any(self._wanted(units[layer], layer) < units[layer] for layer in counts):
                raise self._nothing_to_do(max(units[layer] for layer in counts))
            return model
        statistics = None
        if context.calibration is not None:
            statistics = collect(model, context.calibration)
        with torch.no_grad():
            kept = {
                layer: units_to_keep(unit_importance(model, layer, statistics), count)
                for layer, count in smaller.items()
            }
            return keep_units(model, kept, None if statistics is None else statistics.inputs)

    def _layers(self, model: LanguageModel) -> list[int]:
        if self.layers is not None:
            for layer in self.layers:
                if layer >= len(model.cells):
                    raise UsageError(
                        f"layers: there is no layer {layer}; the model has layers 0 to "
                        f"{len(model.cells) - 1}"
                    )
            return list(dict.fromkeys(self.layers))
        free = [
            layer
            for layer in range(len(model.cells))
            if not set(readers_of_layer(model, layer)) & set(model.ties())
        ]
        if not free:
            raise UsageError(
                "the only layer feeds an output layer that is tied to the embedding, so its units "
                "cannot go; use low_rank on the cells instead"
            )
        return free

    def _wanted(self, units: int, layer: int) -> int:
        """Return how many units were asked for, before that is made a multiple."""
        if isinstance(self.keep, int):
            if self.keep > units:
                raise UsageError(
                    f"keep {self.keep} is more than the {units} units of layer {layer}; "
                    f"use at most {units}"
                )
            return self.keep
        wanted = round(self.keep * units)
        if wanted == 0:
            raise UsageError(
                f"keep {self.keep} leaves none of the {units} units of layer {layer}; "
                f"use at least {least_fraction(1, units)}"
            )
        return wanted

    def _count(self, units: int, layer: int, model: LanguageModel) -> int:
        wanted = self._wanted(units, layer)
        count = min(units, -(-wanted // self.multiple) * self.multiple)
        projection = model.config.projection
        if projection is not None and count <= projection:
            raise UsageError(
                f"keep {self.keep} is {count} units of layer {layer}, and the projection of "
                f"{projection} needs more; use at least {projection + 1}"
            )
        return count

    def _nothing_to_do(self, units: int) -> UsageError:
        """Return the error for sizes that are all units once rounded up to a multiple."""
        below = (units - 1) // self.multiple * self.multiple
        advice = f"a keep of at most {below}" if below else f"a multiple of at most {units - 1}"
        return UsageError(
            f"keep {self.keep} in multiples of {self.multiple} is all {units} units; use {advice}"
        )
