"""The zoo: what is listed, found and copied, and the real one if it is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from terselm import zoo
from terselm.errors import TerselmError, UsageError
from terselm.models.checkpoint import save
from tests.tiny import make_model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "zoo"
    for name, cell in (("large", "lstm"), ("small", "rnn_tanh")):
        (folder / name).mkdir(parents=True)
        save(make_model(cell), folder / name / "model.safetensors")
        result = {
            "experiment": {"title": f"A {name} one"},
            "data": "text",
            "test": {"perplexity": 30.0},
            "microseconds_per_token": 3.0,
        }
        (folder / name / "result.json").write_text(json.dumps(result))
    (folder / "large" / "README.md").write_text("the card")
    (folder / "notes.txt").write_text("no model")
    return folder


def test_the_smallest_comes_first(root: Path):
    found = zoo.entries(root)
    assert [entry.name for entry in found] == ["small", "large"]
    assert found[0].bytes == found[0].model.stat().st_size
    assert found[0].as_dict()["title"] == "A small one"


def test_found_by_name(root: Path):
    assert zoo.find("large", root).model == root / "large" / "model.safetensors"
    with pytest.raises(UsageError, match="did you mean 'large'"):
        zoo.find("larg", root)


def test_copied_with_its_card(root: Path, tmp_path: Path):
    entry = zoo.find("large", root)
    written = zoo.copy_model(entry, tmp_path / "mine.safetensors")
    assert written == [tmp_path / "mine.safetensors", tmp_path / "mine.md"]
    assert written[0].read_bytes() == entry.model.read_bytes()
    assert written[1].read_text() == "the card"


def test_a_damaged_result_is_named(root: Path):
    (root / "small" / "result.json").write_text("{")
    with pytest.raises(TerselmError, match=r"small/result\.json"):
        zoo.entries(root)


def test_paths_stay_paths():
    assert zoo.model_path("some/model.safetensors") == Path("some/model.safetensors")
