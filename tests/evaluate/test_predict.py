"""The next words, for words, characters and byte pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terselm.errors import TerselmError, UsageError
from terselm.evaluate.predict import count_unknown, predict
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.build import vocabulary_from_words
from terselm.text.vocabulary import BytePairVocabulary
from tests.evaluate.truth import logits_step_by_step
from tests.tiny import CELL_VARIANTS, make_model


def probabilities_after(model, ids):
    """The slow way, float64 [vocabulary]."""
    logits = logits_step_by_step(model, [*ids, 0])[-1]
    values = np.exp(logits - logits.max())
    return values / values.sum()


@pytest.mark.parametrize("cell", CELL_VARIANTS)
@pytest.mark.parametrize("text", ["", "w01", "w05 w02 w02 nothing w30", "w01 w02\nw03"])
def test_equals_the_softmax_step_by_step(cell, text):
    model = make_model(cell)
    words = model.vocabulary.words
    expected = probabilities_after(model, model.vocabulary.encode(text))
    found = predict(model, text, k=len(words), with_unknown=True)
    assert [words.index(word) for word, _ in found] == np.argsort(-expected).tolist()
    assert [share for _, share in found] == pytest.approx(sorted(expected)[::-1], rel=1e-4)
    assert sum(share for _, share in found) == pytest.approx(1)


def test_unknown_is_left_out_unless_asked_for():
    model = make_model("lstm")
    with torch.no_grad():
        model.output.bias[model.vocabulary.unknown_id] = 50.0
        model.output.bias[model.vocabulary.start_id] = 45.0
    with_unknown = predict(model, "w01", k=2, with_unknown=True)
    assert [word for word, _ in with_unknown] == ["<unk>", "<eos>"]
    without = predict(model, "w01", k=2)
    assert without[0] == with_unknown[1]  # probabilities stay those among all tokens
    found = predict(model, "w01", k=34, exclude=["<eos>", "w07", "not there"])
    words = {word for word, _ in found}
    assert len(words) == 34
    assert not words & {"<unk>", "<eos>", "w07"}


def test_k_must_fit():
    model = make_model("lstm")
    for k in (0, -1, 37):
        with pytest.raises(UsageError, match=f"k is {k}; it must be from 1 to 36"):
            predict(model, "w01", k=k)
    with pytest.raises(UsageError, match="from 1 to 35"):
        predict(model, "w01", k=36, exclude={"w01"})
    assert len(predict(model, "w01", k=36)) == 36


def test_level_words_come_in_the_order_of_their_ids():
    model = make_model("lstm")
    with torch.no_grad():
        model.output.weight.weight.zero_()
        model.output.bias.zero_()
    assert [word for word, _ in predict(model, "w01", k=3)] == ["<eos>", "w00", "w01"]


def test_how_much_of_the_text_is_unknown():
    model = make_model("lstm")
    assert count_unknown(model, "w01 what w02 is this") == 3
    assert count_unknown(model, "w01 w02\n") == 0
    assert count_unknown(model, "") == 0


def test_characters():
    vocabulary = vocabulary_from_words(["\n", " ", "a", "b", "c"], kind="characters")
    model = LanguageModel(ModelConfig(hidden=(8,), embedding=8), vocabulary).eval()
    expected = probabilities_after(model, [2, 3, 1])
    found = predict(model, "ab ", k=5)
    assert {word for word, _ in found} == {"\n", " ", "a", "b", "c"}
    assert found[0][1] == pytest.approx(expected.max(), rel=1e-4)
    assert count_unknown(model, "ab") == 0
    with pytest.raises(UsageError, match="not in the vocabulary"):
        predict(model, "x")


def test_byte_pairs():
    vocabulary = BytePairVocabulary.train(["the cat sat on the mat"] * 5, 270)
    model = LanguageModel(ModelConfig(hidden=(8,), embedding=8), vocabulary).eval()
    expected = probabilities_after(model, vocabulary.encode("the naïve"))
    found = predict(model, "the naïve", k=3)
    assert found[0] == (
        vocabulary.words[expected.argmax()],
        pytest.approx(expected.max(), rel=1e-4),
    )
    assert count_unknown(model, "ÿ☃") == 0


def test_the_model_is_left_as_it_is():
    model = make_model("lstm").train()
    before = predict(model, "w01 w02")
    assert model.training
    assert predict(model.eval(), "w01 w02") == before


def test_a_damaged_model_gives_an_error():
    model = make_model("lstm")
    with torch.no_grad():
        model.output.bias[0] = float("nan")
    with pytest.raises(TerselmError, match="NaN"):
        predict(model, "w01")
