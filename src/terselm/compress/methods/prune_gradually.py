"""Pruning while the model trains."""

from __future__ import annotations

import logging
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, register_method
from terselm.compress.gradual import GradualSparse
from terselm.compress.methods.recover import Recover
from terselm.compress.pruning import Sparsity, StoredType, check_smaller_than_dense
from terselm.compress.schedule import CubicSchedule
from terselm.compress.sparsity import zeros_leaving_some
from terselm.compress.training_forms import replace_leaves, sparse_or_dense
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.models.language_model import LanguageModel

Count = Annotated[int, Field(ge=1)]
Step = Annotated[int, Field(ge=0)]


@register_method("prune_gradually")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class PruneGradually(Recover):
    """Train with ever fewer weights: the smallest go, few at a time, the others adapt.

    Sparsity rises by the cubic schedule from step `begin` to step `end`; from then on the
    zeros are fixed. Every validation during the training is at the final sparsity. The model of
    the last step is kept, also where an earlier one was better on validation text.

    Paper: Zhu & Gupta 2017 (arXiv 1710.01878), who take an LSTM language model to 90 %.

    Recipe::

        - {method: prune_gradually, matrices: "cells.* output", sparsity: 0.9, end: 2000,
           epochs: 3}

    Cost: as for `magnitude` in the file; as long as the training. Needs text (`--data`).

    When not: for less than half the weights, where `second_order` without training loses nothing
    that one sees. A matrix whose places turn out to cost more than its zeros save stays dense.

    Parameters
    ----------
    sparsity : float
        The share of weights that become zero, in [0, 1).
    matrices : str
        Which weights, as names or patterns with spaces between them.
    initial : float
        The sparsity at `begin`.
    begin, end : int
        Training steps (windows). Choose `end` well before the end of the training; an epoch
        has tokens / (batch · window) steps.
    every : int
        Steps between two changes.
    type : {"float32", "float16"} or None
        Of the values; None keeps that of the matrix.
    epochs, time_limit, optimizer, learning_rate, dropout, batch, window
    input_dropout, embedding_dropout, weight_drop, projection_dropout, locked_dropout
        As for `recover`, and so are the next.
    distill, distill_weight, temperature, distill_hidden, train_codes
        As for `recover`.
    """

    keep: ClassVar[Literal["best", "last"]] = "last"

    sparsity: Sparsity
    end: Count
    matrices: str = "*"
    initial: Sparsity = 0.0
    begin: Step = 0
    every: Count = 10
    type: StoredType | None = None

    @model_validator(mode="after")
    def _check_schedule(self) -> PruneGradually:
        self._schedule()
        return self

    def _schedule(self) -> CubicSchedule:
        return CubicSchedule(self.sparsity, self.begin, self.end, self.initial, self.every)

    def apply(self, model: LanguageModel, context: Context) -> LanguageModel:
        """Return the trained model with sparse weights, dense ones where that is smaller.

        If training ended before the schedule did, so that the last weights went at once, a
        warning is logged.

        Raises
        ------
        UsageError
            If there is no text, a pattern matches nothing, a weight is not dense, or its sparse
            form would be larger than the dense one at this sparsity; all before the training.
        """
        schedule = self._schedule()

        def start(leaf: LinearOp, name: str) -> LinearOp:
            assert isinstance(leaf, Dense)
            zeros_leaving_some(leaf.out_features * leaf.in_features, self.sparsity, name)
            op = GradualSparse(leaf.dense(), schedule, self.type or leaf.stored_type)
            if self.sparsity > 0:
                # Its bytes hardly depend on which weights go, and hours of training come next.
                check_smaller_than_dense(op.finished(), name)
            return op

        replace_leaves(model, self.matrices, Dense, start, self.name)
        model = super().apply(model, context)
        short: dict[str, int] = {}

        def finish(leaf: LinearOp, name: str) -> LinearOp:
            assert isinstance(leaf, GradualSparse)
            if not leaf.reached:
                short[name] = leaf.steps
            return sparse_or_dense(leaf.finished())

        replace_leaves(model, "*", GradualSparse, finish, self.name, skip_others=True)
        if short:
            logging.getLogger(__name__).warning(
                "%s: training ended after %d of %d steps of the schedule, so the last weights "
                "of %s went at once; use a smaller 'end' or more epochs",
                self.name,
                max(short.values()),
                self.end,
                ", ".join(short),
            )
        return model
