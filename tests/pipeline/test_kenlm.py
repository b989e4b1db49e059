"""The comparison with KenLM: by its own programs where they are, by their likes elsewhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from terselm.pipeline.kenlm import PROGRAMS, compare_with_kenlm
from terselm.text.corpus import Corpus, open_corpus

# What the programs leave and print. lmplz says nothing on stdout; query speaks of all tokens.
LIKES = {
    "lmplz": """
while [ $# -gt 0 ]; do
    case $1 in --text) text=$2 ;; --arpa) arpa=$2 ;; -o) order=$2 ;; esac
    shift
done
grep -q '<unk>' "$text" && exit 1
echo "order $order" > "$arpa"
echo "=== 5/5 Writing ARPA model ===" >&2
""",
    "build_binary": 'for last; do :; done; head -c 1234 /dev/zero > "$last"; echo SUCCESS >&2',
    "query": 'cat > /dev/null; printf "Perplexity including OOVs:\\t158.25\\nTokens:\\t7\\n"',
}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    lines = ["the <unk> sat on the mat", "a dog ran to the <unk> mat", "the end of it"] * 40
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return open_corpus(tmp_path)


def use_programs(folder: Path, programs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    for name, script in programs.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_bytes_and_perplexity_of_each_order(tmp_path: Path, corpus: Corpus, monkeypatch):
    use_programs(tmp_path / "bin", LIKES, monkeypatch)
    found = compare_with_kenlm(corpus, tmp_path, lambda line: None)
    assert found is not None
    assert [each["order"] for each in found] == [2, 3, 5]
    assert all(each["bytes"] == 1234 and each["perplexity"] == 158.25 for each in found)


def test_nothing_without_the_programs(tmp_path: Path, corpus: Corpus, monkeypatch):
    use_programs(tmp_path / "bin", {"lmplz": LIKES["lmplz"]}, monkeypatch)
    assert compare_with_kenlm(corpus, tmp_path, lambda line: None) is None


def test_orders_that_fail_are_left_out(tmp_path: Path, corpus: Corpus, monkeypatch):
    use_programs(tmp_path / "bin", {**LIKES, "build_binary": "exit 3"}, monkeypatch)
    assert compare_with_kenlm(corpus, tmp_path, lambda line: None) == []


def test_the_real_programs(tmp_path: Path, corpus: Corpus):
    if any(shutil.which(program) is None for program in PROGRAMS):
        pytest.skip("KenLM's programs are not on the path")
    found = compare_with_kenlm(corpus, tmp_path, lambda line: None)
    assert found and found[0]["order"] == 2
    assert all(each["bytes"] > 0 and 1 < each["perplexity"] < 100 for each in found)
