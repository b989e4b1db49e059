"""Text that teachers write, against their own distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terselm.errors import UsageError
from terselm.models.language_model import LanguageModel
from terselm.text.build import vocabulary_from_words
from terselm.train import generation
from terselm.train.generation import generate
from tests.tiny import WORDS, make_model

SIDE_BY_SIDE = 20_000


def opinionated(cell: str, seed: int) -> LanguageModel:
    """A model far from a flat distribution, and from the same one after every word."""
    model = make_model(cell, seed=seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
        model.output.bias.normal_(0, 1)
    return model


def mean_distributions(teachers: list[LanguageModel], ids: list[int]) -> torch.Tensor:
    """What the teachers together expect after each of the words, float64 [len(ids), words]."""
    tokens = torch.tensor(ids)[:, None]
    with torch.no_grad():
        scores = [each(tokens, each.initial_state(1))[0][:, 0].double() for each in teachers]
    return sum(each.softmax(-1) for each in scores) / len(scores)


def check_drawn(words: np.ndarray, expected: torch.Tensor) -> None:
    """Compare counts by chi-square: 1.8 a degree of freedom is beyond chance."""
    counts = np.bincount(words, minlength=len(WORDS))
    wanted = expected.numpy() * len(words)
    rare = wanted < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(wanted[~rare], wanted[rare].sum())
    distance = ((counts - wanted) ** 2 / np.maximum(wanted, 1)).sum()
    assert distance < 1.8 * len(wanted)


@pytest.mark.parametrize("count", [1, 3])
def test_words_are_as_frequent_as_the_teachers_hold_them_likely(count, monkeypatch):
    monkeypatch.setattr(generation, "STREAMS", SIDE_BY_SIDE)
    teachers = [opinionated("lstm", 1), opinionated("gru", 2), opinionated("rnn_tanh", 3)][:count]
    written = generate(teachers, 3 * SIDE_BY_SIDE, seed=5).reshape(SIDE_BY_SIDE, 3)
    end = teachers[0].vocabulary.start_id
    check_drawn(written[:, 0], mean_distributions(teachers, [end])[-1])
    first = int(np.bincount(written[:, 0]).argmax())
    after = written[written[:, 0] == first]
    check_drawn(after[:, 1], mean_distributions(teachers, [end, first])[-1])
    second = int(np.bincount(after[:, 1]).argmax())
    last = after[after[:, 1] == second][:, 2]
    check_drawn(last, mean_distributions(teachers, [end, first, second])[-1])


def test_length_seed_and_random_state():
    teacher = make_model("lstm").train()
    for tokens in (1, 7, 1001):
        assert generate(teacher, tokens, seed=0).shape == (tokens,)
    before = torch.get_rng_state()
    written = generate(teacher, 1001, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert written.dtype == np.int32 and 0 <= written.min() <= written.max() < len(WORDS)
    assert np.array_equal(written, generate(teacher, 1001, seed=0))
    assert not np.array_equal(written, generate(teacher, 1001, seed=1))


def test_nobody_and_nothing():
    with pytest.raises(UsageError, match="at least one teacher"):
        generate([], 5, seed=0)
    with pytest.raises(UsageError, match="at least one token"):
        generate(make_model("lstm"), 0, seed=0)


def test_teachers_of_different_words():
    other = LanguageModel(make_model("lstm").config, vocabulary_from_words(WORDS[:-1]))
    with pytest.raises(UsageError, match="of 37 and 36 tokens; those who write"):
        generate([make_model("lstm"), other], 5, seed=0)
