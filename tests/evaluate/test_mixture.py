"""Fitted weights of a product of models against a search by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terselm.errors import UsageError
from terselm.evaluate.mixture import fit_weights
from terselm.evaluate.perplexity import perplexity
from terselm.models.language_model import LanguageModel
from terselm.models.merging import merge
from tests.tiny import WORDS, make_model


def parts() -> list[LanguageModel]:
    return [make_model("lstm", hidden=hidden, seed=hidden) for hidden in (20, 12)]


def text_of(model: LanguageModel) -> np.ndarray:
    """300 tokens drawn from what a model says, so that weights for it are not near zero."""
    torch.manual_seed(3)
    token, ids = torch.tensor([[model.vocabulary.start_id]]), []
    state = model.initial_state(1)
    with torch.no_grad():
        for _ in range(300):
            logits, state = model(token, state)
            token = torch.multinomial(logits[0].softmax(-1), 1)
            ids.append(int(token))
    return np.array(ids)


def test_no_other_weights_fit_better():
    models = parts()
    ids = text_of(merge(models, [3.0, 2.0]))
    weights = fit_weights(models, ids)
    best = perplexity(merge(models, weights), ids)
    assert best < min(perplexity(model, ids) for model in models)
    for change in ((0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1), (0.1, -0.1)):
        moved = [weight + step for weight, step in zip(weights, change, strict=True)]
        assert perplexity(merge(models, moved), ids) > best


def test_models_that_are_the_same_share_the_weight():
    model = parts()[0]
    ids = text_of(model)
    weights = fit_weights([model, model.clone()], ids)
    assert weights[0] == pytest.approx(weights[1], abs=1e-3)
    (alone, nothing) = fit_weights([model, make_uniform()], ids)
    assert sum(weights) == pytest.approx(alone, abs=1e-2)
    assert nothing == pytest.approx(0.5, abs=1e-6)


def make_uniform() -> LanguageModel:
    """A model that tells nothing, so that its weight changes nothing."""
    model = parts()[1]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def test_models_that_are_sure_of_what_is_wrong():
    """Where the curvature vanishes, whole steps lead away."""
    models = [make_model("lstm", hidden=hidden, seed=hidden) for hidden in (20, 12)]
    with torch.no_grad():
        for model in models:
            model.output.bias.mul_(0).add_(torch.randn(len(WORDS)) * 60)
    ids = text_of(parts()[0])
    weights = fit_weights(models, ids)
    found = perplexity(merge(models, weights), ids)
    assert found <= perplexity(merge(models, [0.5, 0.5]), ids)


def test_no_text_is_refused():
    with pytest.raises(UsageError, match="no tokens"):
        fit_weights(parts(), [])
    with pytest.raises(UsageError):
        fit_weights(parts(), [len(WORDS)])
