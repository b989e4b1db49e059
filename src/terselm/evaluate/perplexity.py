"""How well a model predicts a text: perplexity, bits a character, accuracy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from terselm.evaluate.evaluation import LARGEST_EXPONENT, Evaluation, evaluation_of
from terselm.evaluate.stream import (
    WINDOW,
    Progress,
    TokenIds,
    checked_ids,
    hidden_states,
    hidden_states_in_parts,
    output_blocks,
    ready,
)
from terselm.models.language_model import LanguageModel
from terselm.text.token_cache import TokenizedSplit


def evaluate(
    model: LanguageModel,
    split: TokenizedSplit,
    *,
    window: int = WINDOW,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on a text.

    The text is one stream: the model reads the line end before the first token, the state is
    carried to the end, and every token is a target once. So the result depends on nothing but
    model and text.

    Parameters
    ----------
    model : LanguageModel
        On any device and in any mode; it is left as it is.
    split : TokenizedSplit
        The text, in tokens of the model's vocabulary.
    window : int
        Tokens a call; it changes the speed, not the result.
    progress : callable, optional
        Called with (tokens done, tokens in all).

    Raises
    ------
    UsageError
        If the text is empty or in another vocabulary, or the window is below 1.
    TerselmError
        If the model gives NaN, or probability zero to what is in the text.
    """
    started = time.perf_counter()
    tokens = checked_ids(model, split.ids, window)
    nats: list[Tensor] = []
    ranks: list[Tensor] = []
    with torch.inference_mode():
        frozen = ready(model)
        start = model.vocabulary.start_id
        states = hidden_states(frozen, tokens, start, window, progress)
        for hidden, targets in _blocks(frozen, states):
            logits = frozen.output.logits(hidden)
            nats.append(
                torch.nn.functional.cross_entropy(logits, targets, reduction="none").double()
            )
            ranks.append(ranks_of(logits, targets))
    seconds = time.perf_counter() - started
    return evaluation_of(_joined(nats), _joined(ranks), split, seconds)


def perplexity(
    model: LanguageModel,
    ids: TokenIds,
    start_id: int | None = None,
    limit: int | None = None,
) -> float:
    """Return the perplexity alone, as `evaluate` measures it.

    Parameters
    ----------
    model : LanguageModel
    ids : sequence of int
        The tokens of the text.
    start_id : int, optional
        What the model reads first; the vocabulary's line end if left out.
    limit : int, optional
        Stop after so many tokens.

    Returns
    -------
    float
        Infinite where it is too large for a number, NaN where the model gives NaN.

    Raises
    ------
    UsageError
        If there is no token, or one that is not in the vocabulary.
    """
    tokens = checked_ids(model, ids[:limit], WINDOW)
    start = model.vocabulary.start_id if start_id is None else start_id
    return _perplexity(model, lambda frozen: hidden_states(frozen, tokens, start, WINDOW))


def validation_perplexity(model: LanguageModel, ids: TokenIds) -> float:
    """Return nearly `perplexity`, several times as fast; for use while training.

    A long text is cut up and read side by side (`stream.hidden_states_in_parts`). On PTB's
    validation text and an LSTM 832 the result differed by 2 millionths.

    Parameters
    ----------
    model : LanguageModel
    ids : sequence of int
        The tokens of the text.

    Returns
    -------
    float
        See `perplexity`.

    Raises
    ------
    UsageError
        See `perplexity`.
    """
    tokens = checked_ids(model, ids, WINDOW)
    start = model.vocabulary.start_id
    return _perplexity(model, lambda frozen: hidden_states_in_parts(frozen, tokens, start))


def ranks_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Return how many other tokens score at least as high as the target, int32 [n].

    Parameters
    ----------
    logits : Tensor
        float32 [n, vocabulary].
    targets : Tensor
        int64 [n].
    """
    target_logits = logits.gather(1, targets.unsqueeze(1))
    return (logits >= target_logits).sum(dim=1, dtype=torch.int32) - 1


def _perplexity(
    model: LanguageModel, read: Callable[[LanguageModel], Iterator[tuple[Tensor, Tensor]]]
) -> float:
    """Return the perplexity over what `read` yields of a copy that is ready to be measured."""
    with torch.inference_mode():
        frozen = ready(model)
        nats = [
            frozen.output.negative_log_likelihood(hidden, targets).double()
            for hidden, targets in _blocks(frozen, read(frozen))
        ]
    mean = float(_joined(nats).mean())
    return math.inf if mean > LARGEST_EXPONENT else math.exp(mean)


def _blocks(
    model: LanguageModel, states: Iterator[tuple[Tensor, Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    for hidden, targets in states:
        yield from output_blocks(hidden, targets, len(model.vocabulary))


def _joined(parts: list[Tensor]) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = torch.cat(parts).cpu().numpy()
    return array
