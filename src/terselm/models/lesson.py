"""What teachers say of the next word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 16
"""Scores of so many tokens are worked on at once: 10,000 words each stay in a core's cache."""


@dataclass(frozen=True)
class Scores:
    """Scores of every word, whose bias is added when they are read, not to all of them at once.

    Attributes
    ----------
    products : Tensor
        [tokens, vocabulary].
    bias : Tensor or None
        [vocabulary].
    """

    products: Tensor
    bias: Tensor | None = None

    def read(self, rows: slice, temperature: float, dtype: torch.dtype) -> Tensor:
        """Return the scores of some tokens over the temperature [rows, vocabulary]."""
        scores = self.products[rows].to(dtype, copy=True)
        if self.bias is not None:
            scores += self.bias.to(dtype)
        return scores if temperature == 1.0 else scores.div_(temperature)


@dataclass(frozen=True)
class Samples:
    """Words drawn from the teachers' distribution, each of which stands for an equal share of it.

    Attributes
    ----------
    words : Tensor
        int64 [tokens, samples]; likely words are there several times.
    """

    words: Tensor


@dataclass(frozen=True)
class Lesson:
    """What teachers say of the next word, and how much that counts.

    Attributes
    ----------
    said : tuple of Scores, or Samples
        Unnormalized scores, one a teacher: the distribution to learn is the mean of theirs. Or
        words drawn from that.
    weight : float
        Share of the teachers in the loss.
    temperature : float
        That samples were drawn at, too.
    """

    said: tuple[Scores, ...] | Samples
    weight: float
    temperature: float


def mean_softmax(
    teachers: Sequence[Scores], rows: slice, temperature: float, dtype: torch.dtype
) -> Tensor:
    """Return the mean distribution of the teachers for some tokens [rows, vocabulary]."""
    first, *others = teachers
    likely = torch.softmax(first.read(rows, temperature, dtype), 1)
    for each in others:
        likely += torch.softmax(each.read(rows, temperature, dtype), 1)
    return likely.div_(len(teachers)) if others else likely


@torch.no_grad()
def draw(teachers: Sequence[Scores], temperature: float, samples: int, offsets: Tensor) -> Samples:
    """Return words drawn from the mean distribution of the teachers.

    The samples of a token lie evenly in its cumulative distribution (systematic sampling): a word
    of probability q is drawn q · samples times, rounded up or down, and so often in the mean.
    Learning from such samples has the gradient of learning from the distribution in the mean,
    which learning from the likeliest words has not (Anshumann et al. 2025, arXiv 2503.16870).

    Parameters
    ----------
    teachers : sequence of Scores
        One a teacher.
    temperature : float
    samples : int
        A token.
    offsets : Tensor
        float32 [tokens], uniform in [0, 1): where in its interval each sample lies.
    """
    words = torch.empty((len(offsets), samples), dtype=torch.int64, device=offsets.device)
    steps = torch.arange(samples, device=offsets.device)
    for start in range(0, len(offsets), ROWS):
        rows = slice(start, start + ROWS)
        sums = mean_softmax(teachers, rows, temperature, torch.float32).cumsum_(1)
        # Relative to the last sum, which rounding keeps from being 1.
        points = (steps + offsets[rows, None]).mul_(sums[:, -1:] / samples)
        torch.searchsorted(sums, points, right=True, out=words[rows])
    return Samples(words.clamp_(max=teachers[0].products.shape[1] - 1))
