"""The recipes that ship, each run from end to end on a small model."""

from __future__ import annotations

import math

import pytest
import torch

from terselm.cli.loading import split_of
from terselm.compress.apply import Compressed, compress
from terselm.compress.base import Context
from terselm.compress.recipe import load_recipe, presets
from terselm.evaluate.perplexity import perplexity
from terselm.models.checkpoint import lay_out, load, save
from terselm.models.language_model import LanguageModel
from tests.tiny import QUICK_RECOVERY, logits_of, make_model

ORDER = ("lossless-ish", "balanced", "small", "tiny")
"""Largest first."""


@pytest.fixture
def context(corpus, recover) -> Context:
    text = split_of(str(corpus), "train", make_model("lstm").vocabulary)
    return Context(recover=recover, calibration=text.ids)


@pytest.fixture
def trained(context) -> LanguageModel:
    """A model wide enough that its matrices, not the head of the file, are its bytes."""
    return context.recover(make_model("lstm", hidden=64), QUICK_RECOVERY, None)


def test_presets_are_these():
    assert set(presets()) == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_a_preset_from_model_to_file(name, trained, context, corpus, tmp_path):
    result: Compressed = compress(trained, load_recipe(name), context)
    path = tmp_path / "small.safetensors"
    size = save(result.model, path)
    again = load(path)
    torch.testing.assert_close(logits_of(again), logits_of(result.model), rtol=0, atol=0)
    assert size == path.stat().st_size == result.steps[-1].bytes
    ids = split_of(str(corpus), "valid", again.vocabulary).ids
    loss = math.log(perplexity(again, ids)) - math.log(perplexity(trained, ids))
    # Random guessing over the words would cost about 2 nats more.
    assert loss < 0.5


def test_each_preset_is_smaller_than_the_one_before(trained, context):
    sizes = [lay_out(trained).size]
    sizes += [compress(trained, load_recipe(name), context).steps[-1].bytes for name in ORDER]
    assert sizes == sorted(set(sizes), reverse=True)
