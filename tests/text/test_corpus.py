"""Opening text: what is accepted, how one file is cut, and every way it can be unusable."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terselm.errors import TerselmError, UsageError
from terselm.text.corpus import open_corpus


@pytest.mark.parametrize(
    "names",
    [
        ("train.txt", "valid.txt", "test.txt"),
        ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
        ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
        ("x-train.txt", "x_validation.txt", "TEST.txt"),
        ("train.txt", "dev.txt", "test.txt"),
    ],
)
def test_a_folder_of_three_files(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text(f"{name}\nb\n")
    (tmp_path / "README.md").write_text("not text of the corpus")
    (tmp_path / "latest.txt").write_text("no split, though its name ends like one")
    corpus = open_corpus(tmp_path)
    assert corpus.splits == ("train", "valid", "test")
    for split, name in zip(corpus.splits, names, strict=True):
        assert list(corpus.lines(split)) == [name, "b"]


def test_a_missing_split(tmp_path):
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "test.txt").write_text("a\n")
    with pytest.raises(TerselmError, match=r"no valid split.*validation\.txt.*dev\.txt"):
        open_corpus(tmp_path)


def test_two_files_for_a_split(tmp_path):
    for name in ("train.txt", "valid.txt", "dev.txt", "test.txt"):
        (tmp_path / name).write_text("a\n")
    with pytest.raises(TerselmError, match=r"dev\.txt and valid\.txt"):
        open_corpus(tmp_path)


def test_a_training_file_alone_is_not_cut(tmp_path):
    (tmp_path / "train.txt").write_text("a\n" * 100)
    with pytest.raises(TerselmError, match="no valid split"):
        open_corpus(tmp_path)
    assert list(open_corpus(tmp_path / "train.txt").lines("test")) == ["a"] * 10


def test_one_file_is_cut_at_line_ends(tmp_path):
    path = tmp_path / "input.txt"
    path.write_text("".join(f"line {number:02d}\n" for number in range(100)))
    for where in (path, str(path), tmp_path):
        corpus = open_corpus(where)
        assert [len(list(corpus.lines(split))) for split in corpus.splits] == [80, 10, 10]
        assert next(corpus.lines("valid")) == "line 80"
        assert corpus.characters("train") == 80 * 8


@given(st.lists(st.text("aé \r", max_size=30), min_size=40, max_size=60))
def test_every_line_is_in_one_split(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "text.txt"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    try:
        corpus = open_corpus(path)
    except TerselmError as error:
        assert "too few lines" in str(error)
        return
    found = [line for split in corpus.splits for line in corpus.lines(split)]
    assert found == [line.removesuffix("\r") for line in lines]


def test_line_ends_of_windows_and_a_byte_order_mark(make_corpus):
    corpus = make_corpus("\ufeffa b\r\nc\u2028d\x0be\r\n\r\nlast")
    assert list(corpus.lines("train")) == ["a b", "c\u2028d\x0be", "", "last"]
    assert corpus.characters("train") == 4 + 6 + 1 + 5


def test_a_split_that_does_not_exist(make_corpus):
    with pytest.raises(UsageError, match="did you mean 'valid'"):
        make_corpus("a\n").lines("vald")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a\nb\0c\n" * 20, "zero byte in line 2, byte 3"),
        ("a\nb\n".encode("utf-16"), "not text"),
        (b"one line without an end", "too few lines"),
        (b"same same\n" * 3, "too few lines"),
    ],
)
def test_files_that_cannot_be_opened(text_file, content, message):
    path = text_file(content)
    with pytest.raises(TerselmError, match=message) as caught:
        open_corpus(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\ncaf\xe9\n", "not UTF-8 in line 2, byte 8"),
        (b"\xef\xbb\xbfcaf\xe9\n", "not UTF-8 in line 1, byte 6"),
        (b"fine\n" * 20_000 + b"bad\0\n", "zero byte in line 20001, byte 100003"),
    ],
)
def test_faults_further_on_are_found_while_reading(make_corpus, content, message):
    corpus = make_corpus("a\n")
    path = corpus.ranges["train"].path
    path.write_bytes(content)
    with pytest.raises(TerselmError, match=message):
        list(open_corpus(path.parent).lines("train"))


def test_a_fault_in_a_later_split_is_told_with_its_place_in_the_file(text_file):
    path = text_file(b"0123456\n" * 99 + b"caf\xe9...\n")
    corpus = open_corpus(path)
    assert len(list(corpus.lines("train"))) == 80
    with pytest.raises(TerselmError, match="line 100, byte 795"):
        list(corpus.lines("test"))


def test_a_file_that_shrinks(make_corpus):
    corpus = make_corpus("a\nb\n")
    corpus.ranges["train"].path.write_text("a\n")
    with pytest.raises(TerselmError, match="became shorter"):
        list(corpus.lines("train"))


def test_what_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"none.*known: ptb, python-docs, tinyshakespeare"):
        open_corpus(tmp_path / "none")
    with pytest.raises(UsageError, match="did you mean 'tinyshakespeare'"):
        open_corpus("tinyshakespear")
    with pytest.raises(UsageError, match="no corpus named"):
        open_corpus("")
    with pytest.raises(TerselmError, match="no text file"):
        open_corpus(tmp_path)


def test_what_cannot_be_read(text_file, monkeypatch):
    path = text_file(b"a\n" * 100)
    corpus = open_corpus(path)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    # Root may read anything, so the refusal is the system call's.
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(TerselmError, match=f"cannot read {re.escape(str(path))}: Permission"):
        open_corpus(path)
    with pytest.raises(TerselmError, match="Permission denied"):
        list(corpus.lines("train"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TerselmError, match="not a regular file"):
        open_corpus(tmp_path / "pipe")


def test_names_are_looked_up_in_both_places(tmp_path, monkeypatch):
    data, cache = tmp_path / "data", tmp_path / "cache"
    monkeypatch.setenv("TERSELM_CACHE", str(cache))
    monkeypatch.setenv("TERSELM_DATA", str(data))
    with pytest.raises(TerselmError, match="terselm data get ptb") as caught:
        open_corpus("ptb")
    assert str(data / "ptb") in str(caught.value)
    for place, word in ((cache / "data" / "ptb", "cached"), (data / "ptb", "named")):
        place.mkdir(parents=True)
        for split in ("train", "valid", "test"):
            (place / f"ptb.{split}.txt").write_text(f"{word}\n")
        assert list(open_corpus("ptb").lines("test")) == [word]
    assert open_corpus("ptb").name == "ptb"


def test_the_folder_of_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("TERSELM_DATA", raising=False)
    monkeypatch.delenv("TERSELM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    for base, folder in ((tmp_path / "x", "x/terselm"), ("relative", ".cache/terselm")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(base))
        with pytest.raises(TerselmError) as caught:
            open_corpus("tinyshakespeare")
        assert str(tmp_path / folder / "data" / "tinyshakespeare") in str(caught.value)


def test_the_penn_treebank(ptb_folder):
    corpus = open_corpus(ptb_folder)
    tokens = {
        split: sum(len(line.split()) + 1 for line in corpus.lines(split)) for split in corpus.splits
    }
    assert tokens == {"train": 929_589, "valid": 73_760, "test": 82_430}
