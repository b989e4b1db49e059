"""Calibration text and what the model does not know of it, from the command line."""

from __future__ import annotations

from collections import Counter

import pytest

from terselm.models.checkpoint import load, save
from terselm.models.language_model import LanguageModel
from terselm.text.build import vocabulary_from_words
from tests.cli.conftest import SENTENCES
from tests.tiny import WORDS, make_model

GPTQ = "- {method: gptq, bits: 4}\n"


@pytest.fixture
def run(terselm, model_file, corpus, tmp_path):
    def compress(recipe: str, *arguments, model=model_file, data=corpus):
        path = tmp_path / "recipe.yaml"
        path.write_text(recipe)
        out = tmp_path / "small.safetensors"
        return terselm(
            "compress", model, "--recipe", path, "--data", data, "--out", out, *arguments
        )

    return compress


@pytest.fixture
def odd_corpus(corpus):
    """The corpus with two words that the model lacks in each four lines of the training text."""
    lines = [*SENTENCES[:3], "w01 zebra <unk> w02 yak"]
    (corpus / "train.txt").write_text("\n".join(lines * 200) + "\n")
    return corpus


def test_unknown_words_are_counted(run, odd_corpus):
    # 4 + 3 + 5 + 5 words and 4 line ends a round; two words are not known and one is <unk>.
    result = run(GPTQ, "--json", data=odd_corpus)
    assert result.code == 0, result.stderr
    assert result.json["calibration"] == {"tokens": 21 * 200, "unknown": 3 * 200}
    (line,) = [line for line in result.stderr.splitlines() if "calibration" in line]
    assert line.startswith("calibration text: 600 of 4,200 tokens are not in the vocabulary")
    assert line.endswith("read as <unk>")


def test_only_the_calibration_text_is_counted(run, odd_corpus, monkeypatch):
    monkeypatch.setattr("terselm.cli.calibration.CALIBRATION_TOKENS", 21 * 40)
    found = run(GPTQ, "--json", data=odd_corpus).json["calibration"]
    assert found == {"tokens": 21 * 40, "unknown": 3 * 40}


def test_nothing_is_said_where_every_word_is_known(run):
    result = run(GPTQ, "--json")
    assert result.json["calibration"] == {"tokens": 120 * 22, "unknown": 0}
    assert "calibration" not in result.stderr


@pytest.mark.parametrize("recipe", ["- {method: quantize}", "- {method: kmeans, bits: 3}"])
def test_a_recipe_that_does_not_look_at_text_says_nothing(run, odd_corpus, recipe):
    result = run(recipe, "--json", data=odd_corpus)
    assert result.json["calibration"] is None
    assert "calibration" not in result.stderr


def test_a_model_without_unknown_refuses_words_it_lacks(run, odd_corpus, tmp_path):
    words = [word for word in WORDS if word != "<unk>"]
    model = LanguageModel(make_model("lstm").config, vocabulary_from_words(words))
    path = tmp_path / "bare.safetensors"
    save(model, path)
    result = run(GPTQ, model=path, data=odd_corpus)
    assert result.code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    for words in ("calibration text", "train.txt, line 4", "'zebra'", "no <unk>", "use text of"):
        assert words in result.stderr
    assert not (tmp_path / "small.safetensors").exists()
    assert run("- {method: quantize}", model=path, data=odd_corpus).code == 0


def test_a_smaller_vocabulary_reads_the_text_anew(run, terselm, corpus, tmp_path):
    result = run("- {method: prune_vocabulary, keep: 8}\n" + GPTQ, "--json")
    assert result.code == 0, result.stderr
    small = tmp_path / "small.safetensors"
    assert len(load(small).vocabulary) == 8
    valid = terselm("evaluate", small, "--data", corpus, "--engine", "torch", "--json").json
    assert valid["unknown"] > 0
    assert result.json["steps"][-1]["perplexity"] == pytest.approx(valid["perplexity"], rel=1e-6)
    (line,) = [line for line in result.stderr.splitlines() if "vocabulary changed" in line]
    assert f"{valid['unknown']:,} of {valid['tokens']:,} tokens of valid" in line
    assert "do not compare" in line
    assert set(result.json["untouched"]) == set()


def test_a_step_that_makes_the_file_larger_says_so(run):
    larger = "- {method: low_rank, weights: cells.*, rank: 1.0}\n"
    assert "step 1 made the file larger" in run(larger).stderr
    assert "larger" not in run("- {method: quantize, bits: 8}\n").stderr


def test_words_are_counted_in_the_whole_training_text(run, odd_corpus, tmp_path):
    recipe = "- {method: prune_vocabulary, keep: 10}\n"
    result = run(recipe, "--calibration-tokens", "300", data=odd_corpus)
    assert result.code == 0, result.stderr
    said = load(tmp_path / "small.safetensors").provenance["vocabulary_pruning"]
    assert said["tokens"] == 21 * 200
    words = Counter(" ".join([*SENTENCES[:3], "w01 w02"]).split())
    # Beside <eos>, four a round, and <unk>, which counts neither way.
    kept = 4 + sum(count for _, count in words.most_common(8))
    assert said["coverage"] == pytest.approx(kept / (4 + words.total()), abs=1e-6)
