"""The corpus of docstrings, from a made-up library and from this Python's own."""

from __future__ import annotations

import pytest

from terselm.errors import TerselmError
from terselm.text.corpus import open_corpus
from terselm.text.python_docs import python_docs_file, sentences_of

MODULE = '''
"""Open a file and read it.

The text of a paragraph goes on
over two lines. A second sentence follows!

    >>> open("x").read()
    'shown by the example'
    ... continued line of it

====  ======
name  value
====  ======

- an item of a list
- another item of it
"""

class Thing:
    """A thing that can be used."""

    if True:
        async def method(self):
            """Open a file and read it."""
            def inner():
                "An inner function has words too."
'''


def test_readable_sentences_are_taken(tmp_path):
    (tmp_path / "module.py").write_text(MODULE)
    assert list(sentences_of(tmp_path)) == [
        "Open a file and read it.",
        "The text of a paragraph goes on over two lines.",
        "A second sentence follows!",
        "- an item of a list",
        "- another item of it",
        "A thing that can be used.",
        "An inner function has words too.",
    ]


def test_tests_and_broken_files_are_left_out(tmp_path):
    for name in ("test", "idlelib", "lib2to3", "site-packages", "json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text(f'"""This stands in {name}."""')
    (tmp_path / "broken.py").write_text('"""A fine docstring here."""\ndef (')
    (tmp_path / "binary.py").write_bytes(b"\0\xff")
    assert list(sentences_of(tmp_path)) == ["This stands in json."]


def test_the_order_is_always_the_same(tmp_path):
    for number in range(20):
        (tmp_path / f"m{number:02d}.py").write_text(f'"""The docstring of m{number:02d}."""')
    first = list(sentences_of(tmp_path))
    assert first == list(sentences_of(tmp_path))
    assert first != sorted(first)


@pytest.fixture(scope="module")
def corpus():
    return open_corpus("python-docs")


def test_there_is_enough_to_train_on(corpus):
    words = {
        split: sum(len(line.split()) for line in corpus.lines(split)) for split in corpus.splits
    }
    assert sum(words.values()) > 100_000
    assert words["valid"] > 10_000
    assert words["test"] > 10_000


def test_it_is_english_and_says_everything_once(corpus):
    lines = [line for split in corpus.splits for line in corpus.lines(split)]
    assert len(set(lines)) == len(lines)
    assert not any(">>>" in line.split() for line in lines)
    text = " ".join(lines)
    assert text.split().count("the") > len(text.split()) / 50


def test_it_is_made_once(corpus):
    path = corpus.ranges["train"].path
    before = path.stat().st_mtime_ns
    assert python_docs_file() == path
    assert path.stat().st_mtime_ns == before
    assert not list(path.parent.glob(".*"))


def test_a_python_without_sources(tmp_path, monkeypatch):
    monkeypatch.setenv("TERSELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(TerselmError, match="no Python source files"):
        python_docs_file()
    assert not list(tmp_path.rglob("*.txt"))
