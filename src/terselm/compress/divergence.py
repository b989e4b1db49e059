"""What an error in one matrix does to the predictions, measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from terselm.linear.base import LinearOp
from terselm.models.language_model import LanguageModel

STREAMS = 16
MOST_NUMBERS = 20_000_000
"""Probabilities kept at once: 2,000 tokens of 10,000 words."""
FEWEST_STEPS = 4


class Divergence:
    """Measures how far the predictions move when a leaf of the model is replaced.

    The measure is the Kullback-Leibler divergence from the model's own predictions, in nats a
    token: to second order the rise of the loss on text that the model fits, but positive and
    with far less noise than a difference of losses.

    Parameters
    ----------
    model : LanguageModel
        Unchanged.
    ids : ndarray
        Token ids [n]; the first few thousand are used.
    """

    def __init__(self, model: LanguageModel, ids: npt.NDArray[np.integer[Any]]) -> None:
        most = max(FEWEST_STEPS, MOST_NUMBERS // STREAMS // len(model.vocabulary))
        steps = min(most, len(ids) // STREAMS)
        grid = np.asarray(ids[: steps * STREAMS], dtype=np.int64).reshape(STREAMS, steps)
        self._tokens = torch.from_numpy(np.ascontiguousarray(grid.T)).to(model.device)
        self._model = model.clone().eval()
        self._reference = self._log_probabilities()  # [time, batch, vocabulary]

    @property
    def tokens(self) -> int:
        """How many predictions are compared."""
        return self._tokens.numel()

    def of(self, name: str, leaf: LinearOp) -> float:
        """Return the divergence with the leaf `name` replaced, in nats a token.

        Parameters
        ----------
        name : str
            As `LinearOp.leaves` of the weights has it ("output", "cells.0.weight_hh.left").
        leaf : LinearOp
            What to put there; the model is as before afterwards.
        """
        weights = self._model.weights()
        whole = next(key for key in weights if name == key or name.startswith(f"{key}."))
        changed = weights[whole].map_leaves(
            lambda old, leaf_name: leaf if leaf_name == name else old, whole
        )
        self._model.replace_weight(whole, changed)
        try:
            other = self._log_probabilities()
        finally:
            self._model.replace_weight(whole, weights[whole])
        difference = self._reference.exp() * (self._reference - other)
        return max(0.0, difference.sum(-1).double().mean().item())

    def _log_probabilities(self) -> Tensor:
        with torch.no_grad():
            hidden = self._model.hidden(self._tokens, self._model.initial_state(STREAMS))
            return self._model.output.log_probabilities(hidden.output)
