"""What would be ignored, or would destroy something, is refused in one line."""

from __future__ import annotations

import json

import pytest
import torch

from terselm.linear.dense import Dense
from terselm.models.checkpoint import load, save
from tests.tiny import random_quantized


@pytest.mark.parametrize("name", ["train.txt", "valid.txt"])
def test_a_text_is_not_written_over(terselm, model_file, corpus, name):
    out = corpus / name
    before = out.read_bytes()
    text = ("--data", corpus, "--out", out)
    for arguments in (
        ("merge", model_file, model_file, "--weights", "0.5,0.5"),
        ("compress", model_file, "--recipe", "lossless-ish"),
        ("train", "--hidden", "8"),
    ):
        result = terselm(*arguments, *text)
        assert result.code == 2 and "is the text itself; give another name" in result.stderr
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("start: other\n", "start is for `terselm reproduce`"),
        ("teacher: other\nteacher_seed: 0\n", "teacher is for `terselm reproduce`"),
        ("epochs: 77\n", "unknown field 'epochs' beside train"),
    ],
)
def test_an_experiment_that_is_more_than_its_training(terselm, corpus, tmp_path, more, words):
    config = tmp_path / "experiment.yaml"
    config.write_text(f"title: a title\n{more}train: {{hidden: 8, epochs: 1}}\n")
    out = tmp_path / "model.safetensors"
    result = terselm("train", "--data", corpus, "--config", config, "--out", out)
    assert result.code == 2 and words in result.stderr and result.stderr.count("\n") == 1
    assert not out.exists()


def test_options_that_need_text(terselm, model_file, tmp_path):
    compress = ("compress", model_file, "--recipe", "lossless-ish", "--out", tmp_path / "small")
    result = terselm(*compress, "--calibration-tokens", 7)
    assert result.code == 2 and "--calibration-tokens needs --data" in result.stderr
    result = terselm(*compress, "--split", "nonsense")
    assert result.code == 2 and "--split is 'nonsense'" in result.stderr


def test_a_seed_that_no_generator_takes(terselm, tmp_path):
    result = terselm("quickstart", "--seed", 2**32, "--out", tmp_path / "quick")
    assert result.code == 2 and "--seed" in result.stderr


def test_no_memory_is_one_line(terselm, corpus, tmp_path, monkeypatch):
    def refuse(*_: object) -> Dense:
        torch.empty(2**60)
        raise AssertionError

    monkeypatch.setattr("terselm.linear.dense.Dense.initialize", refuse)
    out = tmp_path / "model.safetensors"
    result = terselm("train", "--data", corpus, "--hidden", 8, "--out", out)
    assert result.code == 1 and result.stderr.count("\n") == 1
    assert "out of memory" in result.stderr


def test_results_without_a_part(terselm, tmp_path):
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"format": 1}))
    result = terselm("report", results, "--out", tmp_path / "page.html")
    assert result.code == 2 and "not the results of a search" in result.stderr


def test_a_search_begins_with_a_dense_model(terselm, model_file, corpus, tmp_path):
    out = tmp_path / "search"
    result = terselm("search", tmp_path / "missing", "--data", corpus, "--out", out)
    assert result.code == 2 and not out.exists()
    model = load(model_file)
    model.replace_weight(
        "embedding", random_quantized(*model.weights()["embedding"].shape, 8, None)
    )
    save(model, tmp_path / "partly.safetensors")
    result = terselm("search", tmp_path / "partly.safetensors", "--data", corpus, "--out", out)
    assert result.code == 2
    assert "embedding of the model is stored quantized, not dense" in result.stderr


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_a_prefix_in_capital_letters(terselm, model_file, engine):
    small = terselm("predict", model_file, "w01", "--prefix", "w1", "--engine", engine, "--json")
    large = terselm("predict", model_file, "w01", "--prefix", "W1", "--engine", engine, "--json")
    assert large.json["predictions"] == small.json["predictions"]
