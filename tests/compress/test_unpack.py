"""Unpacked models: the same in value, and plain numbers that train."""

from __future__ import annotations

import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.recipe import Recipe
from terselm.models.language_model import LanguageModel
from tests.tiny import logits_of, make_model

CODES = {
    "quantize": [{"method": "quantize", "bits": 4}, {"method": "half_bias"}],
    "kmeans": [{"method": "kmeans", "bits": 2}],
    "magnitude": [{"method": "magnitude", "sparsity": 0.5}],
    "low rank": [{"method": "low_rank", "rank": 4}, {"method": "quantize", "bits": 8}],
}


def applied(model: LanguageModel, steps: list[dict[str, object]]) -> LanguageModel:
    return compress(model, Recipe.from_list(steps), Context()).model


@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
@pytest.mark.parametrize("steps", CODES.values(), ids=CODES)
def test_unpacked_values_are_those_of_the_codes_and_train(cell, steps):
    small = applied(make_model(cell, tied=True), steps)
    plain = applied(small, [{"method": "unpack"}])
    assert {leaf.kind for leaf in plain.leaves().values()} == {"dense"}
    assert plain.weights().keys() == small.weights().keys()
    for name, op in plain.weights().items():
        # Factors stay factors.
        assert (op.kind == "low_rank") == (small.weights()[name].kind == "low_rank")
        assert torch.equal(op.dense(), small.weights()[name].dense())
    torch.testing.assert_close(logits_of(plain), logits_of(small), rtol=0, atol=1e-5)
    assert plain.ties() == small.ties()
    assert plain.config.output_bias == "float32"
    assert all(
        parameter.requires_grad and parameter.is_floating_point()
        for parameter in plain.parameters()
    )
