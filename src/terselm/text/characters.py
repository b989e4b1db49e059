"""Characters as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy.typing as npt

from terselm.text.base import UNKNOWN, check_keys, read_flag
from terselm.text.word_list import WordList, words_from_file

NEWLINE = "\n"


class CharacterVocabulary(WordList):
    """Unicode characters; the newline ends a line.

    Parameters
    ----------
    words : iterable of str
        Every character by id, the newline among them and, where there is one, `<unk>`.
    lowercase : bool
        Whether A to Z become a to z first.

    Raises
    ------
    UsageError
        If the list has no newline, or an entry is there twice or is no single character.
    """

    kind: ClassVar[str] = "characters"

    def __init__(self, words: Iterable[str], lowercase: bool = False) -> None:
        super().__init__(words, NEWLINE, lowercase)

    @classmethod
    def fault_of(cls, word: str) -> str | None:
        """Return why `word` cannot be a token, as the end of a sentence, or None."""
        fault = super().fault_of(word)
        if fault is None and len(word) != 1 and word != UNKNOWN:
            return "is not one character"
        return fault

    def pieces(self, line: str) -> str:
        """Return the characters of a line."""
        return line

    def decode(self, ids: Iterable[int]) -> str:
        """Return the characters one after another; `<unk>` is written out.

        Raises
        ------
        UsageError
            If an id is not below `len(self)`.
        """
        return "".join(self.words[number] for number in self._checked(ids))

    @classmethod
    def from_file(
        cls, spec: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> CharacterVocabulary:
        """Return the vocabulary that `spec()` and `tensors()` describe.

        Raises
        ------
        TerselmError
            If they describe none; the message names the field.
        """
        check_keys(spec, ("kind", "size", "lowercase"))
        return cls(words_from_file(spec, tensors), read_flag(spec, "lowercase"))
