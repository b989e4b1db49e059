"""Files with vocabularies of every kind: good ones, and one for each way to be malformed."""

from __future__ import annotations

import struct
from typing import Any

import torch
from model_file import File, Manifest

from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.byte_pair import BytePairVocabulary
from terselm.text.characters import CharacterVocabulary
from terselm.text.vocabulary import Vocabulary
from terselm.text.word import WordVocabulary

MODEL = 8
WORDS, ORDER, MERGES = "vocabulary.words", "vocabulary.order", "vocabulary.merges"
MERGED = [(98, 98), (257, 98), (98, 257), (257, 257), (33, 117), (260, 105), (196, 170)]

GOOD: dict[str, Vocabulary] = {
    "words": WordVocabulary(["<eos>", "<unk>", "a", "ab", "zebra", "\u00e9t\u00e9"]),
    "words-no-unknown": WordVocabulary(["<eos>", "a", "b"]),
    "words-long": WordVocabulary(
        ["<eos>", "x" * 254, "x" * 255, "x" * 253 + "\u00e9", "\x01", "\u00a0"]
    ),
    "words-many": WordVocabulary(["<eos>", *(f"word{number}" for number in range(300))]),
    "words-order": WordVocabulary(["the", "<unk>", "a", "<eos>", "b's"], True, "punctuation"),
    "characters": CharacterVocabulary(["\n", "a", "b", "\u00e9", "\U0001f600", "<unk>"]),
    "characters-no-unknown": CharacterVocabulary(["c", "\n", "a", " "], True),
    "bpe": BytePairVocabulary(MERGED),
    "bpe-lowercase": BytePairVocabulary(MERGED, True),
    "bpe-lowercase-contraction": BytePairVocabulary([(40, 116)], True),
    "bpe-no-merges": BytePairVocabulary([]),
    # Twos, fours, ... 128 letters; then 192, 224, ... 255.
    "bpe-255": BytePairVocabulary(
        [(98, 98), *((257 + n, 257 + n) for n in range(6)), (263, 262)]
        + [(264 + n, 261 - n) for n in range(5)]
        + [(269, 98)]
    ),
}


def file_of(vocabulary: Vocabulary) -> File:
    torch.manual_seed(5)
    config = ModelConfig(cell="gru", hidden=(3,), embedding=2)
    return File(LanguageModel(config, vocabulary).eval())


def front_coded(*words: tuple[int, bytes]) -> bytes:
    """Words as the file has them: how many bytes are shared with the one before, and the rest."""
    coded = b""
    for shared, rest in words:
        sizes = (shared, len(rest))
        coded += bytes((min(shared, 15) << 4 | min(len(rest), 15),))
        coded += bytes(size - 15 for size in sizes if size >= 15) + rest
    return coded


def add_vocabularies(manifest: Manifest) -> None:
    for name, vocabulary in GOOD.items():
        manifest.add(f"good-vocabulary-{name}", file_of(vocabulary).bytes())
    add_words(manifest)
    add_orders(manifest)
    add_merges(manifest)
    add_options(manifest)


def add_words(manifest: Manifest) -> None:
    end, unknown = (0, b"<eos>"), (1, b"unk>")

    def add(name: str, coded: bytes, words: str, kind: str = "words", count: int = 3) -> None:
        file = file_of(
            WordVocabulary(["<eos>", *map(str, range(count - 1))])
            if kind == "words"
            else CharacterVocabulary(["\n", *map(str, range(count - 1))])
        )
        file.replace(WORDS, "U8", [len(coded)], coded)
        manifest.add(f"bad-words-{name}", file.bytes(), MODEL, words)

    add("cut-in-word", front_coded(end, unknown, (0, b"zz"))[:-1], "word 2 is cut off")
    add("cut-in-shared", front_coded(end, unknown) + b"\xf1", "word 2 is cut off")
    add("cut-in-rest", front_coded(end, unknown) + b"\x0f", "word 2 is cut off")
    add("cut-before-word", front_coded(end, unknown) + b"\x01", "word 2 is cut off")
    add("falling", front_coded(end, unknown, (0, b"!")), "word 2 is out of order")
    add("falling-rest", front_coded(end, unknown, (1, b"a")), "word 2 is out of order")
    add("twice", front_coded(end, (0, b"a"), (0, b"a")), "word 2 is out of order or there twice")
    add("twice-shared", front_coded(end, (0, b"a"), (1, b"")), "word 2 is out of order or there")
    add("prefix-after", front_coded(end, (0, b"ab"), (1, b"")), "word 2 is out of order")
    add("empty-first", front_coded((0, b""), end, unknown), "word 0 is out of order")
    add("over-255", front_coded(end, unknown, (0, b"x" * 256)), "word 2 is over 255 bytes")
    add("over-255-shared", front_coded(end, (0, b"x" * 200), (200, b"y" * 56)), "word 2 is over")
    add("over-255-cut", front_coded(end, unknown, (0, b"x" * 270))[:-1], "word 2 is cut off")
    add("shares-too-much", front_coded(end, unknown, (6, b"z")), "word 2 shares more")
    add("first-shares", front_coded((1, b"<eos>"), unknown, (0, b"z")), "word 0 shares more")
    add("not-utf-8", front_coded(end, unknown, (0, b"\xff")), "word 2 is not UTF-8")
    add("half-character", front_coded(end, unknown, (0, b"\xc3")), "word 2 is not UTF-8")
    add("surrogate", front_coded(end, unknown, (0, b"\xed\xa0\x80")), "word 2 is not UTF-8")
    add("overlong", front_coded(end, unknown, (0, b"\xe0\x80\x80")), "word 2 is not UTF-8")
    for name, space in (("space", b"z z"), ("tab", b"z\t"), ("return", b"z\r"), ("feed", b"z\x0b")):
        add(name, front_coded(end, unknown, (0, space)), "word 2 holds white space")
    add("no-end", front_coded((0, b"<eot>"), unknown, (0, b"z")), "has no <eos>")
    add("fewer", front_coded(end, unknown), "size is 3")
    add("more", front_coded(end, unknown, (0, b"y"), (0, b"z")), "size is 3")
    add("none", b"", "size is 3")
    newline = (0, b"\n")
    two = front_coded(newline, (0, b"ab"), (0, b"c"))
    add("two-characters", two, "word 1 is not one character", "characters")
    half = front_coded(newline, (0, b"\xc3\xa9"), (1, b"\xaae"))
    add("character-and-more", half, "word 2 is not one character", "characters")
    add("no-newline", front_coded((0, b"a"), (0, b"b"), (0, b"c")), "has no newline", "characters")

    for name, dtype, shape in (("type", "I8", [5]), ("shape", "U8", [1, 5])):
        file = file_of(GOOD["words-no-unknown"])
        file.replace(WORDS, dtype, shape, b"\5<eos")
        manifest.add(f"bad-words-{name}", file.bytes(), MODEL, "vocabulary.words is not a list")
    file = file_of(GOOD["words"])
    file.entries["odd"] = file.entries.pop(WORDS)
    manifest.add("bad-words-missing", file.bytes(), MODEL, "vocabulary.words is missing")


def add_orders(manifest: Manifest) -> None:
    def add(name: str, dtype: str, shape: list[int], content: bytes, words: str) -> None:
        file = file_of(GOOD["words-order"])
        file.replace(ORDER, dtype, shape, content)
        manifest.add(f"bad-order-{name}", file.bytes(), MODEL, f"vocabulary.order {words}")

    def ids(*numbers: int) -> bytes:
        return struct.pack(f"<{len(numbers)}H", *numbers)

    add("id-twice", "U16", [5], ids(0, 1, 2, 2, 4), "does not hold each id once: place 3")
    add("id-beyond", "U16", [5], ids(0, 1, 2, 3, 5), "does not hold each id once: place 4")
    add("id-largest", "U32", [5], struct.pack("<5I", 0, 1, 2, 3, 2**32 - 1), "does not hold each")
    add("short", "U16", [4], ids(0, 1, 2, 3), "is not an id for each of 5 words")
    add("long", "U16", [6], ids(0, 1, 2, 3, 4, 5), "is not an id for each of 5 words")
    add("signed", "I32", [5], struct.pack("<5i", 0, 1, 2, 3, 4), "is not an id for each")
    add("table", "U16", [5, 1], ids(0, 1, 2, 3, 4), "is not an id for each of 5 words")


def add_merges(manifest: Manifest) -> None:
    def add(
        name: str, pairs: list[tuple[int, int]], words: str, size: int = 257, dtype: str = "U16"
    ) -> None:
        file = file_of(BytePairVocabulary([(98, 98 + n) for n in range(size - 257)]))
        numbers = [number for pair in pairs for number in pair]
        content = struct.pack(f"<{len(numbers)}{'H' if dtype == 'U16' else 'I'}", *numbers)
        file.replace(MERGES, dtype, [len(pairs), 2], content)
        manifest.add(f"bad-merges-{name}", file.bytes(), MODEL, words)

    add("left-zero", [(98, 99), (0, 98)], "merge 1 is not possible", 259)
    add("right-zero", [(98, 0)], "merge 0 is not possible", 258)
    add("itself", [(257, 98)], "merge 0 is not possible", 258)
    add("forward", [(98, 258), (98, 99)], "merge 0 is not possible", 259)
    add("largest", [(98, 2**32 - 1)], "merge 0 is not possible", 258, "U32")
    add("twice", [(98, 99), (98, 99)], "merge 1 is not possible", 258)
    add("twice-later", [(98, 99), (99, 98), (98, 99)], "merge 2 is not possible", 259)
    doubles = [(98, 98), *((257 + n, 257 + n) for n in range(7))]
    add("over-255", doubles, "merge 7 is not possible", 265)
    add("size-less", [(98, 99), (98, 98)], "size is 258, vocabulary.merges makes 259", 258)
    add("size-more", [(98, 99)], "size is 259, vocabulary.merges makes 258", 259)
    same = [(98, 98), (257, 98), (98, 257)]
    add("same-text", same, "size is 260, vocabulary.merges makes 259", 260)
    for name, shape, dtype in (
        ("flat", [4], "U16"),
        ("wide", [1, 4], "U16"),
        ("half", [2, 2], "F16"),
    ):
        file = file_of(BytePairVocabulary([(98, 99)]))
        file.replace(MERGES, dtype, shape, struct.pack("<4H", 98, 99, 98, 98))
        manifest.add(f"bad-merges-{name}", file.bytes(), MODEL, "vocabulary.merges is not pairs")
    file = file_of(GOOD["bpe"])
    file.entries["odd"] = file.entries.pop(MERGES)
    manifest.add("bad-merges-missing", file.bytes(), MODEL, "vocabulary.merges is missing")


def add_options(manifest: Manifest) -> None:
    def add(name: str, kind: str, key: str, value: Any, words: str) -> None:
        file = file_of(GOOD[kind])
        if value is None:
            del file.document["vocabulary"][key]
        else:
            file.document["vocabulary"][key] = value
        manifest.add(f"bad-vocabulary-{name}", file.bytes(), MODEL, f"vocabulary: {words}")

    for kind in ("words", "characters", "bpe"):
        add(f"{kind}-lowercase-missing", kind, "lowercase", None, "lowercase is nothing")
        add(f"{kind}-lowercase-number", kind, "lowercase", 1, "lowercase is 1")
        add(f"{kind}-odd-field", kind, "stemming", True, "has")
        add(f"{kind}-size-text", kind, "size", "3", "size is")
    add("splitting-unknown", "words", "splitting", "syllables", "splitting is")
    add("splitting-missing", "words", "splitting", None, "splitting is nothing")
    add("splitting-number", "words", "splitting", 0, "splitting is 0")
    add("splitting-characters", "characters", "splitting", "spaces", "has 4 fields")
