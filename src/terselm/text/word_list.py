"""Vocabularies that are a list: every piece of text is looked up in it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from terselm.errors import TerselmError, UsageError
from terselm.text.base import UNKNOWN, Vocabulary, read_tensor, unsigned_type
from terselm.text.front_coding import MAX_WORD_BYTES, decode_words, encode_words

WORDS_TENSOR = "vocabulary.words"
ORDER_TENSOR = "vocabulary.order"


class WordList(Vocabulary):
    """A vocabulary stored as a front-coded list.

    Parameters
    ----------
    words : iterable of str
        Every token by id: 1 to 255 bytes of UTF-8 each, no two alike.
    end : str
        The token that ends a line. `words` must hold it; `<unk>` is optional.
    lowercase : bool
        Whether A to Z become a to z first.

    Raises
    ------
    UsageError
        If the list is not as described; the message names the token and its id.
    """

    def __init__(self, words: Iterable[str], end: str, lowercase: bool) -> None:
        self.words = tuple(words)
        self.lowercase = lowercase
        self._ids: dict[str, int] = {}
        for number, word in enumerate(self.words):
            fault = self.fault_of(word)
            if fault:
                raise UsageError(f"vocabulary: {shorten(word)} (id {number}) {fault}")
            if self._ids.setdefault(word, number) != number:
                raise UsageError(
                    f"vocabulary: {word!r} is there twice, as ids {self._ids[word]} and {number}"
                )
        if end not in self._ids:
            raise UsageError(f"vocabulary: {end!r}, which ends a line, is missing; add it")
        self.start_id = self._ids[end]
        self.unknown_id = self._ids.get(UNKNOWN)

    @classmethod
    def fault_of(cls, word: str) -> str | None:
        """Return why `word` cannot be a token, as the end of a sentence, or None."""
        try:
            length = len(word.encode())
        except UnicodeEncodeError:
            return "is not valid Unicode text"
        if length == 0:
            return "is empty"
        if length > MAX_WORD_BYTES:
            return f"is {length} bytes long; at most {MAX_WORD_BYTES} are possible"
        return None

    @abstractmethod
    def pieces(self, line: str) -> Sequence[str]:
        """Return what is looked up for a line, in order."""

    def id_of(self, word: str) -> int:
        """Return the id of `word`, `unknown_id` where it has none.

        Raises
        ------
        UsageError
            If it is not in the vocabulary and there is no `unknown_id`.
        """
        found = self._ids.get(word, self.unknown_id)
        if found is None:
            raise UsageError(
                f"{shorten(word)} is not in the vocabulary, and the vocabulary has no {UNKNOWN}; "
                "use text of its words only"
            )
        return found

    def spec(self) -> dict[str, Any]:
        """Return kind, number of tokens and options."""
        return {"kind": self.kind, "size": len(self), **self.options}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the words front-coded, and their ids where these are not in sorted order."""
        # Code point order is the order of the UTF-8 bytes.
        order = sorted(range(len(self)), key=self.words.__getitem__)
        coded = encode_words([self.words[number].encode() for number in order])
        stored: dict[str, npt.NDArray[Any]] = {WORDS_TENSOR: coded}
        if order != list(range(len(self))):
            stored[ORDER_TENSOR] = np.array(order, unsigned_type(len(self)))  # [words]
        return stored

    def _encode_prepared(self, text: str) -> list[int]:
        unknown = self.unknown_id
        if unknown is None:
            return [self.id_of(piece) for piece in self.pieces(text)]
        find = self._ids.get
        return [find(piece, unknown) for piece in self.pieces(text)]


def words_from_file(spec: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """Return the words of a model file by id.

    Raises
    ------
    TerselmError
        If a tensor is missing, malformed or not as long as `spec` says; the message names it.
    """
    coded = decode_words(read_tensor(tensors, WORDS_TENSOR), WORDS_TENSOR)
    try:
        ordered = [word.decode() for word in coded]
    except UnicodeDecodeError:
        raise TerselmError(f"{WORDS_TENSOR} holds a word that is not UTF-8") from None
    if spec.get("size") != len(ordered):
        raise TerselmError(
            f"vocabulary.size is {spec.get('size')!r}, {WORDS_TENSOR} holds {len(ordered)}"
        )
    if ORDER_TENSOR not in tensors:
        return ordered
    ids = tensors[ORDER_TENSOR]
    if ids.dtype.kind != "u" or ids.shape != (len(ordered),):
        raise TerselmError(
            f"{ORDER_TENSOR} is {ids.dtype} of shape {ids.shape}, "
            f"not an id for each of {len(ordered)} words"
        )
    if not np.array_equal(np.sort(ids), np.arange(len(ordered))):
        raise TerselmError(f"{ORDER_TENSOR} does not hold each id below {len(ordered)} once")
    words = [""] * len(ordered)
    for number, word in zip(ids.tolist(), ordered, strict=True):
        words[number] = word
    return words


def shorten(word: str) -> str:
    """Return `word` in quotes, cut where it is too long for a message."""
    return repr(word if len(word) <= 40 else f"{word[:40]}...")
