"""Front coding: any sorted list comes back, and no bytes whatever do harm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terselm.errors import TerselmError
from terselm.text.front_coding import decode_words, encode_words

WORD = st.binary(min_size=1, max_size=255)


@given(st.lists(WORD, unique=True).map(sorted))
def test_any_sorted_list_comes_back(words):
    coded = encode_words(words)
    assert coded.dtype == np.uint8
    assert decode_words(coded) == words


@given(st.binary(max_size=300))
def test_whatever_can_be_read_is_what_would_be_written(data):
    """Bytes are refused or stand for a list, and a list longer than needed is not accepted."""
    try:
        words = decode_words(np.frombuffer(data, np.uint8))
    except TerselmError as error:
        assert "vocabulary.words" in str(error)
        return
    assert words == sorted(set(words))
    assert len(encode_words(words)) <= len(data)


def test_the_bytes_are_those_of_the_format():
    words = [word.encode() for word in ("car", "care", "cat", "é", "è")]
    coded = encode_words(sorted(words))
    # é is C3 A9 and è is C3 A8: the shared prefix counts bytes and may cut a character.
    assert coded.tobytes() == (b"\x03car\x31e\x21t\x02\xc3\xa8\x11\xa9")

    long = [b"a" * 15, b"a" * 15 + b"b" * 20, b"a" * 35]
    coded = encode_words(sorted(long))
    # Sorted: 15 a, 35 a, 15 a and 20 b. Lengths from 15 on take another byte.
    assert coded.tobytes() == (
        b"\x0f\x00" + b"a" * 15 + b"\xff\x00\x05" + b"a" * 20 + b"\xff\x00\x05" + b"b" * 20
    )


@pytest.mark.parametrize(
    ("coded", "message"),
    [
        (b"\x03ca", "cut off"),
        (b"\x0f", "cut off"),
        (b"\x01a\xf1", "cut off"),
        (b"\x11a", "shares more"),
        (b"\x01a\x21b", "shares more"),
        (b"\x01a\x10", "twice"),
        (b"\x00", "twice"),
        (b"\x01b\x01a", "out of order"),
        (b"\x0f\xf0" + b"a" * 255 + b"\xf1\xf0b", "255"),
    ],
)
def test_malformed_bytes_are_refused(coded, message):
    with pytest.raises(TerselmError, match=f"vocabulary.words.*{message}"):
        decode_words(np.frombuffer(coded, np.uint8))


def test_another_type_or_shape_is_refused():
    for array in (np.zeros(3, np.int8), np.zeros((2, 2), np.uint8)):
        with pytest.raises(TerselmError, match="not a list of bytes"):
            decode_words(array)


@pytest.mark.parametrize("words", [[b""], [b"b", b"a"], [b"a", b"a"], [b"x" * 256]])
def test_lists_that_have_no_form_are_refused(words):
    with pytest.raises(ValueError, match=r"not come after|255"):
        encode_words(words)
