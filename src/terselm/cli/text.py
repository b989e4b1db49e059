"""Opening text and small text files for the verbs, without torch."""

from __future__ import annotations

from pathlib import Path

from terselm.errors import UsageError
from terselm.text.corpus import Corpus, open_corpus

SPLITS = ("train", "valid", "test")


def read_small_file(path: Path, what: str, advice: str) -> str:
    """Return what a file of settings or results says.

    Parameters
    ----------
    path : Path
    what : str
        What the message begins with, such as "--config".
    advice : str
        What kind of file to give.

    Raises
    ------
    UsageError
        If it cannot be read or is not text.
    """
    begin = f"{what} {path}".strip()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{begin}: cannot be read: {error.strerror}; give {advice}") from None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(f"{begin} is not text; give {advice}")
    return text


def corpus_with(data: str, split: str) -> Corpus:
    """Return a corpus, after checking the name of the split.

    Raises
    ------
    UsageError
        If the split is none of train, valid and test.
    """
    check_split(split)
    return open_corpus(data)


def check_split(split: str) -> None:
    """Check the name of a split.

    Raises
    ------
    UsageError
        If it is none of train, valid and test.
    """
    if split not in SPLITS:
        raise UsageError(f"--split is {split!r}; use {', '.join(SPLITS)}")
