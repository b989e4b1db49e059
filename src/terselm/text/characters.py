"""Character vocabularies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from terselm.text.base import read_flag
from terselm.text.word_list import WordList

NEWLINE = "\n"


class CharacterVocabulary(WordList):
    """Unicode characters; the newline is one of them, ends lines and starts a text.

    Parameters
    ----------
    words : iterable of str
        Every character by id, the newline among them, and `<unk>` where characters that are
        not listed shall be accepted.
    lowercase : bool
        Whether A to Z become a to z first.

    Raises
    ------
    UsageError
        If a character is doubled, or the newline is missing.
    """

    kind = "characters"

    def __init__(self, words: Iterable[str], lowercase: bool = False) -> None:
        super().__init__(words, NEWLINE, lowercase)

    def pieces(self, line: str) -> Sequence[str]:
        """Return the characters of a line."""
        return line

    def decode(self, ids: Iterable[int]) -> str:
        """Return the characters, joined."""
        return "".join(self.words[number] for number in self._checked(ids))

    @classmethod
    def _option_names(cls) -> tuple[str, ...]:
        return ("lowercase",)

    @classmethod
    def _read_options(cls, spec: Mapping[str, Any]) -> dict[str, Any]:
        return {"lowercase": read_flag(spec, "lowercase")}

    @classmethod
    def _make(cls, words: Sequence[str], options: Mapping[str, Any]) -> CharacterVocabulary:
        return cls(words, **options)
