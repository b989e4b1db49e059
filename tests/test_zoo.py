"""The zoo: what is listed, found and copied, and the real one if it is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

from terselm import zoo
from terselm.errors import TerselmError, UsageError
from terselm.evaluate.native import evaluate_file
from terselm.experiments.experiment import key_of
from terselm.experiments.suite import find_suite, load_suite, suite_roots
from terselm.models.checkpoint import load, save
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.pipeline.fingerprint import digest_of
from terselm.runtime.model import Model
from terselm.text.characters import CharacterVocabulary
from terselm.text.corpus import open_corpus
from tests.runtime.reference import reference_log_probabilities
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


def test_no_text_of_others_is_replaced_by_the_card(root: Path, tmp_path: Path):
    entry, notes = zoo.find("large", root), tmp_path / "notes.md"
    notes.write_text("mine")
    for name, message in (("notes.safetensors", "would replace"), ("m.md", "has that name")):
        with pytest.raises(UsageError, match=message):
            zoo.copy_model(entry, tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.md", "zoo"}
    assert notes.read_text() == "mine"
    # The same again is no other text.
    for _ in range(2):
        zoo.copy_model(entry, tmp_path / "mine.safetensors")


def test_a_damaged_result_is_named(root: Path):
    (root / "small" / "result.json").write_text("{")
    with pytest.raises(TerselmError, match=r"small/result\.json"):
        zoo.entries(root)


def test_paths_stay_paths():
    assert zoo.model_path("some/model.safetensors") == Path("some/model.safetensors")


def test_the_real_zoo_is_what_its_results_say():
    suites = [
        load_suite(find_suite(path.name)) for path in suite_roots()[0].iterdir() if path.is_dir()
    ]
    found = zoo.entries()
    assert found and sum(entry.bytes for entry in found) < 20_000_000
    for entry in found:
        result = entry.result
        assert entry.bytes == result["bytes"]
        assert result.get("model", digest_of(entry.model)) == digest_of(entry.model)
        assert ModelCard((entry.folder / zoo.CARD).read_text()).data.model_name == entry.name
        (suite,) = (suite for suite in suites if result["name"] in suite)
        assert result["key"] == key_of(result["name"], result["seed"], suite)
        predictions = Model(entry.model).predict("", 5)
        assert len(predictions) == 5 and 0 < sum(share for _, share in predictions) <= 1


@pytest.mark.parametrize("entry", zoo.entries(), ids=lambda entry: entry.name)
def test_the_real_models_say_what_torch_says(entry: zoo.Entry):
    model = load(entry.model)
    first, words = model.vocabulary.start_id, len(model.vocabulary)
    tokens = [first, *np.random.default_rng(0).integers(words, size=40).tolist()]
    expected = reference_log_probabilities(model, tokens).numpy()
    native = Model(entry.model)
    state = native.state()
    state.clear()
    far = []
    for token, row in zip(tokens, expected, strict=True):
        native.step(state, token)
        far.append(np.abs(native.log_probabilities(state) - row).max())
    # Where an input lies between two numbers of 8 bits, the two may round to either.
    assert np.median(far) < 1e-4 and max(far) < 0.1


def test_a_real_model_has_the_perplexity_that_its_result_says(ptb_folder: Path):
    entry = zoo.usual()
    found = evaluate_file(entry.model, open_corpus(ptb_folder), "valid").perplexity
    assert found == pytest.approx(entry.result["valid"]["perplexity"], rel=1e-4)


def test_the_smallest_of_words_is_taken_where_none_is_named(root: Path):
    assert zoo.usual(root).name == "small"
    vocabulary = CharacterVocabulary(["\n", *"abc "])
    characters = LanguageModel(ModelConfig(cell="gru", hidden=(4,), embedding=4), vocabulary)
    save(characters, root / "small" / "model.safetensors")
    assert [entry.tokens for entry in zoo.entries(root)] == ["characters", "words"]
    assert zoo.usual(root).name == "large"
    save(characters, root / "large" / "model.safetensors")
    assert zoo.usual(root).name == "large"  # as small as the other, and first by name


def test_the_real_zoo_has_a_usual_one():
    chosen = zoo.usual()
    assert zoo.model_path("zoo:") == chosen.model
    assert Model(chosen.model).describe().vocabulary_kind == chosen.tokens == "words"
