"""Pruning by learned noise."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, register_method
from terselm.compress.methods.recover import Recover
from terselm.compress.pruning import StoredType
from terselm.compress.training_forms import replace_leaves, sparse_or_dense
from terselm.compress.variational import VariationalSparse
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.models.language_model import LanguageModel

Weight = Annotated[float, Field(gt=0.0, le=1.0)]


@register_method("sparse_variational")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class SparseVariational(Recover):
    """Train with noise whose size is learned for each weight, and drop what drowns in it.

    Every weight is Gaussian; the KL divergence to a log-uniform prior pulls its variance up,
    the text pulls it down where the weight matters. Weights with log α > 3 go. How many that
    are is found by the training, not asked for. The model of the last step is kept, also
    where an earlier one, with fewer zeros, was better on validation text.

    Paper: Molchanov, Ashukha, Vetrov 2017 (arXiv 1701.05369); for recurrent networks, and per
    word, Chirkova, Lobacheva, Vetrov 2018 (arXiv 1810.10927).

    Recipe::

        - {method: sparse_variational, matrices: "cells.* output", epochs: 20}

    Cost: as for `magnitude` in the file; twice the parameters in training, and many epochs.

    When not: where a size is asked for: `prune_gradually` takes a sparsity. A matrix with too
    few zeros to gain from storing their places stays dense; a larger `kl_weight` drops more.

    Parameters
    ----------
    matrices : str
        Which weights, as names or patterns with spaces between them.
    per : {"weight", "row"}
        "row" drops whole rows: words, in an embedding or an output layer.
    kl_weight : float
        Of the KL of one weight against the mean loss of a token. One over the tokens of the
        training text is the variational bound; the default is that of about a million.
    type : {"float32", "float16"} or None
        Of the values; None keeps that of the matrix.
    epochs, time_limit, optimizer, learning_rate, dropout, batch, window
    input_dropout, embedding_dropout, weight_drop, projection_dropout, locked_dropout
        As for `recover`, and so are the next.
    distill, distill_weight, temperature, distill_hidden, train_codes
        As for `recover`.
    """

    keep: ClassVar[Literal["best", "last"]] = "last"

    matrices: str = "*"
    per: Literal["weight", "row"] = "weight"
    kl_weight: Weight = 1e-6
    type: StoredType | None = None

    def apply(self, model: LanguageModel, context: Context) -> LanguageModel:
        """Return the trained model with sparse weights, dense ones where little went.

        Raises
        ------
        UsageError
            If there is no text, a pattern matches nothing, or a weight is not dense.
        """

        def start(leaf: LinearOp, name: str) -> LinearOp:
            assert isinstance(leaf, Dense)
            stored_type = self.type or leaf.stored_type
            return VariationalSparse(leaf.dense(), self.kl_weight, self.per, stored_type)

        replace_leaves(model, self.matrices, Dense, start, self.name)
        model = super().apply(model, context)

        def finish(leaf: LinearOp, name: str) -> LinearOp:
            assert isinstance(leaf, VariationalSparse)
            return sparse_or_dense(leaf.finished())

        replace_leaves(model, "*", VariationalSparse, finish, self.name, skip_others=True)
        return model
