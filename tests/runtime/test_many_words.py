"""The output layer of a vocabulary that is computed in several blocks, for batches and threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.recipe import Recipe
from terselm.models.checkpoint import save
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.runtime import Model, kernel_names
from terselm.text.build import vocabulary_from_words
from tests.runtime.reference import reference_log_probabilities

RECIPES: dict[str, list[dict[str, Any]]] = {
    "float32": [],
    "8 bits": [{"method": "quantize", "bits": 8}],
    "4 bits": [{"method": "quantize", "bits": 4, "group": 32}],
    "low rank": [{"method": "low_rank", "rank": 20, "weights": "output"}],
    "float16 bias": [{"method": "half_bias"}],
}
TOLERANCE = {"8 bits": 2e-3, "4 bits": 2e-3}
"""Of forms whose products round their inputs: two vectors may round to either side."""
SIZES = (1000, 1030, 2077)
TOKENS = 70


def model_of(words: int, recipe: list[dict[str, Any]]) -> LanguageModel:
    names = ["<eos>", "<unk>", *(f"w{number}" for number in range(words - 2))]
    config = ModelConfig(cell="lstm", hidden=(192,), embedding=16)
    torch.manual_seed(words)
    model = LanguageModel(config, vocabulary_from_words(names)).eval()
    with torch.no_grad():  # no two words alike, in their weights or their bias
        model.output.bias.normal_()
        for op in model.weights().values():
            op.weight.mul_(5)
    return compress(model, Recipe.from_list(recipe)).model if recipe else model


@pytest.mark.parametrize("form", RECIPES)
@pytest.mark.parametrize("words", SIZES)
def test_probabilities_are_those_of_torch(tmp_path: Path, words: int, form: str) -> None:
    source = model_of(words, RECIPES[form])
    save(source, tmp_path / "model")
    tokens = [0, words - 1, 3]
    expected = reference_log_probabilities(source, tokens).numpy()
    for kernels in kernel_names():
        model = Model(tmp_path / "model", kernels=kernels)
        state = model.state()
        for token, row in zip(tokens[1:], expected[1:], strict=True):
            model.step(state, token)
            assert np.allclose(model.log_probabilities(state), row, atol=TOLERANCE.get(form, 1e-4))
            assert np.logaddexp.reduce(
                model.log_probabilities(state).astype(float)
            ) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("form", RECIPES)
@pytest.mark.parametrize("words", SIZES)
def test_batches_and_threads_change_nothing(tmp_path: Path, words: int, form: str) -> None:
    save(model_of(words, RECIPES[form]), tmp_path / "model")
    tokens = np.random.default_rng(0).integers(0, words, TOKENS)
    alone = Model(tmp_path / "model")
    states = [alone.state() for _ in range(TOKENS)]
    for state, token in zip(states, tokens, strict=True):
        alone.step(state, int(token))
    expected = np.stack([alone.log_probabilities(state) for state in states])
    scores, ranks = alone.rank_sequence(alone.state(), tokens)
    for batch, threads in ((2, 1), (9, 1), (TOKENS, 1), (2, 3), (TOKENS, 2), (TOKENS, 3)):
        model = Model(tmp_path / "model", batch=batch, threads=threads)
        found = model.log_probabilities_many(states[:batch])
        assert np.array_equal(found, expected[:batch]), (batch, threads)
        assert np.array_equal(model.score_sequence(model.state(), tokens), scores)
        again, places = model.rank_sequence(model.state(), tokens)
        assert np.array_equal(again, scores)
        assert np.array_equal(places, ranks)
