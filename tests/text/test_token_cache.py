"""Tokens on disk: equal to those in memory, kept, and never trusted when damaged."""

from __future__ import annotations

import os

import numpy as np
import pytest

from terselm.errors import TerselmError, UsageError
from terselm.text import token_cache
from terselm.text.build import build_vocabulary, vocabulary_from_words
from terselm.text.corpus import open_corpus
from terselm.text.token_cache import TokenizedSplit, tokenize

TEXT = "a b c\n\nb zz\r\nlast é"


@pytest.fixture
def vocabulary():
    return vocabulary_from_words(["<eos>", "<unk>", "a", "b", "c"])


@pytest.fixture
def corpus(make_corpus):
    return make_corpus(TEXT)


@pytest.fixture
def encodings(monkeypatch):
    """Which splits were encoded and not found in the cache."""
    done = []
    write = token_cache._write

    def counted(path, corpus, split, vocabulary):
        done.append(split)
        write(path, corpus, split, vocabulary)

    monkeypatch.setattr(token_cache, "_write", counted)
    return done


def test_every_line_end_is_a_token(corpus, vocabulary, tmp_path):
    tokens = tokenize(corpus, "train", vocabulary, tmp_path / "cache")
    assert tokens.ids.tolist() == [2, 3, 4, 0, 0, 3, 1, 0, 1, 1, 0]
    assert len(tokens) == 11
    assert tokens.ids.dtype == np.uint16
    assert isinstance(tokens.ids, np.memmap)
    assert tokens.unknown == 3
    assert tokens.characters == len(TEXT.replace("\r\n", "\n")) + 1


def test_the_file_is_a_plain_npy(corpus, vocabulary, tmp_path):
    tokens = tokenize(corpus, "train", vocabulary, tmp_path)
    (path,) = tmp_path.glob("corpus-train-*.npy")
    assert np.load(path).tolist() == tokens.ids.tolist()


def test_in_memory_gives_the_same(corpus, vocabulary, tmp_path):
    kept = tokenize(corpus, "train", vocabulary, tmp_path)
    direct = TokenizedSplit.from_lines(corpus.lines("train"), vocabulary)
    assert direct.ids.tolist() == kept.ids.tolist()
    assert (direct.characters, direct.unknown) == (kept.characters, kept.unknown)


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_other_kinds_of_tokens(corpus, tmp_path, kind):
    vocabulary = build_vocabulary(corpus, kind)
    tokens = tokenize(corpus, "train", vocabulary, tmp_path)
    assert vocabulary.decode(tokens.ids) == TEXT.replace("\r\n", "\n") + "\n"


def test_many_words_need_32_bits(corpus, tmp_path):
    vocabulary = vocabulary_from_words(["<eos>", "<unk>", *map(str, range(70_000)), "a"])
    tokens = tokenize(corpus, "train", vocabulary, tmp_path)
    assert tokens.ids.dtype == np.uint32
    assert tokens.ids[0] == 70_002


def test_text_is_encoded_once(corpus, vocabulary, tmp_path, encodings):
    first = tokenize(corpus, "train", vocabulary, tmp_path)
    again = tokenize(open_corpus(corpus.ranges["train"].path.parent), "train", vocabulary, tmp_path)
    assert encodings == ["train"]
    assert (again.characters, again.unknown) == (first.characters, first.unknown)


def test_changed_text_and_other_words_are_encoded_anew(corpus, vocabulary, tmp_path, encodings):
    tokenize(corpus, "train", vocabulary, tmp_path)
    other = vocabulary_from_words(["<unk>", "<eos>", "a", "b", "c"])
    assert tokenize(corpus, "train", other, tmp_path).ids[3] == 1
    path = corpus.ranges["train"].path
    path.write_text(TEXT.replace("c", "a"))
    os.utime(path, ns=(1, 1))
    assert tokenize(corpus, "train", vocabulary, tmp_path).ids[2] == 2
    assert len(encodings) == 3


def _cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize(
    "damage", [_cut, _flip, lambda path: path.write_bytes(b""), lambda path: path.unlink()]
)
def test_damage_is_found_and_repaired(corpus, vocabulary, tmp_path, encodings, suffix, damage):
    good = tokenize(corpus, "train", vocabulary, tmp_path).ids.tolist()
    (path,) = tmp_path.glob(f"*{suffix}")
    damage(path)
    assert tokenize(corpus, "train", vocabulary, tmp_path).ids.tolist() == good
    assert encodings == ["train", "train"]


def test_nothing_half_is_left_where_text_is_bad(make_corpus, vocabulary, tmp_path):
    corpus = make_corpus("a\nb\n")
    corpus.ranges["train"].path.write_bytes(b"a\nb\xff\n")
    corpus = open_corpus(corpus.ranges["train"].path.parent)
    with pytest.raises(TerselmError, match="not UTF-8 in line 2"):
        tokenize(corpus, "train", vocabulary, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_word_that_is_not_in_a_closed_vocabulary(corpus, tmp_path):
    vocabulary = vocabulary_from_words(["<eos>", "a", "b", "c"])
    with pytest.raises(UsageError, match=r"train\.txt, line 3 of train: 'zz'"):
        tokenize(corpus, "train", vocabulary, tmp_path / "cache")


def test_a_cache_that_cannot_be_made(corpus, vocabulary, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TerselmError, match="TERSELM_CACHE") as caught:
        tokenize(corpus, "train", vocabulary, tmp_path / "file" / "cache")
    assert str(tmp_path / "file" / "cache") in str(caught.value)


def test_a_cache_that_cannot_be_written(corpus, vocabulary, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(TerselmError, match="TERSELM_CACHE"):
        tokenize(corpus, "train", vocabulary, tmp_path)
