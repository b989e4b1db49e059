"""The softmax over many words with its gradient written over the scores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from terselm.models.lesson import ROWS, Lesson, Samples, Scores
from terselm.models.softmax_loss import loss_of_scores, softmax_loss

WORDS, SIZE = 33, 7
COUNTS = (1, ROWS, 3 * ROWS - 5)


def arguments(count: int, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(0)
    shapes = [(count, SIZE), (WORDS, SIZE), (WORDS,)]
    given = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    return given, torch.randint(WORDS, (count,))


def lesson_for(count: int, teachers: int = 1, temperature: float = 2.0) -> Lesson:
    """Teachers whose bias is apart, but for the first one."""
    shape = {"dtype": torch.float64}
    scores = (
        Scores(torch.randn(count, WORDS, **shape), torch.randn(WORDS, **shape) if number else None)
        for number in range(teachers)
    )
    return Lesson(tuple(scores), weight=0.3, temperature=temperature)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("teachers", [0, 1, 3])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_loss_and_gradients_by_torch(count: int, teachers: int, temperature: float):
    given, targets = arguments(count)
    lesson = lesson_for(count, teachers, temperature) if teachers else None
    loss, nll = softmax_loss(*given, targets, lesson)
    features, weight, bias = given
    scores = features @ weight.t() + bias
    plain = expected = nn.functional.cross_entropy(scores, targets)
    if lesson is not None:
        whole = [
            each.products if each.bias is None else each.products + each.bias
            for each in lesson.said
        ]
        likely = sum(torch.softmax(each / temperature, 1) for each in whole) / teachers
        found = torch.log_softmax(scores / temperature, 1)
        far = nn.functional.kl_div(found, likely, reduction="sum")
        expected = 0.7 * plain + 0.3 * temperature**2 * far / count
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(nll, plain)
    assert not nll.requires_grad
    # As part of a greater loss: the gradient that arrives is not 1.
    found = torch.autograd.grad(loss * 2.5, given)
    torch.testing.assert_close(found, torch.autograd.grad(expected * 2.5, given))


@pytest.mark.parametrize("teachers", [0, 1, 3])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_step_by_step_it_is_the_same(teachers: int, temperature: float):
    (features, weight, bias), targets = arguments(20, torch.float32)
    lesson = lesson_for(20, teachers, temperature) if teachers else None
    found = softmax_loss(features, weight, bias, targets, lesson)
    expected = loss_of_scores(features @ weight.t() + bias, targets, lesson)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_samples_by_torch(count: int, temperature: float):
    given, targets = arguments(count)
    words = torch.randint(WORDS, (count, 9))
    lesson = Lesson(Samples(words), weight=0.3, temperature=temperature)
    features, weight, bias = given
    scores = features @ weight.t() + bias
    plain = nn.functional.cross_entropy(scores, targets)
    soft = torch.log_softmax(scores / temperature, 1)
    far = sum(nn.functional.nll_loss(soft, column) for column in words.t()) / 9
    expected = 0.7 * plain + 0.3 * temperature**2 * far
    loss, nll = softmax_loss(*given, targets, lesson)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(nll, plain)
    found = torch.autograd.grad(loss * 2.5, given)
    torch.testing.assert_close(found, torch.autograd.grad(expected * 2.5, given))
    step_by_step = loss_of_scores(features @ weight.t() + bias, targets, lesson)
    torch.testing.assert_close(step_by_step, (expected.float(), plain.float()))


def test_what_a_teacher_holds_for_impossible_counts_nothing():
    given, targets = arguments(2, torch.float32)
    scores = torch.zeros(2, WORDS)
    scores[:, 3] = -1e6
    lesson = Lesson((Scores(scores),), weight=1.0, temperature=1.0)
    loss, _ = softmax_loss(*given, targets, lesson)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(each).all() for each in torch.autograd.grad(loss, given))


def test_great_scores_do_not_overflow():
    (features, weight, bias), targets = arguments(20, torch.float32)
    with torch.no_grad():
        features.mul_(1e4)
    loss, _ = softmax_loss(features, weight, bias, targets)
    expected = nn.functional.cross_entropy(features @ weight.t() + bias, targets)
    torch.testing.assert_close(loss, expected)
    assert all(torch.isfinite(each).all() for each in torch.autograd.grad(loss, (features, weight)))


@pytest.mark.parametrize("taught", [False, True])
def test_bfloat16_is_near_float64(taught: bool):
    given, targets = arguments(200)
    lesson = lesson_for(200) if taught else None
    rounded = [each.detach().float().requires_grad_() for each in given]
    with torch.autocast("cpu", torch.bfloat16):
        loss, nll = softmax_loss(*rounded, targets, lesson)
    assert loss.dtype == nll.dtype == torch.float32
    wanted, _ = softmax_loss(*given, targets, lesson)
    assert loss.item() == pytest.approx(wanted.item(), rel=0.01)
    gradients = torch.autograd.grad(loss, rounded)
    assert all(each.dtype == torch.float32 for each in gradients)
    for found, exact in zip(gradients, torch.autograd.grad(wanted, given), strict=True):
        assert (found - exact).norm() < 0.02 * exact.norm()
