"""Measuring a file by the C library: the perplexity of the code that ships. No torch here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
    for some in _chunks(text.ids, progress):
        found, places = model.rank_sequence(state, some)
        scores.append(found)
        ranks.append(places)
    nats = -np.concatenate(scores).astype(np.float64)
    return evaluation_of(nats, np.concatenate(ranks), text, time.perf_counter() - started)


def nats_of(
    path: Path,
    ids: npt.NDArray[np.integer[Any]],
    *,
    threads: int = 1,
    kernels: str | None = None,
    progress: object = None,
) -> npt.NDArray[np.float64]:
    """Return the negative log-likelihood of every token of a text.

    Parameters
    ----------
    path : Path
        A model file.
    ids : ndarray
        Tokens [n] of its vocabulary, read as one stream.
    threads : int
    kernels : str, optional
    progress : callable, optional
        As for `evaluate_file`.

    Returns
    -------
    ndarray
        float64 [n], nats.
    """
    model = Model(path, batch=BATCH, threads=threads, kernels=kernels)
    state = model.state()
    scores = [model.score_sequence(state, some) for some in _chunks(ids, progress)]
    return -np.concatenate(scores).astype(np.float64) if scores else np.empty(0)


def _chunks(
    ids: npt.NDArray[np.integer[Any]], progress: object
) -> Iterator[npt.NDArray[np.integer[Any]]]:
    for first in range(0, len(ids), CHUNK):
        yield ids[first : first + CHUNK]
        if callable(progress):
            progress(min(first + CHUNK, len(ids)), len(ids))
