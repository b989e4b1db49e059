"""Putting forms that exist only in training into a model, and taking them out."""

from __future__ import annotations

from collections.abc import Callable

from terselm.compress.base import wrong_form
from terselm.compress.leaves import change_leaves
from terselm.compress.recipe import is_inside_another, matching_weights
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.linear.sparse import Sparse
from terselm.models.language_model import LanguageModel


def replace_leaves(
    model: LanguageModel,
    patterns: str,
    sort: type[LinearOp],
    change: Callable[[LinearOp, str], LinearOp],
    method: str,
    skip_others: bool = False,
) -> None:
    """Replace leaves of the weights that the patterns name, in place.

    Parameters
    ----------
    model : LanguageModel
    patterns : str
        Names or shell patterns with spaces between them.
    sort : type
        The form that is replaced.
    change : callable
        Returns the new form of a leaf, given the leaf and its name.
    method : str
        Who asks, for the message.
    skip_others : bool
        Whether leaves of another form stay as they are; otherwise they are an error.

    Raises
    ------
    UsageError
        If a pattern matches nothing, or a leaf has another form.
    """
    names = set(matching_weights(patterns.split(), model, "matrices"))

    def visit(leaf: LinearOp, name: str) -> LinearOp:
        if name not in names and not is_inside_another(name, names):
            return leaf
        if isinstance(leaf, sort):
            return change(leaf, name)
        if skip_others:
            return leaf
        raise wrong_form(method, [getattr(sort, "kind", sort.__name__)], name, leaf)

    change_leaves(model, visit)


def sparse_or_dense(sparse: Sparse) -> LinearOp:
    """Return what training made sparse, or the dense form where that takes no more bytes."""
    dense = Dense(sparse.dense(), sparse.stored_type)
    return sparse if sparse.cost().bytes < dense.cost().bytes else dense
