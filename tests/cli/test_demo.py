"""`terselm demo`: completes begun words, suggests next ones, continues characters."""

from __future__ import annotations

import io

import pytest

from terselm.cli.demo import suggestions
from terselm.models.checkpoint import save
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.runtime.model import Model
from terselm.text.characters import CharacterVocabulary
from terselm.text.word import WordVocabulary
from terselm.zoo import usual


def test_a_begun_word_is_completed(model_file):
    model = Model(model_file)
    words = suggestions(model, "w01 w1").split("   ")
    assert len(words) == 3 and all(word.startswith("w1") for word in words)
    expected = model.predict("w01 ", 1, prefix="w1")[0][0]
    assert words[0].startswith(expected)


def test_after_a_space_the_next_word_is_suggested(model_file):
    model = Model(model_file)
    first = suggestions(model, "w01 w12 ").split()[0]
    assert first == model.predict("w01 w12", 1)[0][0]


def test_no_word_begins_so(model_file):
    assert suggestions(Model(model_file), "w01 zz") == "no word begins with 'zz'"


def test_text_that_is_split_at_punctuation(tmp_path):
    words = ["<eos>", "<unk>", "(", ".", "the", "name", "names", "list"]
    vocabulary = WordVocabulary(words, lowercase=True, splitting="punctuation")
    path = tmp_path / "open.safetensors"
    save(LanguageModel(ModelConfig(cell="gru", hidden=(8,), embedding=8), vocabulary), path)
    model = Model(path)
    assert suggestions(model, "The").startswith("the ")
    assert {word.split()[0] for word in suggestions(model, "the (Na").split("   ")} == {
        "name",
        "names",
    }
    first = model.predict("the list .", 1)[0][0]
    assert suggestions(model, "the list.").startswith(f"{first} ")


def test_a_begun_word_with_punctuation_in_it(tmp_path):
    vocabulary = WordVocabulary(["<eos>", "the", "U.S.", "U.N."])
    path = tmp_path / "closed.safetensors"
    save(LanguageModel(ModelConfig(cell="gru", hidden=(8,), embedding=8), vocabulary), path)
    assert suggestions(Model(path), "the U.S").startswith("U.S. ")


def test_characters_go_on(tmp_path):
    vocabulary = CharacterVocabulary(["\n", *"abc "])
    model = LanguageModel(ModelConfig(cell="gru", hidden=(8,), embedding=8), vocabulary)
    save(model, tmp_path / "characters.safetensors")
    text = suggestions(Model(tmp_path / "characters.safetensors"), "ab")
    assert text.startswith("ab") and set(text) <= set("abc ")


def test_from_a_pipe(terselm, model_file, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("w01 w1\n\nw02 \n"))
    result = terselm("demo", model_file)
    assert result.code == 0
    lines = result.stdout.splitlines()
    assert "37 words" in lines[0]
    assert len(lines) == 4 and all(" ms)" in line for line in lines[1:])


def test_a_word_model_of_the_zoo_where_none_is_named(terselm, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the company sa\n"))
    result = terselm("demo")
    assert result.stderr == f"no MODEL given: zoo:{usual().name}\n"
    assert " words." in result.stdout.splitlines()[0]
    assert "[MODEL]" in terselm("demo", "--help").stdout


def test_a_missing_model_is_one_line(terselm, tmp_path):
    result = terselm("demo", tmp_path / "none.safetensors")
    assert result.code != 0 and result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["zoo:no-such-model"])
def test_a_missing_zoo_model_is_one_line(terselm, name):
    result = terselm("demo", name)
    assert result.code in (1, 2) and result.stderr.count("\n") == 1
