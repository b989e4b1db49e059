"""Softmax and cross-entropy over many words with little memory traffic, for training on CPU."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from terselm.cells.products import product_type
from terselm.models.lesson import ROWS, Lesson, Samples, Scores, mean_softmax

LEAST = 1e-30  # far from where the logarithm of a float32 probability loses digits


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
        With teachers the loss is (1 - w) · nll + w · T² · KL(their mean ‖ model) at temperature T;
        with samples of what they say, their cross-entropy takes the divergence's place. In
        expectation that is the same but for a constant, the teachers' entropy.

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


def loss_of_scores(
    scores: Tensor, targets: Tensor, lesson: Lesson | None = None
) -> tuple[Tensor, Tensor]:
    """Return the same as `softmax_loss` from scores [tokens, vocabulary], step by step."""
    if lesson is None:
        nll = nn.functional.cross_entropy(scores, targets)
        return nll, nll.detach()
    scores, temperature = scores.float(), lesson.temperature
    nll = nn.functional.cross_entropy(scores, targets)
    found = torch.log_softmax(scores / temperature, dim=-1)
    if isinstance(lesson.said, Samples):
        far = -found.gather(1, lesson.said.words).mean()
    else:
        said = _mean_log_softmax(lesson.said, temperature)
        far = nn.functional.kl_div(found, said, reduction="batchmean", log_target=True)
    loss = (1 - lesson.weight) * nll + lesson.weight * temperature**2 * far
    return loss, nll.detach()


def _mean_log_softmax(teachers: tuple[Scores, ...], temperature: float) -> Tensor:
    """Return the logarithm of the mean distribution of the teachers, float32."""
    each = [
        torch.log_softmax(scores.read(slice(None), temperature, torch.float32), dim=-1)
        for scores in teachers
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
            space = torch.empty_like(scores[:ROWS], dtype=wide)
            for start in range(0, count, ROWS):
                rows = slice(start, min(start + ROWS, count))
                chunk = torch.add(scores[rows], offset, out=space[: rows.stop - start])
                # The gradient takes the scores' place, at once where that is of its type.
                gradient = scores[rows] if scores.dtype == wide else torch.empty_like(chunk)
                if lesson is None:
                    nats = _cross_entropy(chunk, targets[rows], gradient)
                else:
                    nats, far = _taught(chunk, targets[rows], lesson, rows, gradient)
                    divergence += far
                nll += nats
                of_bias += gradient.sum(0)
                if scores.dtype != wide:
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


def _cross_entropy(scores: Tensor, targets: Tensor, gradient: Tensor) -> Tensor:
    """Write its gradient [rows, vocabulary]; return the sum of the negative log-likelihoods."""
    index = targets.unsqueeze(1)
    torch.softmax(scores, 1, out=gradient)
    chosen = gradient.gather(1, index)
    if bool((chosen > LEAST).all()):
        nats = -chosen.log().sum()
    else:
        # Where it is nearly 0; the greatest of a row is exp(0) over the row's sum.
        below = scores.amax(1, keepdim=True) - scores.gather(1, index)
        nats = (below - gradient.amax(1, keepdim=True).log()).sum()
    gradient.scatter_add_(1, index, gradient.new_full(index.shape, -1.0))
    return nats


def _taught(
    scores: Tensor, targets: Tensor, lesson: Lesson, rows: slice, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Write the loss's gradient; return the sums of nll and of how far the teachers are."""
    share, temperature = lesson.weight, lesson.temperature
    nats = _cross_entropy(scores, targets, gradient)
    # Below: the logarithm of a softmax is its scores less that of their sum, so that no logarithm
    # of every word is needed.
    if temperature == 1.0:
        # The softmax is in the gradient already, less 1 at the targets.
        index = targets.unsqueeze(1)
        soft, log_sums = scores, nats + scores.gather(1, index).sum()
        gradient.scatter_add_(1, index, gradient.new_full(index.shape, share))
    else:
        # T² from the loss, 1 / T from the scores' division.
        soft = scores / temperature
        found = torch.softmax(soft, 1)
        log_sums = _log_sums(soft, found)
        gradient.mul_(1 - share).add_(found, alpha=share * temperature)
    far = _less_what_they_say(gradient, soft, lesson, rows)
    return nats, far + log_sums


def _less_what_they_say(gradient: Tensor, soft: Tensor, lesson: Lesson, rows: slice) -> Tensor:
    """Take the teachers' distribution, times what it counts, off the gradient.

    Returns
    -------
    Tensor
        The sum of how far the teachers are, less the logarithms of the sums of exp(soft).
    """
    counts = lesson.weight * lesson.temperature
    if isinstance(lesson.said, Samples):
        words = lesson.said.words[rows]
        number = words.shape[1]
        gradient.scatter_add_(1, words, gradient.new_full(words.shape, -counts / number))
        return soft.gather(1, words).sum() / -number
    likely, own = _mean_softmax(lesson.said, rows, lesson.temperature, soft.dtype)
    gradient.sub_(likely, alpha=counts)
    return own - _dot(likely, soft)


def _mean_softmax(
    teachers: tuple[Scores, ...], rows: slice, temperature: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the mean distribution of the teachers for some tokens [rows, vocabulary].

    And Σ q log q of it over rows and words, a scalar.
    """
    if len(teachers) == 1:
        scores = teachers[0].read(rows, temperature, dtype)
        likely = torch.softmax(scores, 1)
        return likely, _dot(likely, scores) - _log_sums(scores, likely)
    likely = mean_softmax(teachers, rows, temperature, dtype)
    return likely, _dot(likely, likely.clamp_min(torch.finfo(likely.dtype).tiny).log_())


def _log_sums(scores: Tensor, softmax: Tensor) -> Tensor:
    """Return the sum over the rows of log Σ exp(scores); the greatest share is exp(0) over it."""
    return (scores.amax(1) - softmax.amax(1).log()).sum()


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Return Σ one · other, without a product of every word in memory."""
    return torch.dot(one.flatten(), other.flatten())
