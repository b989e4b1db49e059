"""Measuring a file by the C library: the perplexity of the code that ships. No torch here."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from terselm.errors import UsageError
from terselm.evaluate.evaluation import Evaluation, evaluation_of
from terselm.runtime.model import Model
from terselm.text.corpus import Corpus
from terselm.text.token_cache import TokenizedSplit

BATCH = 64
"""Tokens whose output layer is computed at once."""

CHUNK = 2048
"""Tokens between two notes of progress."""


def tokenize_with(model: Model, corpus: Corpus, split: str) -> TokenizedSplit:
    """Return a split of a corpus in tokens of a model.

    Raises
    ------
    UsageError
        If something is not in the vocabulary and there is no token for it.
    """
    pieces, characters = [], 0
    for line in corpus.lines(split):
        pieces.append(model.tokenize(line + "\n"))
        characters += len(line) + 1
    ids = np.concatenate(pieces) if pieces else np.empty(0, np.uint32)
    unknown = 0 if model.unknown_token is None else int((ids == model.unknown_token).sum())
    return TokenizedSplit(ids, characters, unknown)


def evaluate_file(
    path: Path,
    corpus: Corpus,
    split: str,
    *,
    threads: int = 1,
    kernels: str | None = None,
    progress: object = None,
) -> Evaluation:
    """Measure a model file on a text as `terselm.evaluate.perplexity.evaluate` does.

    Integer forms round the vector that they are multiplied with to eight bits here, which torch
    does not: the perplexity differs in the fourth digit.

    Parameters
    ----------
    path : Path
    corpus : Corpus
    split : str
    threads : int
        Threads that share large products.
    kernels : str, optional
        See `terselm.runtime.kernel_names`; the result does not depend on it.
    progress : callable, optional
        Called with (tokens done, tokens in all).

    Raises
    ------
    UsageError
        If the text holds no tokens, or something outside the vocabulary.
    TerselmError
        If the model gives NaN, or probability zero to what is in the text.
    """
    model = Model(path, batch=BATCH, threads=threads, kernels=kernels)
    text = tokenize_with(model, corpus, split)
    if not len(text):
        raise UsageError("the text holds no tokens; there is nothing to measure")
    started = time.perf_counter()
    state = model.state()
    scores, ranks = [], []
    for first in range(0, len(text), CHUNK):
        found, places = model.rank_sequence(state, text.ids[first : first + CHUNK])
        scores.append(found)
        ranks.append(places)
        if callable(progress):
            progress(min(first + CHUNK, len(text)), len(text))
    nats = -np.concatenate(scores).astype(np.float64)
    return evaluation_of(nats, np.concatenate(ranks), text, time.perf_counter() - started)
