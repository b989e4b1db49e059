"""Training that ends with the model of the last step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from terselm.models.language_model import LanguageModel
from tests.train.tiny_run import latent_model, perplexities, perplexity, train, weights


@pytest.mark.parametrize("averaging", ["none", "ema", "nt_asgd"])
def test_the_last_epoch_is_kept_where_asked_for(averaging: str, tmp_path):
    settings = {"epochs": 4, "averaging": averaging, "average_patience": 1}
    seen: list[dict[str, torch.Tensor]] = []

    def run(**more: Any):
        scores = perplexities([5.0, 3.0, 4.0, 6.0])

        def validate(model: LanguageModel) -> float:
            seen.append(weights(model))
            return scores(model)

        return train(None, {**settings, "keep": "last"}, validate=validate, **more)

    result = run()
    assert (result.best_epoch, result.valid_perplexity) == (4, 6.0)
    assert [record.improved for record in result.history] == [True, True, False, False]
    assert len(seen) == 4
    assert all(torch.equal(seen[3][name], value) for name, value in weights(result.model).items())
    # A finished run still holds both.
    run(folder=tmp_path)
    best = train(None, {**settings, "keep": "best"}, folder=tmp_path, resume=True)
    assert (best.best_epoch, best.valid_perplexity) == (2, 3.0)
    assert all(torch.equal(seen[1][name], value) for name, value in weights(best.model).items())


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("averaging", ["none", "ema"])
def test_codes_are_kept_as_they_were_judged(keep: str, averaging: str):
    scores = perplexities([5.0, 3.0, 4.0, 6.0])
    seen: list[tuple[float, dict[str, torch.Tensor]]] = []

    def validate(model: LanguageModel) -> float:
        matrices = {name: op.dense().detach().clone() for name, op in model.weights().items()}
        seen.append((perplexity(model), matrices))
        return scores(model)

    settings = {"epochs": 4, "keep": keep, "averaging": averaging}
    model = train(latent_model(), settings, validate=validate).model
    found, matrices = seen[1 if keep == "best" else 3]
    assert perplexity(model) == found
    model.settle()
    assert all(torch.equal(op.dense(), matrices[name]) for name, op in model.weights().items())


def test_the_last_model_of_a_time_limit():
    calls = [0]

    def worse(model: LanguageModel) -> float:
        calls[0] += 1
        return float(calls[0])

    settings = {"epochs": 100_000, "time_limit": 0.5, "keep": "last"}
    result = train(None, settings, validate=worse)
    assert result.stopped == "time"
    assert result.valid_perplexity is not None and result.valid_perplexity >= calls[0] - 1


def test_perplexities_that_are_no_numbers():
    scores = [math.nan, 10.0, 9.0, math.nan]
    result = train(None, {"epochs": 4}, validate=perplexities(scores))
    assert (result.best_epoch, result.valid_perplexity) == (3, 9.0)
    assert [record.improved for record in result.history] == [False, True, True, False]
