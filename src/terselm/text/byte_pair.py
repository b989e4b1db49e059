"""Byte-pair encoding (Sennrich et al. 2016) on bytes, through Hugging Face `tokenizers`.

The file holds the merges as pairs of ids and nothing else: the ids of `<eos>`, of the 256
bytes and of the merged tokens follow from their order. A `tokenizer.json` of the same tokens
is several times larger.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from terselm.errors import TerselmError, UsageError
from terselm.text.base import END, Vocabulary, check_keys, read_flag, read_tensor, unsigned_type
from terselm.text.splitting import lower_ascii

FIRST_MERGE = 257
"""Ids below are `<eos>` and the bytes."""

MERGES_TENSOR = "vocabulary.merges"
MOST_TOKENS = 2**24
LINES_TOGETHER = 1024


class BytePairVocabulary(Vocabulary):
    """Byte-level byte-pair encoding; every text can be encoded and comes back unchanged.

    Parameters
    ----------
    merges : sequence of (int, int)
        The ids of the two tokens that each merge joins, in order of priority.
    lowercase : bool
        Whether A to Z become a to z first.
    """

    kind = "bpe"

    def __init__(self, merges: Sequence[tuple[int, int]], lowercase: bool = False) -> None:
        alphabet = byte_alphabet()
        tokens = [END, *alphabet]
        ids = {token: number for number, token in enumerate(tokens)}
        pairs = []
        for left, right in merges:
            if not (0 < left < len(tokens) and 0 < right < len(tokens)):
                raise TerselmError("vocabulary.merges: a merge joins a token that does not exist")
            joined = tokens[left] + tokens[right]
            pairs.append((tokens[left], tokens[right]))
            if joined not in ids:
                ids[joined] = len(tokens)
                tokens.append(joined)
        self.merges = [(int(left), int(right)) for left, right in merges]
        self._bytes = [b"", *map(_token_bytes(alphabet), tokens[1:])]
        self._tokenizer = _make_tokenizer(ids, pairs)
        texts = [piece.decode("utf-8", "backslashreplace") for piece in self._bytes]
        self.words = (END, *texts[1:])
        self.start_id = 0
        self.unknown_id = None
        self.lowercase = lowercase

    def id_of(self, word: str) -> int:
        """Return the id of one token as it stands in `words`.

        Raises
        ------
        UsageError
            If there is no such token.
        """
        try:
            return self.words.index(word)
        except ValueError:
            raise UsageError(f"{word!r} is not a token of this vocabulary") from None

    def _encode_prepared(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def encode_lines(self, lines: Iterable[str]) -> Iterator[list[int]]:
        """Yield `encode_line` of each line, many lines at a time."""
        prepared = map(self._prepare, lines)
        while batch := list(itertools.islice(prepared, LINES_TOGETHER)):
            for coded in self._tokenizer.encode_batch(batch):
                yield [*coded.ids, self.start_id]

    def spec(self) -> dict[str, Any]:
        """Return kind, number of tokens and options."""
        return {"kind": self.kind, "size": len(self), **self.options}

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text; bytes that are no UTF-8 become replacement characters."""
        known = self._checked(ids)
        pieces = (b"\n" if number == 0 else self._bytes[number] for number in known)
        return b"".join(pieces).decode("utf-8", "replace")

    def tensors(self) -> dict[str, np.ndarray]:
        """Return `vocabulary.merges`, uint16 or uint32 [merges * 2]."""
        flat = np.array(self.merges, dtype=unsigned_type(len(self))).reshape(-1)
        return {MERGES_TENSOR: flat}

    @classmethod
    def from_file(
        cls, spec: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
    ) -> BytePairVocabulary:
        """Build the vocabulary from a model file; see `vocabulary.vocabulary_from_file`."""
        check_keys(spec, ("kind", "size", "lowercase"))
        size = spec["size"]
        if type(size) is not int or not FIRST_MERGE <= size <= MOST_TOKENS:
            raise TerselmError(f"vocabulary.size is {size!r}, expected at least {FIRST_MERGE}")
        flat = read_tensor(tensors, MERGES_TENSOR)
        if flat.dtype != unsigned_type(size) or flat.ndim != 1 or len(flat) % 2:
            raise TerselmError(f"{MERGES_TENSOR} is {flat.dtype} {flat.shape}, not pairs of ids")
        merges = [(left, right) for left, right in flat.reshape(-1, 2).tolist()]
        vocabulary = cls(merges, read_flag(spec, "lowercase"))
        if len(vocabulary) != size:
            raise TerselmError(f"vocabulary.merges make {len(vocabulary)} tokens, {size} stated")
        return vocabulary

    @classmethod
    def train(
        cls, lines: Iterable[str], size: int, lowercase: bool = False
    ) -> BytePairVocabulary:
        """Learn the merges from lines of text.

        Parameters
        ----------
        lines : iterable of str
        size : int
            Tokens at most, `<eos>` and the 256 bytes among them.
        lowercase : bool
            Whether A to Z become a to z first.

        Raises
        ------
        UsageError
            If `size` leaves no room for a merge.
        """
        if size < FIRST_MERGE:
            raise UsageError(f"a bpe vocabulary of {size} is too small; use at least {FIRST_MERGE}")
        tokenizers = _library()
        tokenizer = _make_tokenizer({}, [])
        alphabet = byte_alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[END],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        prepared = map(lower_ascii, lines) if lowercase else lines
        tokenizer.train_from_iterator(prepared, trainer)
        ids = {END: 0} | {token: number for number, token in enumerate(alphabet, start=1)}
        merges = []
        for left, right in _learned_merges(tokenizer):
            merges.append((ids[left], ids[right]))
            ids.setdefault(left + right, len(ids))
        return cls(merges, lowercase)


def byte_alphabet() -> list[str]:
    """Return the character that stands for each byte in byte-level BPE, in sorted order."""
    return sorted(_characters_of_bytes().values())


def _characters_of_bytes() -> dict[int, str]:
    # Printable Latin-1 stands for itself, the rest is moved beyond 255, as GPT-2 began it.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in plain]
    characters = {byte: chr(byte) for byte in plain}
    return characters | {byte: chr(256 + number) for number, byte in enumerate(moved)}


def _token_bytes(alphabet: Sequence[str]) -> Any:
    bytes_of = {character: byte for byte, character in _characters_of_bytes().items()}
    return lambda token: bytes(bytes_of[character] for character in token)


def _learned_merges(tokenizer: Any) -> list[tuple[str, str]]:
    import json

    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in merges]


def _make_tokenizer(ids: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> Any:
    tokenizers = _library()
    model = tokenizers.models.BPE(vocab=dict(ids), merges=list(merges))
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _library() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise TerselmError(
            "byte-pair encoding needs the library tokenizers; pip install 'terselm[train]'"
        ) from None
    return tokenizers
