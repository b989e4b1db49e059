"""Vocabularies made from text and from lists."""

from __future__ import annotations

from collections import Counter

import pytest

from terselm.errors import TerselmError, UsageError
from terselm.text.build import (
    build_vocabulary,
    read_vocabulary_file,
    vocabulary_from_words,
    vocabulary_in_order_of_appearance,
)
from terselm.text.corpus import open_corpus
from terselm.text.vocabulary import BytePairVocabulary


def test_open_text_is_split_at_punctuation(make_corpus):
    vocabulary = build_vocabulary(make_corpus("Don't go, b!\nDon't, a\n", valid="new\n"))
    assert vocabulary.words == ("!", ",", "<eos>", "<unk>", "Don't", "a", "b", "go")
    assert vocabulary.options == {"lowercase": False, "splitting": "punctuation"}


def test_a_closed_corpus_is_taken_as_it_is(make_corpus):
    corpus = make_corpus("the <unk> sat, N\n", valid="new the\n")
    vocabulary = build_vocabulary(corpus)
    assert vocabulary.words == ("<eos>", "<unk>", "N", "sat,", "the")
    assert vocabulary.options["splitting"] == "spaces"
    assert vocabulary.encode("new the") == [1, 4]


def test_a_closed_corpus_can_be_treated_as_open(make_corpus):
    corpus = make_corpus("the <unk> sat\n")
    vocabulary = build_vocabulary(corpus, splitting="punctuation")
    assert vocabulary.words == ("<", "<eos>", "<unk>", ">", "sat", "the", "unk")


def test_the_most_frequent_words_are_kept_and_ties_go_by_word(make_corpus):
    corpus = make_corpus("c c c b b a a d d e\n")
    assert build_vocabulary(corpus, size=5).words == ("<eos>", "<unk>", "a", "b", "c")
    assert build_vocabulary(corpus, splitting="spaces", size=4).words[2:] == ("a", "c")


def test_lower_case(make_corpus):
    vocabulary = build_vocabulary(make_corpus("The the ÉCOLE\n"), lowercase=True)
    assert vocabulary.words == ("<eos>", "<unk>", "the", "\u00c9cole")


def test_characters(make_corpus):
    corpus = make_corpus("ba\nbé\n")
    assert build_vocabulary(corpus, "characters").words == ("\n", "<unk>", "a", "b", "é")
    assert build_vocabulary(corpus, "characters", size=4).words == ("\n", "<unk>", "a", "b")


def test_byte_pairs(make_corpus):
    vocabulary = build_vocabulary(make_corpus("hello hello\n" * 5), "bpe", size=260)
    assert isinstance(vocabulary, BytePairVocabulary)
    assert len(vocabulary) == 260


def test_words_too_long_are_unknown(make_corpus):
    vocabulary = build_vocabulary(make_corpus(f"a b {'x' * 256}\n"))
    assert vocabulary.words == ("<eos>", "<unk>", "a", "b")
    assert vocabulary.encode("x" * 256) == [vocabulary.unknown_id]


@pytest.mark.parametrize("text", ["\n\n\n", "same same\n", "<unk> <unk> a\n"])
def test_too_few_words(make_corpus, text):
    with pytest.raises(TerselmError, match="corpus holds fewer than 2"):
        build_vocabulary(make_corpus(text))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "word"}, "did you mean 'words'"),
        ({"size": 3}, "too small"),
        ({"splitting": "space"}, "did you mean 'spaces'"),
        ({"kind": "characters", "splitting": "spaces"}, "only words are split"),
        ({"kind": "bpe", "size": 100}, "257"),
    ],
)
def test_requests_that_make_no_sense(make_corpus, arguments, message):
    with pytest.raises(UsageError, match=message):
        build_vocabulary(make_corpus("a b c\n"), **arguments)


def test_an_explicit_list():
    vocabulary = vocabulary_from_words(["b", "<eos>", "a"], lowercase=True)
    assert vocabulary.encode("A b\n") == [2, 0, 1]
    assert vocabulary_from_words(["a", "\n"], kind="characters").encode("a\n") == [0, 1]
    with pytest.raises(UsageError, match="words or characters"):
        vocabulary_from_words(["a"], kind="bpe")


def test_a_vocabulary_file(text_file):
    words = ["the", "<unk>", "<eos>", "é"]
    content = "the\n<unk>\r\n<eos>\né".encode()
    assert read_vocabulary_file(text_file(content)) == words
    # As editors on Windows write it, with a byte order mark.
    assert read_vocabulary_file(text_file(b"\xef\xbb\xbf" + content)) == words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a\n\nb\n", "line 2: '' is empty"),
        (b"a\nb\na\n", "line 3: 'a' is in line 1"),
        (b"a\nb 12\n", "line 2.*white space"),
        (b"a\n" + b"x" * 256 + b"\n", "line 2.*256 bytes"),
        (b"a\ncaf\xe9\n", "line 2 is not UTF-8"),
    ],
)
def test_vocabulary_files_that_are_wrong(text_file, content, message):
    path = text_file(content)
    with pytest.raises(TerselmError, match=message) as caught:
        read_vocabulary_file(path)
    assert str(path) in str(caught.value)


def test_a_vocabulary_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"none\.txt"):
        read_vocabulary_file(tmp_path / "none.txt")
    with pytest.raises(TerselmError, match="cannot read"):
        read_vocabulary_file(tmp_path)


def test_order_of_appearance(make_corpus):
    corpus = make_corpus("b a b\n c\n", valid="d a\n", test="e\n")
    assert vocabulary_in_order_of_appearance(corpus).words == ("b", "a", "<eos>", "c", "d", "e")


def test_the_penn_treebank_has_ten_thousand_words(ptb_folder):
    corpus = open_corpus(ptb_folder)
    vocabulary = build_vocabulary(corpus)
    text = (ptb_folder / "ptb.train.txt").read_text(encoding="utf-8")
    counts = Counter(text.replace("\n", " <eos> ").split())
    assert len(vocabulary) == 10_000
    assert set(vocabulary.words) == set(counts)
    assert list(vocabulary.words) == sorted(counts, key=str.encode)
    ordered = vocabulary_in_order_of_appearance(corpus)
    assert list(ordered.words) == list(counts)
    coded = vocabulary.tensors()
    assert set(coded) == {"vocabulary.words"}
    # As the list alone, without the two length bytes a word, front coding leaves 28 kB.
    assert coded["vocabulary.words"].nbytes == 38_380
