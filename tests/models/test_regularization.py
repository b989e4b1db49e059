"""What each dropout leaves out, and where."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.models.output import FullSoftmax
from terselm.models.regularization import Regularization
from terselm.text.build import vocabulary_from_words
from terselm.train.config import make_training_config
from tests.tiny import WORDS, make_output_variant

TIME, BATCH, SIZE = 30, 20, 40


def test_a_locked_mask_is_one_for_all_steps():
    torch.manual_seed(0)
    ones = torch.ones(TIME, BATCH, SIZE)
    found = Regularization(locked=True).drop(ones, 0.25)
    assert found.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(found, found[:1].expand_as(found))
    assert len({tuple(row.tolist()) for row in found[0]}) == BATCH
    assert float((found[0] == 0).float().mean()) == pytest.approx(0.25, abs=0.06)


def test_an_open_mask_is_another_at_every_place():
    torch.manual_seed(0)
    found = Regularization().drop(torch.ones(TIME, BATCH, SIZE), 0.25)
    assert found.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert len({tuple(row.tolist()) for row in found.flatten(0, 1)}) == TIME * BATCH


def test_a_word_is_left_out_at_all_its_places():
    torch.manual_seed(0)
    tokens = torch.randint(len(WORDS), (TIME, BATCH))
    found = Regularization(embedding=0.3).drop_words(
        torch.ones(TIME, BATCH, SIZE), tokens, len(WORDS)
    )
    of_word = [set(found[tokens == word].flatten().tolist()) for word in range(len(WORDS))]
    assert all(len(values) == 1 for values in of_word)
    assert sorted(set().union(*of_word)) == pytest.approx([0.0, 1 / 0.7], rel=1e-4)


@dataclass(frozen=True)
class Recording(Regularization):
    """Leaves everything in, and notes what it was asked to leave out of what."""

    asked: list[tuple[float, Tensor]] = field(default_factory=list)

    def drop(self, x: Tensor, probability: float) -> Tensor:
        self.asked.append((probability, x))
        return x


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_each_acts_where_it_should(layers: int):
    sizes = (8, 9, 10)[:layers]
    config = ModelConfig(cell="lstm", hidden=sizes, embedding=6)
    model = LanguageModel(config, vocabulary_from_words(WORDS)).train()
    tokens = torch.randint(len(WORDS), (TIME, BATCH))
    recording = Recording(input=0.1, hidden=0.2, output=0.3)
    hidden = model.hidden(tokens, model.initial_state(BATCH), recording)
    probabilities = [probability for probability, _ in recording.asked]
    assert probabilities == [0.1, *[0.2] * (layers - 1), 0.3]
    assert [x.shape[-1] for _, x in recording.asked] == [6, *sizes]
    assert torch.equal(recording.asked[0][1], model.embedding.rows(tokens))
    # What is regularized by its size, and what distils, is from before dropout.
    assert torch.equal(hidden.raw, recording.asked[-1][1])


def test_nothing_is_left_out_in_evaluation():
    config = ModelConfig(cell="lstm", hidden=(8,), embedding=6)
    model = LanguageModel(config, vocabulary_from_words(WORDS)).eval()
    tokens = torch.randint(len(WORDS), (TIME, BATCH))
    every = Regularization(0.5, 0.5, 0.5, 0.5, 0.5, True)
    first, second = (model.hidden(tokens, model.initial_state(BATCH), every) for _ in range(2))
    assert torch.equal(first.output, second.output)
    assert torch.equal(first.output, model.hidden(tokens, model.initial_state(BATCH)).output)


def test_what_the_projection_makes_is_dropped_in_training_only():
    model = make_output_variant("projected").train()
    assert isinstance(model.output, FullSoftmax)
    hidden = torch.rand(TIME, BATCH, 20)
    recording = Recording(projection=0.4)
    made = model.output.features(hidden, recording)
    assert [(probability, x.shape) for probability, x in recording.asked] == [(0.4, made.shape)]
    every = Regularization(0.5, 0.5, 0.5, 0.5, 0.5, True, 0.4)
    assert 0.3 < float((model.output.features(hidden, every) == 0).float().mean()) < 0.5
    assert torch.equal(model.eval().output.features(hidden, every), made)


def test_settings_of_training_are_those():
    values = {
        "dropout": 0.1,
        "input_dropout": 0.2,
        "embedding_dropout": 0.3,
        "weight_drop": 0.4,
        "locked_dropout": True,
    }
    found = make_training_config(values).regularization()
    assert found == Regularization(0.2, 0.1, 0.1, 0.3, 0.4, True)
    projected = make_training_config({**values, "projection_dropout": 0.7})
    assert projected.regularization() == replace(found, projection=0.7)
    apart = make_training_config({**values, "hidden_dropout": 0.5, "output_dropout": 0.6})
    assert apart.regularization() == Regularization(0.2, 0.5, 0.6, 0.3, 0.4, True)
