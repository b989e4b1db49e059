"""Times of another device, from what the real tlm-bench prints."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from terselm.errors import UsageError
from terselm.evaluate.cost import inspect
from terselm.models.checkpoint import load, save
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.pipeline.device import DeviceProfile, read_profile
from terselm.pipeline.measurement import Measurement
from terselm.pipeline.results import parts_of
from terselm.runtime.library import library_path
from terselm.runtime.model import Model
from terselm.text.build import vocabulary_from_words
from tests.pipeline.conftest import Trained
from tests.tiny import WORDS


@pytest.fixture(scope="module")
def printed(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = Path(library_path()).parent / "tlm-bench"
    if not program.exists():
        pytest.skip("NEEDS make native: there is no tlm-bench beside the library")
    done = subprocess.run(
        [str(program), str(trained.model), "--steps", "50", "--json"],
        capture_output=True,
        check=True,
    )
    path = tmp_path_factory.mktemp("device") / "profile.json"
    path.write_bytes(done.stdout)
    return path


def test_the_bytes_a_token_reads_are_those_that_python_counts(trained: Trained):
    counted = inspect(load(trained.model))
    row = next(part.bytes_read for part in counted.weights if part.name == "embedding")
    assert Model(trained.model).describe().read_bytes == counted.bytes_read - row


def test_the_measured_model_takes_the_measured_time(trained: Trained, printed: Path):
    profile = read_profile(printed)
    values = json.loads(printed.read_text())
    expected = values["step_and_probabilities_us"]["median"]
    read = values["model"]["bytes_read"]
    assert profile.microseconds + profile.microseconds_per_byte * read == pytest.approx(expected)


def test_several_models_give_a_line(printed: Path, tmp_path: Path):
    values = json.loads(printed.read_text())
    several = []
    for read in (100_000, 400_000, 900_000):
        one = json.loads(json.dumps(values))
        one["model"]["bytes_read"] = read
        one["step_and_probabilities_us"]["median"] = 7.0 + read / 20_000
        several.append(one)
    path = tmp_path / "several.json"
    path.write_text(json.dumps(several))
    profile = read_profile(path)
    assert profile.microseconds == pytest.approx(7.0)
    assert profile.microseconds_per_byte == pytest.approx(1 / 20_000)
    assert profile.points == 3


def test_a_tied_embedding_is_read_for_the_output_layer(tmp_path: Path):
    config = ModelConfig(cell="gru", hidden=(24,), embedding=24, tied=True)
    model = LanguageModel(config, vocabulary_from_words(WORDS))
    of_cells = 4 * sum(each.numel() for each in model.cells.parameters())
    of_output = 4 * (len(WORDS) * 24 + len(WORDS))
    profile = DeviceProfile("a device", "portable", 0.0, 1.0, 1)
    here = Measurement(1, 2.0, None, 1, True, 3.0, 3.0, 1)
    there = profile.applied_to(here, model)
    assert there.step_microseconds == pytest.approx(of_cells)
    assert there.microseconds == pytest.approx(of_cells + of_output)
    save(model, tmp_path / "tied.safetensors")
    times = {
        part["name"]: part["microseconds"]
        for part in parts_of(tmp_path / "tied.safetensors", there)["parts"]
    }
    assert times["embedding"] == pytest.approx(4 * len(WORDS) * 24)
    assert times["output.bias"] == pytest.approx(4 * len(WORDS))


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1]", '{"device_profile": 2}', "nonsense"])
def test_what_is_no_profile_is_refused(text: str, tmp_path: Path):
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="tlm-bench"):
        read_profile(path)


@pytest.mark.parametrize(
    "strange", [{"machine": None}, {"machine": "a name"}, {"machine": {}}, {"kernels": None}, {}]
)
def test_a_profile_without_its_machine_is_refused(strange: dict[str, object], tmp_path: Path):
    values = {
        "device_profile": 1,
        "machine": {"system": "Linux", "architecture": "armv7l"},
        "kernels": "neon",
        "model": {"bytes_read": 1000},
        "step_and_probabilities_us": {"median": 10.0},
        **strange,
    }
    values = {name: value for name, value in values.items() if value is not None}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(values))
    if strange:
        with pytest.raises(UsageError, match="not what tlm-bench prints; write it with"):
            read_profile(path)
    else:
        assert read_profile(path).machine == "Linux armv7l"


def test_no_file(tmp_path: Path):
    with pytest.raises(UsageError, match="No such file"):
        read_profile(tmp_path / "nothing.json")
