"""Text as token ids, kept on disk so that it is encoded once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from terselm.errors import TerselmError, UsageError
from terselm.files import atomic_write
from terselm.text.base import Vocabulary, unsigned_type
from terselm.text.cache import cache_folder, make_folder
from terselm.text.corpus import Corpus

FORM = 1  # of the ids and of the files; raise it when either changes
HEADER_BYTES = 128
MAGIC = b"\x93NUMPY\x01\x00"


@dataclass(frozen=True)
class TokenizedSplit:
    """A text as token ids.

    Attributes
    ----------
    ids : ndarray
        uint16 or uint32 [tokens], the line end of every line included.
    characters : int
        Characters of the text, one for each line end included.
    unknown : int
        How many ids are `unknown_id`, be it that the word is not in the vocabulary or that
        the text itself says `<unk>`.
    """

    ids: npt.NDArray[Any]
    characters: int
    unknown: int

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_lines(cls, lines: Iterable[str], vocabulary: Vocabulary) -> TokenizedSplit:
        """Encode lines that are in memory, given without their newlines.

        Raises
        ------
        UsageError
            If something is not in the vocabulary and there is no `unknown_id`.
        """
        lines = list(lines)
        ids = [number for coded in vocabulary.encode_lines(lines) for number in coded]
        return cls(
            np.array(ids, unsigned_type(len(vocabulary))),
            sum(len(line) + 1 for line in lines),
            vocabulary.count_unknown(ids),
        )


class _Counted:
    """Lines passed on, and how many characters and lines they were."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self.lines = 0
        self.characters = 0

    def __iter__(self) -> Any:
        for line in self._lines:
            self.lines += 1
            self.characters += len(line) + 1
            yield line


def tokenize(
    corpus: Corpus, split: str, vocabulary: Vocabulary, cache_dir: str | Path | None = None
) -> TokenizedSplit:
    """Return a split of a corpus as token ids, from the cache where it is there.

    The text is never in memory as a whole, and the ids are mapped from a file.

    Parameters
    ----------
    corpus : Corpus
    split : str
        train, valid or test.
    vocabulary : Vocabulary
    cache_dir : str or Path, optional
        Where to keep the ids; the folder `tokens` in the user's cache by default.

    Raises
    ------
    UsageError
        If there is no such split, or a word is not in the vocabulary and there is no
        `unknown_id`; the message names file and line.
    TerselmError
        If the text cannot be read or the cache cannot be written.
    """
    folder = cache_folder() / "tokens" if cache_dir is None else Path(cache_dir)
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{corpus.name}-{split}")[:60]
    path = folder / f"{name}-{_key(corpus, split, vocabulary)}.npy"
    kept = _read(path)
    if kept is None:
        make_folder(folder)
        _write(path, corpus, split, vocabulary)
        kept = _read(path)
    if kept is None:
        raise TerselmError(f"cannot read back {path}; is the disk full or faulty?")
    return kept


def _key(corpus: Corpus, split: str, vocabulary: Vocabulary) -> str:
    where = corpus.range_of(split)
    try:
        path = where.path.resolve()
        status = path.stat()
    except OSError as error:
        raise TerselmError(f"cannot read {where.path}: {error.strerror}") from None
    parts = (
        FORM,
        str(path),
        status.st_size,
        status.st_mtime_ns,
        where.start,
        where.stop,
        vocabulary.fingerprint(),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _write(path: Path, corpus: Corpus, split: str, vocabulary: Vocabulary) -> None:
    """Encode a split into a .npy file, and what is known about it into a .json beside it."""
    lines = _Counted(corpus.lines(split))
    dtype = np.dtype(unsigned_type(len(vocabulary))).newbyteorder("<")
    digest = hashlib.sha256()
    tokens = unknown = 0
    with atomic_write(path) as file:
        file.write(bytes(HEADER_BYTES))  # in its place once the tokens are counted
        try:
            for coded in vocabulary.encode_lines(lines):
                ids = np.array(coded, dtype)
                file.write(ids.data)
                digest.update(ids.data)
                tokens += len(ids)
                unknown += vocabulary.count_unknown(ids)
        except UsageError as error:
            where = f"{corpus.range_of(split).path}, line {lines.lines} of {split}"
            raise UsageError(f"{where}: {error}") from None
        _write_header(file, dtype, tokens)
    facts = {
        "tokens": tokens,
        "characters": lines.characters,
        "unknown": unknown,
        "sha256": digest.hexdigest(),
    }
    with atomic_write(path.with_suffix(".json")) as file:
        file.write(json.dumps(facts).encode())


def _write_header(file: BinaryIO, dtype: np.dtype[Any], tokens: int) -> None:
    header = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': ({tokens},), }}"
    length = HEADER_BYTES - len(MAGIC) - 2
    file.seek(0)
    file.write(MAGIC + length.to_bytes(2, "little") + header.encode().ljust(length - 1) + b"\n")


def _read(path: Path) -> TokenizedSplit | None:
    """Return what the cache holds, or None where it is missing, damaged or incomplete."""
    try:
        facts = json.loads(path.with_suffix(".json").read_bytes())
        ids = np.load(path, mmap_mode="r", allow_pickle=False)
        whole = (
            ids.shape == (facts["tokens"],)
            and hashlib.sha256(ids.data).hexdigest() == facts["sha256"]
        )
        return (
            TokenizedSplit(ids, int(facts["characters"]), int(facts["unknown"])) if whole else None
        )
    except (OSError, ValueError, TypeError, KeyError, EOFError):
        return None
