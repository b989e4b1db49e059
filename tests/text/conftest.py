"""Corpora small enough to count by hand. `ptb_folder` is that of tests/conftest.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from terselm.text.corpus import Corpus, open_corpus


@pytest.fixture
def make_corpus(tmp_path) -> Callable[..., Corpus]:
    def make(train: str, valid: str = "a\n", test: str = "a\n") -> Corpus:
        folder = tmp_path / "corpus"
        folder.mkdir(exist_ok=True)
        for split, text in (("train", train), ("valid", valid), ("test", test)):
            (folder / f"{split}.txt").write_bytes(text.encode())
        return open_corpus(folder)

    return make


@pytest.fixture
def text_file(tmp_path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "text.txt"
        path.write_bytes(content)
        return path

    return write
