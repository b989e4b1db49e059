"""What a recipe did to each weight of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from terselm.linear.base import LinearOp
from terselm.models.language_model import LanguageModel
from terselm.text.base import Vocabulary


def unchanged_weights(
    before: LanguageModel, after: LanguageModel
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compare the weights of two models by what the file stores of them.

    Parameters
    ----------
    before, after : LanguageModel
        A weight that only one of them has counts as changed.

    Returns
    -------
    untouched : tuple of str
        Names in `after` with the same form, shape and values.
    same_form : tuple of str
        Names in `after` with the same form and shape, but other values.
    """
    old = before.weights()
    alike = {
        name: _same_values(old[name], op)
        for name, op in after.weights().items()
        if name in old and old[name].spec() == op.spec()
    }
    return (
        tuple(name for name, same in alike.items() if same),
        tuple(name for name, same in alike.items() if not same),
    )


def renumbered(
    ids: npt.NDArray[np.integer[Any]], old: Vocabulary, new: Vocabulary
) -> npt.NDArray[np.integer[Any]]:
    """Return token ids [n] of the vocabulary `old` as those of `new`.

    Raises
    ------
    UsageError
        If a word is not in `new`, and that has no `<unk>`.
    """
    return np.array([new.id_of(word) for word in old.words])[ids]


def _same_values(one: LinearOp, other: LinearOp) -> bool:
    mine, theirs = one.tensors(), other.tensors()
    return mine.keys() == theirs.keys() and all(
        torch.equal(tensor.cpu(), theirs[name].cpu()) for name, tensor in mine.items()
    )
