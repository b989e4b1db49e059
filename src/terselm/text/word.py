"""Word vocabularies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from terselm.errors import TerselmError
from terselm.text.base import END, read_flag
from terselm.text.splitting import Splitting, splitter
from terselm.text.word_list import WordList


class WordVocabulary(WordList):
    """Words of text, with `<eos>` for the end of a line and `<unk>` for everything else.

    Parameters
    ----------
    words : iterable of str
        Every word by id; `<eos>` must be among them.
    lowercase : bool
        Whether A to Z become a to z first.
    splitting : {"spaces", "punctuation"}
        Where a line is cut; see `splitting`.

    Raises
    ------
    UsageError
        If a word is empty, doubled or too long, or `<eos>` is missing.
    """

    kind = "words"

    def __init__(
        self, words: Iterable[str], lowercase: bool = False, splitting: Splitting = "spaces"
    ) -> None:
        super().__init__(words, END, lowercase)
        self.splitting = splitting
        self._split = splitter(splitting)

    @property
    def options(self) -> dict[str, Any]:
        """How text is treated, as JSON values."""
        return {"lowercase": self.lowercase, "splitting": self.splitting}

    def pieces(self, line: str) -> Sequence[str]:
        """Return the words of a line."""
        return self._split(line)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the words with spaces between them; line ends become newlines."""
        text = ""
        for number in self._checked(ids):
            if number == self.start_id:
                text += "\n"
            else:
                text += (" " if text and text[-1] != "\n" else "") + self.words[number]
        return text

    @classmethod
    def _option_names(cls) -> tuple[str, ...]:
        return ("lowercase", "splitting")

    @classmethod
    def _read_options(cls, spec: Mapping[str, Any]) -> dict[str, Any]:
        splitting = spec["splitting"]
        if splitting not in ("spaces", "punctuation"):
            raise TerselmError(
                f"vocabulary.splitting is {splitting!r}, not spaces or punctuation"
            )
        return {"lowercase": read_flag(spec, "lowercase"), "splitting": splitting}

    @classmethod
    def _make(cls, words: Sequence[str], options: Mapping[str, Any]) -> WordVocabulary:
        return cls(words, **options)
