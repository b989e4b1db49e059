"""Byte-pair encoding: tokens are byte strings, built by merging pairs of them.

Id 0 is `<eos>`, ids 1 to 256 are the bytes 0 to 255, and each merge of two tokens adds the
next id (unless an earlier merge made the same byte string). So the merges alone, as pairs of
ids, say everything. The `tokenizers` library learns and applies them; it splits text into
words, numbers and white space first, and merges never cross these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from terselm.errors import TerselmError, UsageError
from terselm.text.base import END, Vocabulary, check_keys, read_flag, read_tensor, unsigned_type
from terselm.text.splitting import lower_ascii

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MERGES_TENSOR = "vocabulary.merges"
END_ID = 0
FIRST_BYTE_ID = 1
BASE_TOKENS = 257  # <eos> and the 256 bytes
MAX_TOKEN_BYTES = 255  # as for words; bounds what a hostile file can make us build
LINES_AT_ONCE = 1000


class BytePairVocabulary(Vocabulary):
    r"""Byte-level byte-pair encoding. Every text can be encoded, and decoding gives it back.

    `words` shows each token as text; bytes that are not UTF-8 by themselves as `\xNN`.

    Parameters
    ----------
    merges : array_like
        Integer ids [merges, 2], in the order in which they were learned.
    lowercase : bool
        Whether A to Z become a to z first.

    Raises
    ------
    TerselmError
        If a merge names an id that does not exist at that point, or is there twice.
    """

    kind: ClassVar[str] = "bpe"

    def __init__(self, merges: npt.ArrayLike, lowercase: bool = False) -> None:
        pairs = np.asarray(merges)
        if pairs.size == 0:
            pairs = np.zeros((0, 2), np.uint16)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
            raise TerselmError(
                f"{MERGES_TENSOR} is {pairs.dtype} of shape {pairs.shape}, not pairs of ids"
            )
        self._tokens, self._ids = _apply_merges(pairs)
        self._merges = pairs.astype(unsigned_type(len(self._tokens)))  # [merges, 2]
        self._cached_tokenizer: Tokenizer | None = None
        self.words = (END, *(token.decode(errors="backslashreplace") for token in self._tokens[1:]))
        self.lowercase = lowercase
        self.start_id = END_ID
        self.unknown_id = None

    @classmethod
    def train(cls, lines: Iterable[str], size: int, lowercase: bool = False) -> BytePairVocabulary:
        """Learn merges from text.

        Parameters
        ----------
        lines : iterable of str
            The text, without newlines.
        size : int
            The most tokens, at least 257; a short text gives fewer.
        lowercase : bool
            Whether A to Z become a to z first.

        Raises
        ------
        UsageError
            If `size` is below 257.
        TerselmError
            If the library `tokenizers` is not installed.
        """
        if size < BASE_TOKENS:
            raise UsageError(
                f"a byte-pair vocabulary of {size} is too small: {BASE_TOKENS} tokens are <eos> "
                "and the single bytes"
            )
        tokenizers = _import_tokenizers()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size - 1,  # <eos> is not learned
            min_frequency=2,
            initial_alphabet=_byte_characters(),
            max_token_length=MAX_TOKEN_BYTES,
            show_progress=False,
        )
        tokenizer = _new_tokenizer(tokenizers, tokenizers.models.BPE())
        prepared = map(lower_ascii, lines) if lowercase else lines
        tokenizer.train_from_iterator(prepared, trainer)
        model = json.loads(tokenizer.to_str())["model"]
        return cls(_own_ids(model["merges"]), lowercase)

    def id_of(self, word: str) -> int:
        """Return the id of the one token that stands for `word`.

        Raises
        ------
        UsageError
            If there is none, because it takes several.
        """
        if word == END:
            return END_ID
        found = self._ids.get(word.encode(errors="surrogatepass"))
        if found is None:
            raise UsageError(f"{word!r} is not one token of this byte-pair vocabulary")
        return found

    def encode_lines(self, lines: Iterable[str]) -> Iterator[list[int]]:
        """Yield `encode_line` of each line, many lines at a time."""
        rest = iter(lines)
        while chunk := list(islice(rest, LINES_AT_ONCE)):
            prepared = [_check_unicode(self._prepare(line)) for line in chunk]
            for encoding in self._tokenizer().encode_batch_fast(prepared):
                yield [*encoding.ids, END_ID]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; bytes that do not form UTF-8 become U+FFFD.

        Raises
        ------
        UsageError
            If an id is not below `len(self)`.
        """
        return b"".join(self._tokens[number] for number in self._checked(ids)).decode(
            errors="replace"
        )

    def spec(self) -> dict[str, Any]:
        """Return kind, number of tokens and options."""
        return {"kind": self.kind, "size": len(self), **self.options}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the merges, uint16 or uint32 [merges, 2]."""
        return {MERGES_TENSOR: self._merges.copy()}

    @classmethod
    def from_file(
        cls, spec: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> BytePairVocabulary:
        """Return the vocabulary that `spec()` and `tensors()` describe.

        Raises
        ------
        TerselmError
            If they describe none; the message names the field.
        """
        check_keys(spec, ("kind", "size", "lowercase"))
        vocabulary = cls(read_tensor(tensors, MERGES_TENSOR), read_flag(spec, "lowercase"))
        if spec["size"] != len(vocabulary):
            raise TerselmError(
                f"vocabulary.size is {spec['size']!r}, {MERGES_TENSOR} makes {len(vocabulary)}"
            )
        return vocabulary

    def _encode_prepared(self, text: str) -> list[int]:
        return list(self._tokenizer().encode(_check_unicode(text)).ids)

    def _tokenizer(self) -> Tokenizer:
        # Made when first needed: a model can be inspected without the library.
        if self._cached_tokenizer is None:
            tokenizers = _import_tokenizers()
            characters = _byte_characters()
            names = ["".join(characters[byte] for byte in token) for token in self._tokens]
            # Merges of text like "<eos>" must not reach id 0; no merged name holds a newline.
            names[END_ID] = "\n"
            model = tokenizers.models.BPE(
                vocab={name: number for number, name in enumerate(names)},
                merges=[(names[left], names[right]) for left, right in self._merges.tolist()],
            )
            self._cached_tokenizer = _new_tokenizer(tokenizers, model)
        return self._cached_tokenizer


def _apply_merges(pairs: npt.NDArray[Any]) -> tuple[list[bytes], dict[bytes, int]]:
    """Return the bytes of each token by id (a newline for `<eos>`), and the ids of the bytes."""
    tokens = [b"\n", *(bytes((byte,)) for byte in range(256))]
    ids = {token: number for number, token in enumerate(tokens) if number != END_ID}
    seen: set[tuple[int, int]] = set()
    for number, (left, right) in enumerate(pairs.tolist()):
        if not (0 < left < len(tokens) and 0 < right < len(tokens)) or (left, right) in seen:
            raise TerselmError(
                f"{MERGES_TENSOR}: merge {number} of ids {left} and {right} is not possible"
            )
        seen.add((left, right))
        merged = tokens[left] + tokens[right]
        if len(merged) > MAX_TOKEN_BYTES:
            raise TerselmError(f"{MERGES_TENSOR}: merge {number} is over {MAX_TOKEN_BYTES} bytes")
        if merged not in ids:
            ids[merged] = len(tokens)
            tokens.append(merged)
    return tokens, ids


def _own_ids(merges: Iterable[tuple[str, str]]) -> list[tuple[int, int]]:
    """Return learned merges, given in the characters of the library, as pairs of our ids."""
    ids = {character: FIRST_BYTE_ID + byte for byte, character in enumerate(_byte_characters())}
    pairs = []
    for left, right in merges:
        pairs.append((ids[left], ids[right]))
        ids.setdefault(left + right, len(ids) + FIRST_BYTE_ID)
    return pairs


def _byte_characters() -> list[str]:
    """Return the character by which byte-level encoding writes each byte.

    Printable Latin-1 characters stand for themselves, the others are counted from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _new_tokenizer(tokenizers: Any, model: Any) -> Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _import_tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise TerselmError(
            "byte-pair encoding needs the library tokenizers; pip install 'terselm[train]'"
        ) from None
    return tokenizers


def _check_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the text is not valid Unicode at character {error.start}") from None
    return text
