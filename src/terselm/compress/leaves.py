"""Changing the leaves of all weights of a model."""

from __future__ import annotations

from collections.abc import Callable

from terselm.linear.base import LinearOp
from terselm.models.language_model import LanguageModel


def change_leaves(model: LanguageModel, change: Callable[[LinearOp, str], LinearOp]) -> None:
    """Put `change(leaf, its name)` in the place of every leaf, in place; ties stay."""
    for name, op in model.weights().items():
        model.replace_weight(name, op.map_leaves(change, name))
