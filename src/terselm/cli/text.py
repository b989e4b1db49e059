"""Opening text for the verbs that work without torch."""

from __future__ import annotations

from terselm.errors import UsageError
from terselm.text.corpus import Corpus, open_corpus

SPLITS = ("train", "valid", "test")


def corpus_with(data: str, split: str) -> Corpus:
    """Return a corpus, after checking the name of the split.

    Raises
    ------
    UsageError
        If the split is none of train, valid and test.
    """
    if split not in SPLITS:
        raise UsageError(f"--split is {split!r}; use {', '.join(SPLITS)}")
    return open_corpus(data)
