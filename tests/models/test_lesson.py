"""Samples of what teachers say."""

from __future__ import annotations

import pytest
import torch

from terselm.models.lesson import ROWS, Lesson, Scores, draw
from terselm.models.softmax_loss import loss_of_scores

TOKENS, WORDS = ROWS + 3, 40


def teachers(number: int) -> tuple[Scores, ...]:
    torch.manual_seed(number)
    return tuple(
        Scores(3 * torch.randn(TOKENS, WORDS), torch.randn(WORDS) if each else None)
        for each in range(number)
    )


def distribution(scores: tuple[Scores, ...], temperature: float) -> torch.Tensor:
    whole = [
        each.products.double() + (0 if each.bias is None else each.bias.double()) for each in scores
    ]
    return sum((each / temperature).softmax(1) for each in whole) / len(whole)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("samples", [1, 7, 100])
def test_every_word_comes_as_often_as_it_is_likely(number: int, temperature: float, samples: int):
    scores = teachers(number)
    expected = samples * distribution(scores, temperature)
    offsets = torch.linspace(0, 1, 401)[:-1] + 1 / 800
    total = torch.zeros(TOKENS, WORDS, dtype=torch.float64)
    for offset in offsets:
        words = draw(scores, temperature, samples, offset.expand(TOKENS)).words
        assert words.shape == (TOKENS, samples)
        counts = torch.zeros(TOKENS, WORDS, dtype=torch.float64)
        counts.scatter_add_(1, words, torch.ones(words.shape, dtype=torch.float64))
        # Rounded up or down.
        assert ((counts - expected).abs() < 1 + 1e-4).all()
        total += counts
    torch.testing.assert_close(total / len(offsets), expected, rtol=0, atol=0.004)


def test_what_is_impossible_is_never_drawn():
    scores = torch.zeros(2, WORDS)
    scores[:, ::2] = -torch.inf
    words = draw((Scores(scores),), 1.0, 1000, torch.tensor([0.0, 0.999])).words
    assert (words % 2 == 1).all()
    assert words.unique().numel() == WORDS // 2


def test_the_gradient_is_that_of_the_whole_in_the_mean():
    said = teachers(2)
    student = torch.randn(TOKENS, WORDS, requires_grad=True)
    targets = torch.randint(WORDS, (TOKENS,))

    def gradient(lesson: Lesson) -> torch.Tensor:
        return torch.autograd.grad(loss_of_scores(student, targets, lesson)[0], student)[0]

    number = 400
    found = sum(
        gradient(Lesson(draw(said, 2.0, 4, torch.full((TOKENS,), (each + 0.5) / number)), 0.8, 2.0))
        for each in range(number)
    )
    whole = gradient(Lesson(said, 0.8, 2.0))
    torch.testing.assert_close(found / number, whole, rtol=0, atol=2e-4)
