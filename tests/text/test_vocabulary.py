"""Words and characters to ids and back, and through the model file."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terselm.errors import TerselmError, UsageError
from terselm.text.vocabulary import (
    CharacterVocabulary,
    Vocabulary,
    WordVocabulary,
    vocabulary_from_file,
)

ASCII_SPACE = " \t\n\r\f\v"
ASCII_MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


def through_file(vocabulary: Vocabulary) -> Vocabulary:
    return vocabulary_from_file(vocabulary.spec(), vocabulary.tensors())


def split_by_hand(line: str) -> list[str]:
    """The rule for punctuation, one character at a time."""
    words, word = [], ""
    for at, character in enumerate(line):
        inside = (
            character in "'-_."
            and word != ""
            and at + 1 < len(line)
            and line[at + 1] not in ASCII_SPACE + ASCII_MARKS
        )
        if character in ASCII_SPACE or (character in ASCII_MARKS and not inside):
            words += [word] if word else []
            words += [character] if character in ASCII_MARKS else []
            word = ""
        else:
            word += character
    return words + ([word] if word else [])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("I don't know.", ["I", "don't", "know", "."]),
        ("state-of-the-art os.path", ["state-of-the-art", "os.path"]),
        ("'tis a--b ...", ["'", "tis", "a", "-", "-", "b", ".", ".", "."]),
        ("f(x_1, y)=3.14", ["f", "(", "x_1", ",", "y", ")", "=", "3.14"]),
        ("naïve — 世界\u00a0x", ["naïve", "—", "世界\u00a0x"]),
        ("", []),
    ],
)
def test_splitting_at_punctuation(line, words):
    vocabulary = WordVocabulary([*dict.fromkeys(words), "<eos>"], splitting="punctuation")
    assert [vocabulary.words[number] for number in vocabulary.encode(line)] == words


@given(st.text(alphabet=st.sampled_from("aB1é\u00a0\x1c \t\n.'-_,!<\\]`~"), max_size=30))
def test_splitting_follows_the_rule(line):
    vocabulary = WordVocabulary(["<eos>", "<unk>"], splitting="punctuation")
    assert vocabulary.pieces(line) == split_by_hand(line)


@given(TEXT)
def test_splitting_at_spaces_is_that_of_bytes(line):
    vocabulary = WordVocabulary(["<eos>", "<unk>"])
    assert [word.encode() for word in vocabulary.pieces(line)] == line.encode().split()


def test_only_ascii_becomes_lower_case():
    vocabulary = WordVocabulary(["the", "École", "<eos>"], lowercase=True)
    assert vocabulary.encode("THE École") == [0, 1]


def test_line_ends_and_a_text_to_go_on_from():
    vocabulary = WordVocabulary(["<eos>", "a", "b"])
    assert vocabulary.start_id == 0
    assert vocabulary.encode_line("a b") == [1, 2, 0]
    assert vocabulary.encode("a b") == [1, 2]
    assert vocabulary.encode("a\n\nb\n") == [1, 0, 0, 2, 0]
    assert vocabulary.encode("") == []
    assert list(vocabulary.encode_lines(["a", ""])) == [[1, 0], [0]]
    assert vocabulary.decode([1, 2, 0, 2]) == "a b\nb"
    assert vocabulary.decode(np.array([1, 0], np.uint16)) == "a\n"


def test_unknown_words():
    closed = WordVocabulary(["a", "<eos>"])
    assert closed.unknown_id is None
    with pytest.raises(UsageError, match="'xyz' is not in the vocabulary"):
        closed.encode("a xyz")
    open_ = WordVocabulary(["a", "<eos>", "<unk>"])
    assert open_.encode("a xyz") == [0, 2]
    assert open_.id_of("xyz") == open_.unknown_id == 2


def test_characters():
    vocabulary = CharacterVocabulary(["\n", "<unk>", "a", "é"])
    assert vocabulary.start_id == 0
    assert vocabulary.encode("aé\nz") == [2, 3, 0, 1]
    assert vocabulary.encode("<unk>") == [1] * 5
    assert vocabulary.decode([2, 3, 0]) == "aé\n"
    with pytest.raises(UsageError, match="'z'"):
        CharacterVocabulary(["\n", "a"]).encode("z")


@given(st.text(alphabet="abc\n", max_size=20))
def test_characters_come_back(text):
    vocabulary = CharacterVocabulary("abc\n")
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_ids_outside_are_refused():
    for number in (-1, 2):
        with pytest.raises(UsageError, match=f"id {number}"):
            WordVocabulary(["a", "<eos>"]).decode([number])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "<eos>"),
        (["a", "<eos>", "a"], "'a' is there twice"),
        (["", "<eos>"], "empty"),
        (["a b", "<eos>"], "white space"),
        (["é" * 128, "<eos>"], "256 bytes"),
        (["\udcff", "<eos>"], "Unicode"),
    ],
)
def test_lists_that_cannot_be_vocabularies(words, message):
    with pytest.raises(UsageError, match=message):
        WordVocabulary(words)


def test_options_that_do_not_exist():
    with pytest.raises(UsageError, match="did you mean 'spaces'"):
        WordVocabulary(["<eos>"], splitting="space")
    with pytest.raises(UsageError, match="not one character"):
        CharacterVocabulary(["\n", "ab"])
    with pytest.raises(UsageError, match="missing"):
        CharacterVocabulary(["a"])


def test_a_copy_is_the_vocabulary_itself():
    vocabulary = WordVocabulary(["a", "<eos>"])
    assert copy.deepcopy(vocabulary) is vocabulary


WORDS = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters=ASCII_SPACE),
    min_size=1,
    max_size=20,
)


@given(
    st.lists(WORDS, unique=True).map(lambda words: list(dict.fromkeys([*words, "<eos>"]))),
    st.booleans(),
    st.sampled_from(["spaces", "punctuation"]),
    st.randoms(use_true_random=False),
)
def test_words_come_back_from_the_file(words, lowercase, splitting, random):
    random.shuffle(words)
    vocabulary = WordVocabulary(words, lowercase, splitting)
    again = through_file(vocabulary)
    assert again.words == tuple(words)
    assert (again.options, again.start_id) == (vocabulary.options, vocabulary.start_id)
    assert again.fingerprint() == vocabulary.fingerprint()


def test_sorted_words_need_no_order():
    assert set(WordVocabulary(["<eos>", "a", "b"]).tensors()) == {"vocabulary.words"}
    stored = WordVocabulary(["b", "<eos>", "a"]).tensors()
    assert stored["vocabulary.order"].tolist() == [1, 2, 0]
    assert stored["vocabulary.order"].dtype == np.uint16


def test_characters_come_back_from_the_file():
    vocabulary = CharacterVocabulary(["z", "\n", "é", "<unk>", "\U0001f600"])
    assert through_file(vocabulary).words == vocabulary.words


def test_different_vocabularies_have_different_fingerprints():
    made = [
        WordVocabulary(["a", "<eos>"]),
        WordVocabulary(["<eos>", "a"]),
        WordVocabulary(["a", "<eos>"], lowercase=True),
        WordVocabulary(["a", "<eos>"], splitting="punctuation"),
        CharacterVocabulary(["a", "\n"]),
    ]
    assert len({vocabulary.fingerprint() for vocabulary in made}) == len(made)


SPEC = {"kind": "words", "size": 3, "lowercase": False, "splitting": "spaces"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "wordz"}, "vocabulary.kind"),
        ({"kind": ["words"]}, "vocabulary.kind"),
        ({"size": 4}, "vocabulary.size"),
        ({"size": "3"}, "vocabulary.size"),
        ({"lowercase": 1}, "vocabulary.lowercase"),
        ({"splitting": "tabs"}, "vocabulary.splitting"),
        ({"splitting": []}, "vocabulary.splitting"),
        ({"colour": "red"}, "vocabulary.colour is unknown"),
    ],
)
def test_a_description_that_is_wrong(changes, message):
    tensors = WordVocabulary(["<eos>", "a", "b"]).tensors()
    with pytest.raises(TerselmError, match=message) as caught:
        vocabulary_from_file({**SPEC, **changes}, tensors)
    assert caught.value.exit_code == 1


def test_a_description_that_lacks_something():
    tensors = WordVocabulary(["<eos>", "a", "b"]).tensors()
    with pytest.raises(TerselmError, match=r"vocabulary.splitting is missing"):
        vocabulary_from_file({"kind": "words", "size": 3, "lowercase": False}, tensors)
    with pytest.raises(TerselmError, match="vocabulary is not described"):
        vocabulary_from_file(None, tensors)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "vocabulary.words is missing"),
        ({"words": np.array([2, 0xC3, 0x28], np.uint8)}, "not UTF-8"),
        ({"order": np.array([0, 1], np.uint16)}, "vocabulary.order"),
        ({"order": np.array([0, 1, 3], np.uint16)}, "vocabulary.order"),
        ({"order": np.array([0, 1, 1], np.uint16)}, "vocabulary.order"),
        ({"order": np.array([0.0, 1.0, 2.0], np.float32)}, "vocabulary.order"),
    ],
)
def test_tensors_that_are_wrong(tensors, message):
    good = {} if not tensors else WordVocabulary(["<eos>", "a", "b"]).tensors()
    given_ = good | {f"vocabulary.{name}": array for name, array in tensors.items()}
    with pytest.raises(TerselmError, match=message):
        vocabulary_from_file(SPEC, given_)


def test_a_file_without_a_line_end():
    tensors = {"vocabulary.words": np.frombuffer(b"\x01a\x01b\x01c", np.uint8)}
    with pytest.raises(TerselmError, match="<eos>") as caught:
        vocabulary_from_file(SPEC, tensors)
    assert caught.value.exit_code == 1


def test_vocabularies_that_differ():
    words = WordVocabulary(["a", "b", "<eos>"])
    words.check_same(WordVocabulary(["a", "b", "<eos>"]), "unused")
    with pytest.raises(UsageError, match=r"of 3 and 2 tokens; give another$"):
        words.check_same(WordVocabulary(["a", "<eos>"]), "give another")
    for other in (
        WordVocabulary(["b", "a", "<eos>"]),
        WordVocabulary(["a", "b", "<eos>"], splitting="punctuation"),
    ):
        with pytest.raises(UsageError, match=r"of 3 tokens with other .*; give another$"):
            words.check_same(other, "give another")
