"""A small corpus, and suites of experiments that take a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

TRAIN: dict[str, Any] = {
    "hidden": 8,
    "layers": 1,
    "learning_rate": 5.0,
    "epochs": 2,
    "batch": 4,
    "window": 10,
    "precision": "float32",
}
SENTENCES = ["one two three four", "two five one", "three three six seven", "two four one nine"]

WriteSuite = Callable[[dict[str, dict[str, Any]]], Path]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split, repeats in (("train", 60), ("valid", 8), ("test", 9)):
        (folder / f"{split}.txt").write_text("\n".join(SENTENCES * repeats) + "\n")
    return folder


@pytest.fixture
def write_suite(tmp_path: Path) -> WriteSuite:
    def write(experiments: dict[str, dict[str, Any]]) -> Path:
        folder = tmp_path / "suite"
        folder.mkdir(exist_ok=True)
        for name, values in experiments.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump({"title": name, **values}))
        return folder

    return write
