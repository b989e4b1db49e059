"""Running the command line in this process, and small things to run it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from terselm.cli.main import main
from terselm.cli.output import Output
from terselm.cli.recovery import recovery
from terselm.compress.base import Recovery
from terselm.models.checkpoint import save
from tests.tiny import make_model

SENTENCES = ["w01 w02 w03 w04", "w02 w05 w01", "w03 w03 w10 w11 w12", "w30 w02 w04 w01 w09 w08"]


@dataclass(frozen=True)
class Result:
    """What a run of the command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


@pytest.fixture
def terselm(capsys) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Result(int(caught.value.code or 0), out, err)

    return run


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A folder with three splits over the words of the tiny models."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split, repeats in (("train", 120), ("valid", 20), ("test", 25)):
        (folder / f"{split}.txt").write_text("\n".join(SENTENCES * repeats) + "\n")
    return folder


@pytest.fixture
def model_file(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    save(make_model("lstm"), path)
    return path


@pytest.fixture
def recover(corpus) -> Recovery:
    """The training that the command line hands to methods."""
    return recovery(str(corpus), 0, Output(as_json=False))
