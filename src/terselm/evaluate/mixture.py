"""How much each of several models should count in the product of their distributions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy.typing as npt
import torch
from torch import Tensor

from terselm.evaluate.stream import (
    WINDOW,
    TokenIds,
    checked_ids,
    hidden_states_in_parts,
    output_blocks,
    ready,
)
from terselm.models.language_model import LanguageModel

STEPS = 5
"""Newton steps; the loss is convex, and the third one changes nothing in three digits."""
ROUNDING = 1e-6
"""Curvature, relative to the greatest, that may be the rounding of float32."""
TOKENS = 20_000
"""Tokens that are enough for a few numbers."""


def fit_weights(
    models: Sequence[LanguageModel], ids: TokenIds, limit: int | None = TOKENS
) -> list[float]:
    """Return the weights at which the product of the models' distributions fits a text best.

    The product, each distribution to the power of its weight, is what `models.merging.merge`
    makes. Its negative log-likelihood is convex in the weights: Σ_i w_i l_i(t) is the score of
    target t, the gradient is the mean of E[l] - l(t), the second derivative that of the
    covariance of l, both under the product.

    Parameters
    ----------
    models : sequence of LanguageModel
        Of the same vocabulary; left as they are.
    ids : sequence of int
        Text that none of them learned from.
    limit : int or None
        Read so many tokens of it at most.

    Raises
    ------
    UsageError
        If the text is empty or not in the vocabulary.
    """
    tokens = checked_ids(models[0], ids[:limit], WINDOW)
    with torch.inference_mode():
        frozen = [ready(model) for model in models]
        read = [_hidden(model, tokens) for model in frozen]
        targets = read[0][1]
        weights = torch.full((len(models),), 1 / len(models), dtype=torch.float64)
        best, least = weights, float("inf")
        hidden = [states for states, _ in read]
        for _ in range(STEPS + 1):
            loss, gradient, curvature = _derivatives(frozen, hidden, targets, weights)
            if not loss < least:
                # A step that went too far, as it can where models are sure of what is wrong.
                weights = (weights + best) / 2
                continue
            best, least = weights, loss
            # Models that say the same, or nothing, leave weights open: the least change is taken.
            inverse = torch.linalg.pinv(curvature, rtol=ROUNDING, hermitian=True)
            weights = weights - inverse @ gradient
    return [float(weight) for weight in best]


def _hidden(model: LanguageModel, tokens: npt.NDArray) -> tuple[Tensor, Tensor]:
    states = hidden_states_in_parts(model, tokens, model.vocabulary.start_id)
    hidden, targets = zip(*states, strict=True)
    return torch.cat(hidden), torch.cat(targets)


def _derivatives(
    models: Sequence[LanguageModel], hidden: Sequence[Tensor], targets: Tensor, weights: Tensor
) -> tuple[float, Tensor, Tensor]:
    """Return the loss, its first [models] and second [models, models] derivatives.

    All summed over the text.
    """
    count = len(models)
    loss = 0.0
    gradient = torch.zeros(count, dtype=torch.float64)
    curvature = torch.zeros(count, count, dtype=torch.float64)
    for scores, wanted in _scores(models, hidden, targets):
        # scores: [models, n, vocabulary] log-probabilities
        together = torch.einsum("m,mnv->nv", weights.to(scores), scores).log_softmax(dim=-1)
        loss -= float(together.gather(1, wanted.unsqueeze(1)).double().sum())
        product = together.exp()
        mean = torch.einsum("nv,mnv->mn", product, scores)
        found = scores.gather(2, wanted.expand(count, -1).unsqueeze(2)).squeeze(2)  # [models, n]
        gradient += (mean - found).double().sum(dim=1).cpu()
        about = scores - mean.unsqueeze(2)
        curvature += torch.einsum("anv,bnv->ab", about * product, about).double().cpu()
    return loss, gradient, curvature


def _scores(
    models: Sequence[LanguageModel], hidden: Sequence[Tensor], targets: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    blocks = [output_blocks(each, targets, len(models[0].vocabulary)) for each in hidden]
    for parts in zip(*blocks, strict=True):
        scores = [
            model.output.log_probabilities(h) for model, (h, _) in zip(models, parts, strict=True)
        ]
        yield torch.stack(scores), parts[0][1]
