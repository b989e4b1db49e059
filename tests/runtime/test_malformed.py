"""Python and C refuse the same files: every good and malformed one of native/tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from terselm.errors import TerselmError
from terselm.models.checkpoint import load
from terselm.runtime import Model

TESTS = Path(__file__).resolve().parents[2] / "native" / "tests"

JSON_AS_PYTHON_READS_IT = "Python's JSON takes the last of two fields, and NaN"
BOUND = "the C library promises to open and step in bounded time and memory; no real file is near"
ONLY_C_REFUSES = {
    "bad-document-nan": JSON_AS_PYTHON_READS_IT,
    "bad-format-twice": JSON_AS_PYTHON_READS_IT,
    "bad-kind-twice": JSON_AS_PYTHON_READS_IT,
    "bad-weight-twice": JSON_AS_PYTHON_READS_IT,
    "bad-misaligned": "only what reads tensors in place needs them at multiples of 64",
    "bad-work-counted": BOUND,
    "bad-work-descriptions": BOUND,
    "bad-work-merges": BOUND,
    "bad-work-nested-trains": BOUND,
    "bad-work-train": BOUND,
    "bad-work-wide-core": BOUND,
}


def is_refused(path: Path, *, by_python: bool) -> bool:
    """Return whether a loader refuses the file; any other error is a failure of the test."""
    try:
        if by_python:
            load(path)
        else:
            Model(path)
    except TerselmError:
        return True
    return False


@pytest.fixture(scope="session")
def malformed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("malformed")
    subprocess.run([sys.executable, str(TESTS / "make_malformed.py"), str(folder)], check=True)
    return folder


GROUPS = [
    *("good-", "bad-words", "bad-order", "bad-merges", "bad-vocabulary", "bad-work"),
    *("bad-header", "bad-cut", "bad-duplicate", "bad-document", "bad-offset", "bad-shape"),
    *("bad-sparse", "bad-quantized", "bad-block", "bad-tensor", "bad-product", "bad-codebook"),
    "bad-",
]
"""Files by the beginning of their name, each in the first group that fits."""


@pytest.mark.parametrize("group", GROUPS)
def test_python_and_c_refuse_the_same(group: str, malformed: Path) -> None:
    lines = (malformed / "manifest.txt").read_text().splitlines()
    expected = {name: status != "0" for name, status, _ in (line.split("\t") for line in lines)}
    mine = [name for name in expected if next(g for g in GROUPS if name.startswith(g)) == group]
    assert mine
    for name in mine:
        assert is_refused(malformed / name, by_python=False) == expected[name], name
        python = expected[name] and name not in ONLY_C_REFUSES
        assert is_refused(malformed / name, by_python=True) == python, name


def test_exceptions_are_files_of_the_manifest(malformed: Path) -> None:
    assert all((malformed / name).exists() for name in ONLY_C_REFUSES)


@pytest.mark.parametrize("path", sorted((TESTS / "corpus").glob("*")), ids=lambda path: path.name)
def test_corpus_of_the_fuzzer(path: Path) -> None:
    assert is_refused(path, by_python=True) == is_refused(path, by_python=False)
