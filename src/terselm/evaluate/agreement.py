"""How far a model is from a reference, such as the one it was made from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from terselm.errors import TerselmError
from terselm.evaluate.stream import (
    WINDOW,
    Progress,
    checked_ids,
    hidden_states,
    output_blocks,
    ready,
)
from terselm.models.language_model import LanguageModel
from terselm.text.token_cache import TokenizedSplit


@dataclass(frozen=True)
class Agreement:
    """How a model's predictions compare with a reference's, over a text.

    Attributes
    ----------
    top1 : float
        How often the reference's most likely token is the model's most likely one.
    top3 : float
        How often it is among the model's three most likely ones.
    kl_divergence : float
        Mean of KL(reference ‖ model) in nats: what it costs to code the reference's
        distribution with the model's. Zero if and only if they are the same.
    tokens : int
        Predictions compared.
    """

    top1: float
    top3: float
    kl_divergence: float
    tokens: int

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "top1_agreement": self.top1,
            "top3_agreement": self.top3,
            "kl_divergence": self.kl_divergence,
            "tokens": self.tokens,
        }


def agreement(
    model: LanguageModel,
    reference: LanguageModel,
    split: TokenizedSplit,
    *,
    window: int = WINDOW,
    progress: Progress | None = None,
) -> Agreement:
    """Compare a model with a reference on every prediction of a text, read as one stream.

    A token of the model that is level with the reference's choice does not count against it, so
    every model agrees with itself.

    Parameters
    ----------
    model, reference : LanguageModel
        With the same vocabulary; both are left as they are.
    split : TokenizedSplit
        The text, in tokens of that vocabulary.
    window : int
        Tokens a call; it changes the speed, not the result.
    progress : callable, optional
        Called with (tokens done, tokens in all).

    Raises
    ------
    UsageError
        If the vocabularies differ, or the text is empty or in another vocabulary.
    TerselmError
        If one of the models gives NaN.
    """
    model.vocabulary.check_same(
        reference.vocabulary, "only models of the same vocabulary can be compared"
    )
    ids = checked_ids(model, split.ids, window)
    size, start = len(model.vocabulary), model.vocabulary.start_id
    first = third = tokens = 0
    divergence = 0.0
    with torch.inference_mode():
        ours = ready(model)
        theirs = ready(reference).to(ours.device)
        streams = zip(
            hidden_states(ours, ids, start, window, progress),
            hidden_states(theirs, ids, start, window),
            strict=True,
        )
        for (our_hidden, _), (their_hidden, _) in streams:
            for ours_part, theirs_part in output_blocks(our_hidden, their_hidden, size):
                log_p = ours.output.log_probabilities(ours_part)
                log_r = theirs.output.log_probabilities(theirs_part)
                ranks = _ranks_of_choice(log_p, log_r)
                first += int((ranks < 1).sum())
                third += int((ranks < 3).sum())
                divergence += float(_divergences(log_r, log_p).sum(dtype=torch.float64))
                tokens += len(ranks)
    if math.isnan(divergence):
        raise TerselmError("a model gives NaN; it is damaged or its training diverged")
    # Rounding may leave the mean a hair below zero where the models are the same.
    return Agreement(first / tokens, third / tokens, max(0.0, divergence / tokens), tokens)


def _ranks_of_choice(log_p: Tensor, log_r: Tensor) -> Tensor:
    """Return how many tokens the model puts before the reference's choice, int64 [n]."""
    choice = log_r.argmax(dim=1, keepdim=True)
    return (log_p > log_p.gather(1, choice)).sum(dim=1)


def _divergences(log_r: Tensor, log_p: Tensor) -> Tensor:
    """Return KL(reference ‖ model) of each prediction, float32 [n]."""
    probabilities = log_r.exp()
    terms = probabilities * (log_r - log_p)
    # 0 · (-inf - x) counts as 0.
    return torch.where(probabilities > 0, terms, torch.zeros_like(terms)).sum(dim=1)
