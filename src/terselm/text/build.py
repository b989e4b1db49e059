"""Making vocabularies, from text or from a list."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Literal

from terselm.errors import TerselmError, UsageError
from terselm.registry import suggest
from terselm.text.base import END, UNKNOWN, Vocabulary
from terselm.text.byte_pair import BytePairVocabulary
from terselm.text.characters import NEWLINE, CharacterVocabulary
from terselm.text.corpus import Corpus
from terselm.text.front_coding import MAX_WORD_BYTES
from terselm.text.splitting import Splitting, lower_ascii, split_at_spaces, splitter
from terselm.text.word import WordVocabulary
from terselm.text.word_list import shorten

Kind = Literal["words", "characters", "bpe"]

KINDS = ("words", "characters", "bpe")
DEFAULT_WORDS = 10_000
DEFAULT_BYTE_PAIRS = 4096
FEWEST_REAL_TOKENS = 2
FEWEST_TOKENS = FEWEST_REAL_TOKENS + 2  # with the line end and <unk>


def build_vocabulary(
    corpus: Corpus,
    kind: Kind | str = "words",
    size: int | None = None,
    lowercase: bool = False,
    splitting: Splitting | str | None = None,
) -> Vocabulary:
    """Make a vocabulary from the training split of a corpus.

    A corpus whose training text already says `<unk>`, as that of the Penn Treebank does, is
    closed: unless told otherwise, it is split at spaces and every word is taken.

    Parameters
    ----------
    corpus : Corpus
    kind : {"words", "characters", "bpe"}
        What a token is.
    size : int, optional
        The most tokens, `<eos>` and `<unk>` included; the most frequent ones are taken.
        Without it: all words of a closed corpus, else 10,000; all characters; 4,096 byte pairs.
    lowercase : bool
        Whether A to Z become a to z first.
    splitting : {"spaces", "punctuation"}, optional
        Where words end; at punctuation for open text.

    Returns
    -------
    Vocabulary
        Words and characters have their ids in sorted order.

    Raises
    ------
    UsageError
        If kind, size or splitting is not possible.
    TerselmError
        If the training text holds fewer than two words or characters, or cannot be read.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown kind of token {kind!r}; {suggest(kind, KINDS)}")
    if splitting is not None and kind != "words":
        raise UsageError(f"splitting is {splitting!r}, but only words are split")
    if size is not None and size < FEWEST_TOKENS:
        raise UsageError(f"a vocabulary of {size} is too small; use at least {FEWEST_TOKENS}")
    if kind == "words":
        return _words(corpus, size, lowercase, splitting)
    if kind == "characters":
        return _characters(corpus, size, lowercase)
    return BytePairVocabulary.train(
        corpus.lines("train"), DEFAULT_BYTE_PAIRS if size is None else size, lowercase
    )


def vocabulary_from_words(
    words: Iterable[str],
    kind: Literal["words", "characters"] | str = "words",
    lowercase: bool = False,
    splitting: Splitting = "spaces",
) -> Vocabulary:
    """Make a vocabulary from an explicit list.

    Parameters
    ----------
    words : iterable of str
        Every token by id. Words need `<eos>`, characters the newline; `<unk>` is optional.
    kind : {"words", "characters"}
        What a token is.
    lowercase : bool
        Whether A to Z become a to z first.
    splitting : {"spaces", "punctuation"}
        Where words end; characters are not split.

    Raises
    ------
    UsageError
        If the list cannot be a vocabulary; the message names the token and its id.
    """
    if kind == "words":
        return WordVocabulary(words, lowercase, splitting)
    if kind == "characters":
        return CharacterVocabulary(words, lowercase)
    raise UsageError(f"a list cannot be a vocabulary of kind {kind!r}; use words or characters")


def read_vocabulary_file(path: str | Path) -> list[str]:
    """Read a list of words, one a line; line n (from 0) is the word with id n.

    Raises
    ------
    UsageError
        If the file does not exist.
    TerselmError
        If it cannot be read, is empty or not UTF-8, or a line is empty, there twice, longer
        than 255 bytes or holds white space; the message has file and line (from 1).
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"no vocabulary file {path}; give a file with one word a line") from None
    except OSError as error:
        raise TerselmError(f"cannot read {path}: {error.strerror}") from None
    if not data:
        raise TerselmError(f"{path} is empty; it should have one word a line")
    data = data.removeprefix(codecs.BOM_UTF8)
    lines: dict[str, int] = {}
    for number, raw in enumerate(data.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            word = raw.removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            raise TerselmError(f"{path}, line {number} is not UTF-8; convert the file") from None
        fault = WordVocabulary.fault_of(word)
        if fault:
            raise TerselmError(f"{path}, line {number}: {shorten(word)} {fault}")
        if word in lines:
            raise TerselmError(
                f"{path}, line {number}: {shorten(word)} is in line {lines[word]} already"
            )
        lines[word] = number
    return list(lines)


def vocabulary_in_order_of_appearance(corpus: Corpus) -> WordVocabulary:
    """Make a vocabulary with ids in the order in which words first appear.

    The words of a line, split at white space, are followed by `<eos>`; train comes first,
    then valid, then test. Checkpoints trained with the word_language_model example of
    PyTorch have their ids in this order.

    Raises
    ------
    TerselmError
        If the text cannot be read or holds a word that no vocabulary can hold.
    """
    words: dict[str, None] = {}
    for line in chain.from_iterable(map(corpus.lines, ("train", "valid", "test"))):
        words.update(dict.fromkeys(line.split()))  # at Unicode white space, as the example does
        words[END] = None
    return WordVocabulary(words)


def lines_with_other_spaces(corpus: Corpus) -> int:
    """Return how many lines hold white space that Python splits at and terselm does not."""
    lines = chain.from_iterable(map(corpus.lines, ("train", "valid", "test")))
    return sum(len(line.split()) != len(split_at_spaces(line)) for line in lines)


def _words(
    corpus: Corpus, size: int | None, lowercase: bool, splitting: Splitting | str | None
) -> WordVocabulary:
    closed = _is_closed(corpus)
    splitting = splitting or ("spaces" if closed else "punctuation")
    split = splitter(splitting)
    counts: Counter[str] = Counter()
    for line in corpus.lines("train"):
        counts.update(split(lower_ascii(line) if lowercase else line))
    whole = closed and splitting == "spaces"
    if size is None and not whole:
        size = DEFAULT_WORDS
    return WordVocabulary(
        _choose(corpus, counts, {END, UNKNOWN}, size),
        lowercase,
        splitting,  # type: ignore[arg-type]
    )


def _characters(corpus: Corpus, size: int | None, lowercase: bool) -> CharacterVocabulary:
    counts: Counter[str] = Counter()
    for line in corpus.lines("train"):
        counts.update(lower_ascii(line) if lowercase else line)
    return CharacterVocabulary(_choose(corpus, counts, {NEWLINE, UNKNOWN}, size), lowercase)


def _is_closed(corpus: Corpus) -> bool:
    """Return whether the training text says `<unk>` where it has rare words."""
    return any(
        UNKNOWN in line and UNKNOWN in split_at_spaces(line) for line in corpus.lines("train")
    )


def _choose(corpus: Corpus, counts: Counter[str], special: set[str], size: int | None) -> list[str]:
    """Return the special tokens and the most frequent others, sorted."""
    real = [
        token for token in counts if token not in special and len(token.encode()) <= MAX_WORD_BYTES
    ]
    if len(real) < FEWEST_REAL_TOKENS:
        raise TerselmError(
            f"the training text of {corpus.name} holds fewer than {FEWEST_REAL_TOKENS} different "
            "tokens; give a longer text"
        )
    real.sort(key=lambda token: (-counts[token], token))
    if size is not None:
        real = real[: size - len(special)]
    return sorted(special.union(real))
