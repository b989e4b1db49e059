"""Training with a sampled loss and with other output layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terselm.errors import UsageError
from terselm.evaluate.perplexity import perplexity as measured
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.build import vocabulary_from_words
from terselm.train.config import make_training_config
from terselm.train.loop import fit
from terselm.train.objective import Objective, make_noise
from tests.tiny import make_model, make_output_variant
from tests.train.test_resume import Killed, killed_after
from tests.train.tiny_run import perplexity, same_weights, text, train

SAMPLED = {"optimizer": "adam", "learning_rate": 0.01, "samples": 12}


@pytest.mark.parametrize("loss", ["sampled", "nce"])
def test_it_learns_and_is_validated_by_the_full_softmax(loss):
    model = make_model("lstm")
    before = perplexity(model)
    result = train(model, {**SAMPLED, "loss": loss, "epochs": 4})
    assert result.valid_perplexity == pytest.approx(perplexity(result.model), rel=1e-6)
    assert result.valid_perplexity < 0.6 * before
    assert result.valid_perplexity < 2 * train(None, {**SAMPLED, "epochs": 4}).valid_perplexity


@pytest.mark.parametrize("loss", ["sampled", "nce"])
def test_a_resumed_run_draws_the_same_words(loss, tmp_path, monkeypatch):
    settings = {**SAMPLED, "loss": loss, "epochs": 2, "dropout": 0.2, "checkpoint_every": 0}
    whole = train(None, settings)
    for number, steps in enumerate((1, 17, 20)):
        with monkeypatch.context() as patch:
            killed_after(steps, patch)
            with pytest.raises(Killed):
                train(None, settings, folder=tmp_path / "run", resume=number > 0)
    resumed = train(None, settings, folder=tmp_path / "run", resume=True)
    assert same_weights(whole.model, resumed.model)
    assert resumed.valid_perplexity == whole.valid_perplexity


@pytest.mark.parametrize("name", ["projected", "adaptive"])
def test_other_output_layers_are_trained_and_resumed(name, tmp_path, monkeypatch):
    settings = {**SAMPLED, "epochs": 2, "checkpoint_every": 0}
    before = perplexity(make_output_variant(name))
    whole = train(make_output_variant(name), settings)
    assert whole.valid_perplexity < 0.7 * before
    with monkeypatch.context() as patch:
        killed_after(20, patch)
        with pytest.raises(Killed):
            train(make_output_variant(name), settings, folder=tmp_path / "run")
    resumed = train(make_output_variant(name), settings, folder=tmp_path / "run", resume=True)
    assert same_weights(whole.model, resumed.model)


def test_a_projected_output_takes_a_sampled_loss():
    before = perplexity(make_output_variant("projected"))
    result = train(make_output_variant("projected"), {**SAMPLED, "loss": "sampled"})
    assert result.valid_perplexity < 0.7 * before


def test_what_does_not_go_together():
    with pytest.raises(UsageError, match="every word, and this one is adaptive; use full"):
        train(make_output_variant("adaptive"), {"loss": "nce"})
    with pytest.raises(UsageError, match="teacher needs them all; use full"):
        train(None, {"loss": "sampled"}, teacher=make_model("gru", seed=7))
    with pytest.raises(UsageError, match="loss"):
        make_training_config({"loss": "hinge"})


def test_all_words_in_the_sample_is_the_full_loss():
    losses = []
    for settings in ({}, {"loss": "sampled", "samples": 1000}):
        config = make_training_config(settings)
        model = make_model("lstm").train()
        objective = Objective(model, config, noise=make_noise(config, text(), 37))
        ids = torch.from_numpy(text(36).astype(np.int64)).view(12, 3)
        loss, nll, _ = objective(ids[:-1], ids[1:], model.initial_state(3))
        losses += [loss.item(), nll.item()]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)


def test_a_hundred_thousand_words():
    """A window scores a few hundred of them, and the model still learns about them all."""
    words = ["<eos>", *(f"w{number:06d}" for number in range(99_999))]
    torch.manual_seed(0)
    config = ModelConfig(hidden=(16,), embedding=16, tied=True)
    model = LanguageModel(config, vocabulary_from_words(words))
    draw = np.random.default_rng(0)
    ids = np.minimum(draw.zipf(1.3, size=2000), 99_999)
    settings = make_training_config(
        {
            **{"optimizer": "adam", "learning_rate": 0.03, "loss": "sampled", "samples": 512},
            **{"epochs": 2, "batch": 10, "window": 10},
        }
    )
    before = measured(model, ids, limit=200)
    result = fit(model, ids, settings, validate=lambda m: measured(m, ids, limit=200), device="cpu")
    assert result.valid_perplexity < 0.6 * before
