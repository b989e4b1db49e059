"""`terselm merge`: what it writes, prints and refuses."""

from __future__ import annotations

import pytest
import torch

from terselm.models.checkpoint import load, save
from terselm.models.merging import merge
from tests.tiny import logits_of, make_model


@pytest.fixture
def pair(tmp_path):
    """Two model files of different sizes."""
    paths = []
    for hidden in (20, 12):
        paths.append(tmp_path / f"h{hidden}.safetensors")
        save(make_model("lstm", hidden=hidden, seed=hidden), paths[-1])
    return paths


def test_weights_are_taken_as_given(terselm, pair, tmp_path):
    out = tmp_path / "both.safetensors"
    done = terselm("merge", *pair, "--weights", "0.7,0.4", "--out", out, "--json")
    assert done.code == 0, done.stderr
    assert [row["weight"] for row in done.json["models"]] == [0.7, 0.4]
    assert done.json["bytes"] == out.stat().st_size
    expected = merge([load(path) for path in pair], [0.7, 0.4])
    assert torch.equal(logits_of(load(out)), logits_of(expected))
    assert terselm("verify", out).code == 0


def test_text_fits_the_weights(terselm, pair, corpus, tmp_path):
    out = tmp_path / "both.safetensors"
    done = terselm("merge", *pair, "--data", corpus, "--out", out, "--json").json
    assert done["perplexity"] < min(row["perplexity"] for row in done["models"])
    arguments = ("evaluate", out, "--data", corpus, "--engine", "torch", "--json")
    assert terselm(*arguments).json["perplexity"] == pytest.approx(done["perplexity"])
    shown = terselm("merge", *pair, "--data", corpus, "--out", out).stdout
    assert f"{done['perplexity']:.2f}" in shown and f"{pair[1].stat().st_size:,}" in shown


def test_without_text_all_count_the_same(terselm, pair, tmp_path):
    out = tmp_path / "both.safetensors"
    done = terselm("merge", *pair, "--out", out, "--json").json
    assert [row["weight"] for row in done["models"]] == [0.5, 0.5]
    assert done["perplexity"] is None


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("a,b", "give numbers with commas"),
        ("1", "2 models and 1 weights"),
        ("1,0", "other than 0"),
        ("1,nan", "finite"),
    ],
)
def test_bad_weights_write_nothing(terselm, pair, tmp_path, weights, words):
    out = tmp_path / "both.safetensors"
    done = terselm("merge", *pair, "--weights", weights, "--out", out)
    assert (done.code, done.stdout) == (2, "")
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert not out.exists()


def test_what_does_not_go_together_is_refused(terselm, pair, model_file, tmp_path):
    other, out = tmp_path / "gru.safetensors", tmp_path / "both.safetensors"
    save(make_model("gru"), other)
    done = terselm("merge", model_file, other, "--out", out)
    assert done.code == 2 and "models differ in cells" in done.stderr
    assert terselm("merge", model_file, "--out", out).code == 2
    done = terselm("merge", *pair, "--out", pair[1])
    assert done.code == 2 and "is one of the models itself" in done.stderr
    assert not out.exists() and load(pair[1]).config.hidden == (12, 12)
