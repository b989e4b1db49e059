"""What errors in matrices do to the predictions, measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from terselm.compress.leaves import change_leaves
from terselm.compress.streams import parallel_streams
from terselm.linear.base import LinearOp
from terselm.models.language_model import LanguageModel

STREAMS = 16
MOST_NUMBERS = 20_000_000
"""Probabilities kept at once: 2,000 tokens of 10,000 words."""
FEWEST_STEPS = 4


class Divergence:
    """Measures how far the predictions move when leaves of the model are replaced.

    The measure is the Kullback-Leibler divergence from the model's own predictions, in nats a
    token: to second order the rise of the loss on text that the model fits, but positive and
    with far less noise than a difference of losses.

    Parameters
    ----------
    model : LanguageModel
        Unchanged.
    text : ndarray or Tensor
        Token ids [n], of which the first few thousand are used; or a tensor of streams cut
        already, int64 [time, streams], which is used whole.
    warm_up : int
        Steps at the start that do not count.
    """

    def __init__(
        self,
        model: LanguageModel,
        text: npt.NDArray[np.integer[Any]] | Tensor,
        warm_up: int = 0,
    ) -> None:
        if not isinstance(text, Tensor):
            most = max(FEWEST_STEPS, MOST_NUMBERS // STREAMS // len(model.vocabulary))
            text = parallel_streams(text, STREAMS, min(most, len(text) // STREAMS))
        self._tokens = text.to(model.device)
        self._warm_up = warm_up
        self._model = model.clone().eval()
        self._reference = self._log_probabilities()  # [time, streams, vocabulary]

    @property
    def tokens(self) -> int:
        """How many predictions are compared."""
        return self._tokens[self._warm_up :].numel()

    def of(self, name: str, leaf: LinearOp) -> float:
        """Return the divergence with the leaf `name` replaced, in nats a token.

        Parameters
        ----------
        name : str
            As `LinearOp.leaves` of the weights has it ("output", "cells.0.weight_hh.left").
        leaf : LinearOp
            What to put there; the model is as before afterwards.
        """
        return self.of_several({name: leaf})

    def of_several(self, leaves: Mapping[str, LinearOp]) -> float:
        """Return the divergence with all these leaves replaced together, in nats a token."""
        before = self._model.weights()
        change_leaves(self._model, lambda leaf, name: leaves.get(name, leaf))
        try:
            other = self._log_probabilities()
        finally:
            for name, op in before.items():
                self._model.replace_weight(name, op)
        difference = self._reference.exp() * (self._reference - other)
        return max(0.0, difference.sum(-1).double().mean().item())

    def _log_probabilities(self) -> Tensor:
        state = self._model.initial_state(self._tokens.shape[1])
        with torch.no_grad():
            hidden = self._model.hidden(self._tokens, state)
            return self._model.output.log_probabilities(hidden.output[self._warm_up :])
