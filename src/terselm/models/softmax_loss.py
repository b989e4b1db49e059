"""Softmax and cross-entropy over many words with little memory traffic, for training on CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from terselm.cells.products import product_type

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
class Lesson:
    """What teachers say of the next word.

    Attributes
    ----------
    scores : tuple of Scores
        Unnormalized, one a teacher. The distribution to learn is the mean of theirs.
    weight : float
        Share of the teachers in the loss.
    temperature : float
    """

    scores: tuple[Scores, ...]
    weight: float
    temperature: float


def softmax_loss(
    features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, lesson: Lesson | None = None
) -> tuple[Tensor, Tensor]:
    """Return the mean loss of a token and its mean negative log-likelihood.

    The gradient with respect to the scores is computed where the scores are, and written over
    them: nothing of the size [tokens, vocabulary] is read from memory more than needed. Products
    are in what autocast asks for, softmax and sums in float32.

    Parameters
    ----------
    features : Tensor
        [tokens, size].
    weight : Tensor
        [vocabulary, size].
    bias : Tensor
        [vocabulary].
    targets : Tensor
        int64 [tokens].
    lesson : Lesson or None
        With teachers the loss is (1 - w) · nll + w · T² · KL(their mean ‖ model) at temperature T.

    Returns
    -------
    loss : Tensor
        Scalar, in nats, differentiable.
    nll : Tensor
        Scalar, in nats, not differentiable.
    """
    products = product_type(features)
    loss, nll = _SoftmaxLoss.apply(products, features, weight, bias, targets, lesson)
    return loss, nll


def loss_of_scores(scores: Tensor, targets: Tensor, lesson: Lesson) -> tuple[Tensor, Tensor]:
    """Return the same as `softmax_loss` from scores [tokens, vocabulary], step by step."""
    scores, temperature = scores.float(), lesson.temperature
    nll = nn.functional.cross_entropy(scores, targets)
    divergence = nn.functional.kl_div(
        torch.log_softmax(scores / temperature, dim=-1),
        _mean_log_softmax(lesson, temperature),
        reduction="batchmean",
        log_target=True,
    )
    loss = (1 - lesson.weight) * nll + lesson.weight * temperature**2 * divergence
    return loss, nll.detach()


def _mean_log_softmax(lesson: Lesson, temperature: float) -> Tensor:
    """Return the logarithm of the mean distribution of the teachers, float32."""
    each = [
        torch.log_softmax(scores.read(slice(None), temperature, torch.float32), dim=-1)
        for scores in lesson.scores
    ]
    return torch.stack(each).logsumexp(0) - math.log(len(each))


class _SoftmaxLoss(torch.autograd.Function):
    """See `softmax_loss`."""

    @staticmethod
    def forward(
        ctx: Any,
        products: torch.dtype,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        lesson: Lesson | None,
    ) -> tuple[Tensor, Tensor]:
        count = len(features)
        wide = torch.promote_types(products, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            scores = features.to(products) @ weight.to(products).t()  # [N, V]
            offset = bias.to(wide)
            of_bias = torch.zeros_like(offset)
            divergence = torch.zeros((), dtype=wide)
            nll = torch.zeros((), dtype=wide)
            for start in range(0, count, ROWS):
                rows = slice(start, min(start + ROWS, count))
                chunk = scores[rows].to(wide).add_(offset)
                if lesson is None:
                    nats, gradient = _cross_entropy(chunk, targets[rows])
                else:
                    nats, far, gradient = _taught(chunk, targets[rows], lesson, rows)
                    divergence += far
                nll += nats
                of_bias += gradient.sum(0)
                scores[rows] = gradient
        loss = nll = nll / count
        if lesson is not None:
            loss = (1 - lesson.weight) * nll
            loss += lesson.weight * lesson.temperature**2 * divergence / count
        ctx.save_for_backward(scores, features, weight, of_bias)
        ctx.bias_type = bias.dtype
        ctx.mark_non_differentiable(nll)
        return loss.clone(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        of_scores, features, weight, of_bias = ctx.saved_tensors
        products = of_scores.dtype
        # Of the mean: divided here, where there is least to divide.
        factor = of_loss / len(of_scores)
        of_features = (of_scores @ weight.to(products)).to(features.dtype)
        of_weight = (of_scores.t() @ features.to(products)).to(weight.dtype)
        return (
            None,
            of_features.mul_(factor),
            of_weight.mul_(factor),
            (of_bias * factor).to(ctx.bias_type),
            None,
            None,
        )


def _cross_entropy(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of the negative log-likelihoods, and its gradient [rows, vocabulary]."""
    index = targets.unsqueeze(1)
    below = scores.amax(1, keepdim=True) - scores.gather(1, index)
    gradient = torch.softmax(scores, 1)
    # The greatest probability is exp(0) over the sum of all.
    nats = (below - gradient.amax(1, keepdim=True).log()).sum()
    gradient.scatter_add_(1, index, gradient.new_full(index.shape, -1.0))
    return nats, gradient


def _taught(
    scores: Tensor, targets: Tensor, lesson: Lesson, rows: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of negative log-likelihood and divergence, and the loss's gradient."""
    share, temperature = lesson.weight, lesson.temperature
    nats, gradient = _cross_entropy(scores, targets)
    likely, own = _mean_softmax(lesson, rows, scores.dtype)
    # Below: the logarithm of a softmax is its scores less that of their sum, and the sum of likely
    # is 1, so that no logarithm of every word is needed.
    if temperature == 1.0:
        # The softmax is in the gradient already, less 1 at the targets.
        index = targets.unsqueeze(1)
        far = own - _dot(likely, scores) + nats + scores.gather(1, index).sum()
        gradient.sub_(likely, alpha=share)
        gradient.scatter_add_(1, index, gradient.new_full(index.shape, share))
        return nats, far, gradient
    soft = scores / temperature
    found = torch.softmax(soft, 1)
    far = own - _dot(likely, soft) + _log_sums(soft, found)
    # T² from the loss, 1 / T from the scores' division.
    gradient.mul_(1 - share).add_(found.sub_(likely), alpha=share * temperature)
    return nats, far, gradient


def _mean_softmax(lesson: Lesson, rows: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the mean distribution of the teachers for some tokens [rows, vocabulary].

    And Σ q log q of it over rows and words, a scalar.
    """
    first, *others = (scores.read(rows, lesson.temperature, dtype) for scores in lesson.scores)
    likely = torch.softmax(first, 1)
    if not others:
        return likely, _dot(likely, first) - _log_sums(first, likely)
    for each in others:
        likely += torch.softmax(each, 1)
    likely /= len(lesson.scores)
    return likely, _dot(likely, likely.clamp_min(torch.finfo(likely.dtype).tiny).log_())


def _log_sums(scores: Tensor, softmax: Tensor) -> Tensor:
    """Return the sum over the rows of log Σ exp(scores); the greatest share is exp(0) over it."""
    return (scores.amax(1) - softmax.amax(1).log()).sum()


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Return Σ one · other, without a product of every word in memory."""
    return torch.dot(one.flatten(), other.flatten())
