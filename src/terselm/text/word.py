"""Words as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy.typing as npt

from terselm.errors import TerselmError
from terselm.text.base import END, check_keys, read_flag
from terselm.text.splitting import NOT_SPACE, Splitting, splitter
from terselm.text.word_list import WordList, words_from_file


class WordVocabulary(WordList):
    """Words and, where the text is split at punctuation, punctuation marks.

    Parameters
    ----------
    words : iterable of str
        Every word by id, `<eos>` among them and, where there is one, `<unk>`.
    lowercase : bool
        Whether A to Z become a to z first.
    splitting : {"spaces", "punctuation"}
        Where words end; see `terselm.text.splitting`.

    Raises
    ------
    UsageError
        If the list has no `<eos>`, or a word is empty, there twice, over 255 bytes long or
        holds white space.
    """

    kind: ClassVar[str] = "words"

    def __init__(
        self, words: Iterable[str], lowercase: bool = False, splitting: Splitting = "spaces"
    ) -> None:
        self._split = splitter(splitting)
        self.splitting = splitting
        super().__init__(words, END, lowercase)

    @classmethod
    def fault_of(cls, word: str) -> str | None:
        """Return why `word` cannot be a token, as the end of a sentence, or None."""
        fault = super().fault_of(word)
        if fault is None and not NOT_SPACE.fullmatch(word):
            return "holds white space, which never is in a word"
        return fault

    @property
    def options(self) -> dict[str, Any]:
        """How text is treated: `lowercase` and `splitting`."""
        return {"lowercase": self.lowercase, "splitting": self.splitting}

    def pieces(self, line: str) -> list[str]:
        """Return the words of a line."""
        return self._split(line)

    def decode(self, ids: Iterable[int]) -> str:
        """Return words joined by spaces, a newline for each `<eos>`.

        Raises
        ------
        UsageError
            If an id is not below `len(self)`.
        """
        lines: list[list[str]] = [[]]
        for number in self._checked(ids):
            if number == self.start_id:
                lines.append([])
            else:
                lines[-1].append(self.words[number])
        return "\n".join(" ".join(line) for line in lines)

    @classmethod
    def from_file(
        cls, spec: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> WordVocabulary:
        """Return the vocabulary that `spec()` and `tensors()` describe.

        Raises
        ------
        TerselmError
            If they describe none; the message names the field.
        """
        check_keys(spec, ("kind", "size", "lowercase", "splitting"))
        splitting = spec["splitting"]
        if splitting not in ("spaces", "punctuation"):
            raise TerselmError(f"vocabulary.splitting is {splitting!r}")
        return cls(words_from_file(spec, tensors), read_flag(spec, "lowercase"), splitting)
