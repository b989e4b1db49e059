"""Agreement with a reference, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terselm.errors import TerselmError, UsageError
from terselm.evaluate.agreement import agreement
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.build import vocabulary_from_words
from tests.evaluate.truth import logits_step_by_step, random_ids, split_of
from tests.tiny import CELL_VARIANTS, WORDS, make_model


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def model_of(words, **options):
    vocabulary = vocabulary_from_words(words, **options)
    return LanguageModel(ModelConfig(hidden=(8,), embedding=8), vocabulary).eval()


def test_equals_the_definition():
    reference = make_model("lstm", seed=0)
    model = reference.clone()
    with torch.no_grad():
        for op in model.weights().values():
            op.weight.add_(torch.randn_like(op.weight), alpha=0.15)
    ids = random_ids(model, 200)
    log_r = log_softmax(logits_step_by_step(reference, ids))
    log_p = log_softmax(logits_step_by_step(model, ids))
    first = log_r.argmax(axis=1)
    order = np.argsort(-log_p, axis=1)
    found = agreement(model, reference, split_of(ids), window=64)
    assert found.top1 == np.mean(order[:, 0] == first)
    assert found.top3 == np.mean((order[:, :3] == first[:, None]).any(axis=1))
    assert 0 < found.top1 < found.top3 < 1
    divergence = (np.exp(log_r) * (log_r - log_p)).sum(axis=1).mean()
    assert found.kl_divergence == pytest.approx(divergence, rel=1e-4)
    assert found.tokens == 200
    # The divergence has a direction.
    back = agreement(reference, model, split_of(ids))
    assert back.kl_divergence != pytest.approx(found.kl_divergence, rel=1e-3)


@pytest.mark.parametrize("cell", CELL_VARIANTS)
def test_a_model_agrees_with_itself_whatever_the_ties(cell):
    model = make_model(cell)
    ids = random_ids(model, 50)
    for _ in range(2):
        found = agreement(model, model.clone(), split_of(ids))
        assert (found.top1, found.top3, found.kl_divergence) == (1, 1, 0)
        with torch.no_grad():  # now every word is level
            model.output.weight.weight.zero_()
            model.output.bias.zero_()


def test_progress_and_json():
    model = make_model("lstm")
    seen = []
    found = agreement(
        model, model, split_of([1, 2, 3]), progress=lambda *counts: seen.append(counts)
    )
    assert seen == [(3, 3)]
    assert found.as_dict() == {
        "top1_agreement": 1.0,
        "top3_agreement": 1.0,
        "kl_divergence": 0.0,
        "tokens": 3,
    }


def test_other_vocabularies_are_refused():
    model = make_model("lstm")
    with pytest.raises(UsageError, match="37 and 36"):
        agreement(model, model_of(WORDS[:-1]), split_of([1]))
    swapped = [*WORDS[:-2], WORDS[-1], WORDS[-2]]
    for other in (model_of(swapped), model_of(WORDS, lowercase=True)):
        with pytest.raises(UsageError, match="another order"):
            agreement(model, other, split_of([1]))


def test_impossible_requests():
    model = make_model("lstm")
    with pytest.raises(UsageError, match="no tokens"):
        agreement(model, model, split_of([]))
    with pytest.raises(UsageError, match="window"):
        agreement(model, model, split_of([1]), window=0)
    broken = model.clone()
    with torch.no_grad():
        broken.output.bias[0] = float("nan")
    with pytest.raises(TerselmError, match="NaN"):
        agreement(broken, model, split_of([1]))
