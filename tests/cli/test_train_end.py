"""What `terselm train` leaves where there is no model worth keeping, and JSON without a number."""

from __future__ import annotations

import json

import pytest

from terselm.cli.output import Output
from terselm.train.loop import fit

SMALL = ("--hidden", 8, "--layers", 1, "--epochs", 1, "--batch", 4, "--window", 8)


@pytest.fixture
def good(tmp_path):
    """A file of an earlier training, in the way."""
    path = tmp_path / "good.safetensors"
    path.write_bytes(b"an earlier model")
    return path


def test_a_model_that_diverged_is_not_written(terselm, corpus, good):
    done = terselm(
        "train", "--data", corpus, *SMALL, "--clip", 1e9, "--learning-rate", 1e6, "--out", good
    )
    assert done.code == 1 and "lower" in done.stderr
    assert good.read_bytes() == b"an earlier model"


def test_an_interrupt_before_the_first_epoch_writes_nothing(terselm, corpus, good, monkeypatch):
    def stopped_at_once(*arguments, **options):
        result = fit(*arguments, **options)
        object.__setattr__(result, "history", [])
        object.__setattr__(result, "stopped", "interrupted")
        return result

    monkeypatch.setattr("terselm.experiments.training.fit", stopped_at_once)
    done = terselm("train", "--data", corpus, *SMALL, "--out", good)
    assert done.code == 130 and "nothing to save" in done.stderr
    assert good.read_bytes() == b"an earlier model"


def test_json_without_a_number_is_null(capsys):
    values = {"a": float("inf"), "b": [1.5, float("nan")], "c": {"d": (2, "e")}}
    Output(True).result(values)
    assert json.loads(capsys.readouterr().out) == {
        "a": None,
        "b": [1.5, None],
        "c": {"d": [2, "e"]},
    }


def test_options_of_the_other_engine_are_refused(terselm, model_file, corpus):
    for option in (("--threads", 2), ("--kernels", "portable")):
        done = terselm("evaluate", model_file, "--data", corpus, "--engine", "torch", *option)
        assert done.code == 2 and "--engine native" in done.stderr
