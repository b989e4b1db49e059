"""Training a model further: in an experiment, from the command line, and by hand."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch

from terselm.cli.loading import split_of
from terselm.cli.main import main
from terselm.errors import UsageError
from terselm.evaluate.mixture import fit_weights
from terselm.evaluate.perplexity import validation_perplexity
from terselm.experiments.training import Trainer, make_further_settings
from terselm.models.checkpoint import load
from terselm.models.merging import merge
from terselm.text.corpus import open_corpus
from tests.experiments.conftest import TRAIN, WriteSuite
from tests.experiments.test_reproduce import reproduce, results
from tests.tiny import make_model
from tests.train.tiny_run import same_weights

FURTHER = {"learning_rate": 2.0, "epochs": 2, "batch": 4, "window": 10, "precision": "float32"}
HALF = [{"method": "half_bias"}]


def test_an_experiment_may_train_another_ones_model_further(
    tmp_path: Path, corpus: Path, write_suite: WriteSuite
):
    rows = {
        "dense": {"train": TRAIN},
        "more": {"start": "dense", "train": FURTHER},
        "small": {"start": "dense", "train": FURTHER, "compress": HALF},
        "taught": {"start": "dense", "train": FURTHER, "teacher": "dense"},
    }
    done = reproduce(write_suite(rows), tmp_path / "out", corpus)
    assert done.returncode == 0, done.stderr
    models = {name: load(tmp_path / "out" / "models" / f"{name}.safetensors") for name in rows}
    start = models["dense"].clone()
    trainer = Trainer(
        make_further_settings({**FURTHER, "seed": 0}, start), open_corpus(str(corpus)), start=start
    )
    by_hand = trainer.train(tmp_path / "by hand", resume=False, device="cpu")
    assert same_weights(by_hand.model, models["more"])
    assert not same_weights(models["dense"], models["more"])
    assert not same_weights(models["taught"], models["more"])
    for name, op in models["more"].weights().items():
        assert torch.equal(op.dense(), models["small"].weights()[name].dense())
    history = models["more"].provenance["start"]["training"]
    assert history["learning_rate"] == TRAIN["learning_rate"]
    found = {name: each["valid"]["perplexity"] for name, each in results(tmp_path / "out").items()}
    assert found["more"] < found["dense"]


def test_an_experiment_may_merge_models_of_others(
    tmp_path: Path, corpus: Path, write_suite: WriteSuite
):
    both = {"start": ["dense", "dense-seed-1"], "start_seed": 0}
    rows = {
        "dense": {"train": TRAIN, "seeds": [0, 1]},
        "fitted": both,
        "weighted": {**both, "start_weights": [0.25, 0.5], "compress": HALF},
        "member": {"start": "fitted", "start_member": 1},
    }
    done = reproduce(write_suite(rows), tmp_path / "out", corpus)
    assert done.returncode == 0, done.stderr
    models = tmp_path / "out" / "models"
    parts = [load(models / f"{name}.safetensors") for name in ("dense", "dense-seed-1")]
    ids = split_of(str(corpus), "valid", parts[0].vocabulary).ids
    by_hand = {
        "fitted": merge(parts, fit_weights(parts, ids)),
        "weighted": merge(parts, [0.25, 0.5]),
    }
    for name, expected in by_hand.items():
        found = load(models / f"{name}.safetensors")
        for weight, op in found.weights().items():
            assert torch.equal(op.dense(), expected.weights()[weight].dense())
    alone = load(models / "member.safetensors")
    assert alone.config == parts[1].config
    for weight, op in alone.weights().items():
        assert torch.equal(op.dense(), parts[1].weights()[weight].dense())
    valid = {name: each["valid"]["perplexity"] for name, each in results(tmp_path / "out").items()}
    assert valid["fitted"] < min(valid["dense"], valid["dense-seed-1"])


def test_the_command_line_trains_a_model_further(tmp_path: Path, corpus: Path, capsys):
    def train(*arguments: str | Path) -> None:
        with contextlib.suppress(SystemExit):
            main(["train", "--data", str(corpus), *(str(each) for each in arguments)])

    flags = [
        word
        for name, value in FURTHER.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    first, whole = tmp_path / "first.safetensors", tmp_path / "whole.safetensors"
    train("--hidden", "8", "--layers", "1", "--epochs", "1", "--out", first)
    before = first.read_bytes()
    train("--start", first, *flags, "--out", whole)
    start = load(first)
    known = validation_perplexity(start, split_of(str(corpus), "valid", start.vocabulary).ids)
    assert f"valid perplexity {known:.2f}, before" in capsys.readouterr().err
    assert first.read_bytes() == before and not same_weights(load(first), load(whole))

    # Cut after one epoch, and on.
    parts = tmp_path / "parts.safetensors"
    train("--start", first, *flags, "--epochs", "1", "--out", parts)
    train("--start", first, *flags, "--out", parts, "--resume", "--json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["epochs"] == 2
    assert same_weights(load(parts), load(whole))


def test_sizes_and_words_are_the_models_own():
    start = make_model("lstm")
    for setting in ({"hidden": 8}, {"tokens": "words"}, {"cell": "lstm"}):
        with pytest.raises(UsageError, match=f"{next(iter(setting))}: the model to start from"):
            make_further_settings({**FURTHER, **setting}, start)
