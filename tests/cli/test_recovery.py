"""Methods that train, with the training that the command line hands them."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from terselm.cli.loading import split_of
from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.methods.sparse_variational import SparseVariational
from terselm.compress.recipe import Recipe
from terselm.errors import UsageError
from terselm.models.language_model import LanguageModel
from terselm.pipeline.recovery import make_recovery
from tests.tiny import QUICK_RECOVERY, logits_of, make_model, make_output_variant
from tests.train.tiny_run import same_weights

TRAINING = {"batch": 4, "window": 8, "dropout": 0.0, "learning_rate": 0.005}
STEPS = 83
"""Of an epoch of the tiny corpus."""


@pytest.fixture
def run(recover) -> Callable[..., LanguageModel]:
    """Applies steps to a model, with every warning an error."""

    def apply(model: LanguageModel, *items: dict[str, Any]) -> LanguageModel:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return compress(model, Recipe.from_list(list(items)), Context(recover=recover)).model

    return apply


@pytest.fixture
def trained(recover) -> LanguageModel:
    """A model that has learned the corpus, so that pruning costs something."""
    return recover(make_model("lstm"), replace(QUICK_RECOVERY, epochs=4), None)


def hidden_difference(teacher: LanguageModel, student: LanguageModel, corpus: Path) -> float:
    """mean((s - t)²) / mean(t²) of the last layer's outputs on validation text, in float64."""
    ids = split_of(str(corpus), "valid", student.vocabulary).ids.astype(np.int64)
    tokens = torch.from_numpy(ids)[:, None]
    with torch.no_grad():
        s, t = (
            model.hidden(tokens, model.initial_state(1)).output.double()
            for model in (student, teacher)
        )
    return float((s - t).square().mean() / t.square().mean())


@pytest.mark.parametrize("codes", [False, True], ids=["factors", "codes"])
def test_distillation_from_hidden_states(codes: bool, run, trained, corpus):
    first = {"method": "low_rank", "rank": 4, "weights": "cells.*"}
    if codes:
        first = {"method": "quantize", "bits": 2, "weights": "cells.*"}
    step = {"method": "recover", "epochs": 2, "train_codes": codes, **TRAINING}
    before = hidden_difference(trained, run(trained, first), corpus)
    plain = hidden_difference(trained, run(trained, first, step), corpus)
    taught = run(trained, first, {**step, "distill_hidden": 3.0})
    both = run(trained, first, {**step, "distill_hidden": 3.0, "distill": True})
    assert hidden_difference(trained, taught, corpus) < 0.5 * min(before, plain)
    assert hidden_difference(trained, both, corpus) < 0.5 * min(before, plain)


def test_hidden_states_need_the_same_width(run):
    items = [
        {"method": "prune_units", "keep": 12},
        {"method": "recover", "distill_hidden": 1.0, **TRAINING},
    ]
    with pytest.raises(UsageError, match=r"step 2 \(recover\): .* 12 .* 20; .*before the step"):
        run(make_model("lstm"), *items)


def test_no_distillation_from_a_model_with_other_words(recover, trained, corpus):
    recipe = Recipe.from_list(
        [
            {"method": "prune_vocabulary", "keep": 8},
            {"method": "recover", **TRAINING, "distill": True},
        ]
    )
    text = split_of(str(corpus), "train", trained.vocabulary).ids
    with pytest.raises(UsageError, match=r"step 2 .*before prune_vocabulary"):
        compress(trained, recipe, Context(recover=recover, calibration=text))


def test_recovery_keeps_the_best_or_the_last(recover, trained, capsys):
    bad = replace(QUICK_RECOVERY, learning_rate=3.0)
    kept = recover(trained.clone(), bad, None)
    assert torch.equal(logits_of(kept), logits_of(trained))
    assert "made validation perplexity worse" in capsys.readouterr().err
    last = recover(trained.clone(), replace(bad, keep="last"), None)
    assert not torch.equal(logits_of(last), logits_of(trained))
    assert "worse" not in capsys.readouterr().err


def test_a_recovery_that_ends_without_a_number(trained, corpus):
    text = split_of(str(corpus), "train", trained.vocabulary).ids
    scores = iter([5.0])
    recover = make_recovery(lambda _: text, lambda _: next(scores, math.nan), seed=0)
    kept = recover(trained.clone(), QUICK_RECOVERY, None)
    assert torch.equal(logits_of(kept), logits_of(trained))


@pytest.mark.parametrize("rate", [0.005, 3.0], ids=["usual", "ruinous"])
def test_gradual_pruning_ends_at_its_sparsity(rate: float, run, trained):
    item = {
        "method": "prune_gradually",
        "sparsity": 0.7,
        "end": STEPS,
        "epochs": 2,
        **TRAINING,
        "learning_rate": rate,
    }
    small = run(trained, item)
    at_once = run(trained, {"method": "magnitude", "sparsity": 0.7})
    for name, op in small.weights().items():
        total = op.out_features * op.in_features
        assert op.kind == "sparse"
        assert op.parameter_count() == int((op.dense() != 0).sum()) == total - round(0.7 * total)
        # Not the model from before with its smallest weights gone.
        assert not torch.equal(op.dense(), at_once.weights()[name].dense())


def test_gradual_pruning_that_is_cut_short_says_so(recover, trained, caplog):
    item = {"method": "prune_gradually", "sparsity": 0.7, "end": STEPS + 10, **TRAINING}
    small = compress(trained, Recipe.from_list([item]), Context(recover=recover)).model
    assert f"after {STEPS} of {STEPS + 10} steps" in caplog.text
    for op in small.weights().values():
        assert op.parameter_count() == op.dense().numel() - round(0.7 * op.dense().numel())


VARIATIONAL = {
    "method": "sparse_variational",
    "epochs": 2,
    **TRAINING,
    "learning_rate": 0.05,
}


@pytest.fixture
def known(recover) -> LanguageModel:
    """A model that knows the corpus by heart."""
    return recover(make_model("lstm"), replace(QUICK_RECOVERY, epochs=3, learning_rate=0.02), None)


def left(model: LanguageModel) -> float:
    """The share of weights that are not zero."""
    ops = list(model.weights().values())
    kept = sum(int((op.dense() != 0).sum()) for op in ops)
    return kept / sum(op.dense().numel() for op in ops)


def test_variational_training_drops_weights(run, known):
    assert left(known) == 1
    small = run(known, {**VARIATIONAL, "kl_weight": 3e-3})
    assert left(small) < 0.6
    assert {op.kind for op in small.weights().values()} == {"sparse"}


def test_variational_training_keeps_the_last_model(run, known, monkeypatch, capsys):
    item = {**VARIATIONAL, "kl_weight": 0.01, "learning_rate": 1.0, "epochs": 1}
    small = run(known, item)
    assert "worse" not in capsys.readouterr().err
    assert left(small) < 0.95
    # By validation perplexity the model from before any weight went is the best.
    monkeypatch.setattr(SparseVariational, "keep", "best")
    same = run(known, item)
    assert "made validation perplexity worse" in capsys.readouterr().err
    assert left(same) > 0.99


def test_variational_training_drops_words_that_the_text_lacks(run, known, corpus):
    item = {**VARIATIONAL, "per": "row", "kl_weight": 1e-4, "matrices": "embedding"}
    item |= {"epochs": 6, "learning_rate": 0.1}
    small = run(known, item)
    ids = split_of(str(corpus), "train", known.vocabulary).ids.astype(np.int64)
    read = torch.zeros(len(known.vocabulary), dtype=torch.bool)
    read[ids] = True
    assert 10 < int(read.sum()) < 20
    stays = small.embedding.dense().any(dim=1)
    assert not stays[~read].any()
    assert stays[read].float().mean() > 0.7  # one that follows from the others may go


def test_part_of_an_epoch_is_that_part_of_the_steps(recover, trained, caplog):
    item = {"method": "prune_gradually", "sparsity": 0.7, "end": STEPS, **TRAINING, "epochs": 0.5}
    compress(trained, Recipe.from_list([item]), Context(recover=recover))
    assert re.search(f"after (41|42) of {STEPS} steps", caplog.text)
    with pytest.raises(UsageError, match=r"1.5 passes are not possible; give 1"):
        Recipe.from_list([{"method": "recover", "epochs": 1.5}])


def test_codes_that_gain_nothing_stay_as_they_were(run, trained, capsys):
    coded = run(trained, {"method": "quantize", "bits": 4})
    step = {"method": "recover", **TRAINING, "learning_rate": 3.0, "train_codes": True}
    kept = run(trained, {"method": "quantize", "bits": 4}, step)
    assert "made validation perplexity worse" in capsys.readouterr().err
    for name, op in coded.weights().items():
        stored = kept.weights()[name].tensors()
        assert all(torch.equal(stored[key], tensor) for key, tensor in op.tensors().items())


def test_the_output_projection_has_a_dropout_here_too(run, recover):
    model = make_output_variant("projected")
    step = {"method": "recover", **TRAINING, "epochs": 1}
    plain, dropped = (
        run(model.clone(), {**step, **more}) for more in ({}, {"projection_dropout": 0.4})
    )
    assert not same_weights(plain, dropped)
    with pytest.raises(UsageError, match="has no output projection"):
        run(make_model("lstm"), {**step, "projection_dropout": 0.4})


@pytest.mark.parametrize(
    "dropout",
    [{"input_dropout": 0.4}, {"embedding_dropout": 0.4}, {"weight_drop": 0.4}],
    ids=lambda dropout: next(iter(dropout)),
)
def test_every_dropout_of_training_is_one_here(dropout: dict[str, float], run, trained):
    step = {"method": "recover", **TRAINING, "epochs": 1}
    plain, dropped, locked = (
        run(trained.clone(), {**step, **more})
        for more in ({}, dropout, {**dropout, "locked_dropout": True})
    )
    assert not same_weights(plain, dropped)
    # One mask a window is what an embedding's and a weight's dropout always have.
    assert same_weights(dropped, locked) == ("input_dropout" not in dropout)
