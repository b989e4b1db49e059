"""Byte-pair encoding: lossless, and the same again from the merges alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terselm.errors import TerselmError, UsageError
from terselm.text.vocabulary import BytePairVocabulary, vocabulary_from_file

LINES = [
    "the cat sat on the mat, the dog sat on the rug",
    "a literal <eos> is text; <eos> <eos>",
    "tabs\tand  double  spaces   here",
    "emoji \U0001f600\U0001f600 naïve 世界 世界",
] * 4


@pytest.fixture(scope="module")
def vocabulary() -> BytePairVocabulary:
    return BytePairVocabulary.train(LINES, 320)


@pytest.fixture(scope="module")
def again(vocabulary) -> BytePairVocabulary:
    return vocabulary_from_file(vocabulary.spec(), vocabulary.tensors())


def test_merges_were_learned(vocabulary):
    assert 257 < len(vocabulary) <= 320
    assert len(vocabulary.encode("the cat sat")) < len("the cat sat")
    assert vocabulary.words[vocabulary.id_of(" the")] == " the"
    with pytest.raises(UsageError, match="not one token"):
        vocabulary.id_of("never seen")


@pytest.mark.parametrize("line", LINES[:4])
def test_the_rebuilt_one_gives_the_same_ids(vocabulary, again, line):
    assert again.encode(line) == vocabulary.encode(line)
    assert again.words == vocabulary.words
    assert vocabulary.decode(vocabulary.encode(line)) == line


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_back(vocabulary, text):
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_line_ends(vocabulary):
    assert vocabulary.words[0] == "<eos>"
    assert vocabulary.encode_line("the")[-1] == vocabulary.start_id == 0
    assert 0 not in vocabulary.encode("<eos> of <eos>")
    assert list(vocabulary.encode_lines(LINES)) == [vocabulary.encode_line(line) for line in LINES]


def test_the_library_itself_agrees(vocabulary):
    """The ids of a tokenizer that `tokenizers` trained on its own, renumbered."""
    tokenizers = pytest.importorskip("tokenizers")
    reference = tokenizers.Tokenizer(tokenizers.models.BPE())
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    reference.pre_tokenizer = byte_level(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=319,
        min_frequency=2,
        initial_alphabet=byte_level.alphabet(),
        show_progress=False,
    )
    reference.train_from_iterator(LINES, trainer)
    reference.decoder = tokenizers.decoders.ByteLevel()
    for line in LINES[:4]:
        pieces = [reference.decode([number]) for number in reference.encode(line).ids]
        ours = [vocabulary.decode([number]) for number in vocabulary.encode(line)]
        assert ours == pieces


def test_training_gives_the_same_twice(vocabulary):
    assert BytePairVocabulary.train(LINES, 320).fingerprint() == vocabulary.fingerprint()


def test_lower_case():
    vocabulary = BytePairVocabulary.train(["THE the The"] * 3, 270, lowercase=True)
    assert vocabulary.decode(vocabulary.encode("THE É")) == "the É"


def test_merges_are_stored_compactly(vocabulary):
    (merges,) = vocabulary.tensors().values()
    assert merges.dtype == np.uint16
    assert merges.shape == (len(vocabulary) - 257, 2)


def test_without_merges_every_byte_is_a_token():
    vocabulary = BytePairVocabulary([])
    assert len(vocabulary) == 257
    assert vocabulary.encode("é") == [1 + 0xC3, 1 + 0xA9]


@pytest.mark.parametrize(
    "merges",
    [
        [[300, 1]],
        [[0, 1]],
        [[1, 2], [1, 2]],
        [[1, 2, 3]],
        [[1.0, 2.0]],
        [[1, 1], *([number, number] for number in range(257, 270))],
    ],
)
def test_merges_that_cannot_be(merges):
    with pytest.raises(TerselmError, match=r"vocabulary.merges"):
        vocabulary_from_file(
            {"kind": "bpe", "size": 258, "lowercase": False},
            {"vocabulary.merges": np.array(merges)},
        )


def test_a_size_that_is_wrong(vocabulary):
    with pytest.raises(TerselmError, match=r"vocabulary.size"):
        vocabulary_from_file({**vocabulary.spec(), "size": 9}, vocabulary.tensors())
    with pytest.raises(UsageError, match="257"):
        BytePairVocabulary.train(LINES, 100)


def test_text_that_is_not_unicode(vocabulary):
    with pytest.raises(UsageError, match="not valid Unicode"):
        vocabulary.encode("bad \udcff")


def test_without_the_library(monkeypatch, vocabulary):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(TerselmError, match=r"terselm\[train\]"):
        BytePairVocabulary.train(LINES, 300)
    # The words can be shown all the same.
    assert BytePairVocabulary([]).words[0] == "<eos>"
