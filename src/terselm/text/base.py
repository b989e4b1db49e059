"""What every vocabulary can do."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from terselm.errors import TerselmError, UsageError
from terselm.text.splitting import lower_ascii

END = "<eos>"
UNKNOWN = "<unk>"


class Vocabulary(ABC):
    """The tokens of a model and how text becomes their ids. It never changes once made.

    Attributes
    ----------
    kind : str
        "words", "characters" or "bpe".
    words : tuple of str
        Every token by id.
    start_id : int
        The id that ends a line, which is also what a model reads before the first token.
    unknown_id : int or None
        The id of everything that is not in the vocabulary.
    lowercase : bool
        Whether A to Z become a to z first.
    """

    kind: ClassVar[str]
    words: tuple[str, ...]
    start_id: int
    unknown_id: int | None
    lowercase: bool

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)}>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    @property
    def options(self) -> dict[str, Any]:
        """How text is treated, as JSON values."""
        return {"lowercase": self.lowercase}

    @abstractmethod
    def id_of(self, word: str) -> int:
        """Return the id of one token as it stands, `unknown_id` where it has none.

        Raises
        ------
        UsageError
            If it is not in the vocabulary and there is no `unknown_id`.
        """

    @abstractmethod
    def _encode_prepared(self, text: str) -> list[int]:
        """Return ids of text without line ends, lower case already applied."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; line ends become newlines.

        Raises
        ------
        UsageError
            If an id is not below `len(self)`.
        """

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Return what the model file says about the vocabulary, as JSON values."""

    @abstractmethod
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return what the model file stores, by name ("vocabulary.words")."""

    @classmethod
    @abstractmethod
    def from_file(
        cls, spec: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Vocabulary:
        """Return the vocabulary that `spec()` and `tensors()` describe.

        Raises
        ------
        TerselmError
            If they describe none; the message names the field.
        """

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text.

        Each newline becomes the line end. What follows the last newline gets none, so that
        a model can go on from there.

        Raises
        ------
        UsageError
            If something is not in the vocabulary and there is no `unknown_id`.
        """
        *lines, rest = self._prepare(text).split("\n")
        ids: list[int] = []
        for line in lines:
            ids += self._encode_prepared(line)
            ids.append(self.start_id)
        return ids + self._encode_prepared(rest)

    def encode_line(self, line: str) -> list[int]:
        """Return the ids of a line given without its newline; the line end is the last id.

        Raises
        ------
        UsageError
            If something is not in the vocabulary and there is no `unknown_id`.
        """
        ids = self._encode_prepared(self._prepare(line))
        ids.append(self.start_id)
        return ids

    def encode_lines(self, lines: Iterable[str]) -> Iterator[list[int]]:
        """Yield `encode_line` of each line; some vocabularies do many lines faster than one."""
        return map(self.encode_line, lines)

    def count_unknown(self, ids: npt.ArrayLike) -> int:
        """Return how many of the ids stand for something outside the vocabulary.

        `<unk>` that a text says itself is one of them.
        """
        return 0 if self.unknown_id is None else int((np.asarray(ids) == self.unknown_id).sum())

    def fingerprint(self) -> str:
        """Return a SHA-256 in hexadecimal, equal for vocabularies that give equal ids."""
        digest = hashlib.sha256(json.dumps(self.spec(), sort_keys=True).encode())
        for name, array in sorted(self.tensors().items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def check_ids(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        """Refuse ids of a text [n] that stand for no token.

        Raises
        ------
        UsageError
            If one is negative or not below the vocabulary's size.
        """
        least, greatest = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
        if least < 0 or greatest >= len(self):
            raise UsageError(
                f"the text has token {least if least < 0 else greatest}, the model {len(self):,} "
                "tokens; encode it with the vocabulary of the model"
            )

    def check_same(self, other: Vocabulary, where: str) -> None:
        """Refuse another vocabulary that does not give the same ids to the same text.

        Parameters
        ----------
        other : Vocabulary
        where : str
            Ends the message: what needs them to be the same.

        Raises
        ------
        UsageError
            The message states both sizes, or that the words or their order differ.
        """
        if len(self) != len(other):
            raise UsageError(f"vocabularies of {len(self):,} and {len(other):,} tokens; {where}")
        if self.fingerprint() != other.fingerprint():
            raise UsageError(
                f"two vocabularies of {len(self):,} tokens with other tokens, another order "
                f"or another treatment of text; {where}"
            )

    def _prepare(self, text: str) -> str:
        return lower_ascii(text) if self.lowercase else text

    def _checked(self, ids: Iterable[int]) -> Iterator[int]:
        for number in map(int, ids):
            if not 0 <= number < len(self):
                raise UsageError(f"id {number} is outside the vocabulary of {len(self)}")
            yield number


def check_keys(spec: Mapping[str, Any], expected: Iterable[str]) -> None:
    """Refuse a description with keys missing or unknown.

    Raises
    ------
    TerselmError
        If the keys of `spec` are not exactly the expected ones.
    """
    odd = sorted(set(spec) ^ set(expected), key=str)
    if odd:
        state = "unknown" if odd[0] in spec else "missing"
        raise TerselmError(f"vocabulary.{odd[0]} is {state}")


def read_flag(spec: Mapping[str, Any], key: str) -> bool:
    """Return a boolean of the description.

    Raises
    ------
    TerselmError
        If it is no boolean.
    """
    value = spec[key]
    if not isinstance(value, bool):
        raise TerselmError(f"vocabulary.{key} is {value!r}, not true or false")
    return value


def read_tensor(tensors: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    """Return a tensor of the file.

    Raises
    ------
    TerselmError
        If it is missing.
    """
    if name not in tensors:
        raise TerselmError(f"{name} is missing")
    return tensors[name]


def unsigned_type(count: int) -> type[np.uint16] | type[np.uint32]:
    """Return the smaller of uint16 and uint32 that holds every id below `count`."""
    return np.uint16 if count <= 1 << 16 else np.uint32
