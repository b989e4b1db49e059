"""Losses that score a sample of the vocabulary, for training with very many words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from terselm.models.output import FullSoftmax
from terselm.models.regularization import NONE, Regularization

POWER = 0.75
CHUNK = 1 << 22
MASKED = -1e30
"""Stands for -inf without its NaN gradients where a whole row is masked."""


def count_tokens(ids: npt.NDArray[np.integer[Any]], vocabulary_size: int) -> npt.NDArray[np.int64]:
    """Return how often each token occurs, int64 [vocabulary_size], for ids [n]."""
    counts = np.zeros(vocabulary_size, dtype=np.int64)
    for start in range(0, len(ids), CHUNK):
        counts += np.bincount(ids[start : start + CHUNK], minlength=vocabulary_size)
    return counts


def inclusion_probabilities(
    counts: npt.NDArray[np.int64], samples: int, power: float = POWER
) -> npt.NDArray[np.float64]:
    """Return how likely each word is to be in a sample, float64 [vocabulary].

    Proportional to count^power, except that none is above one; their sum is `samples`, or the
    size of the vocabulary if that is less. Words that the text lacks count once, since the
    loss must push down their scores too.

    Parameters
    ----------
    counts : ndarray
        int64 [vocabulary].
    samples : int
        Mean size of a sample.
    power : float
        0.75 is usual (Mikolov et al. 2013, arXiv 1310.4546, section 2.2).
    """
    shares = np.maximum(counts, 1).astype(np.float64) ** power
    certain = np.zeros(len(shares), dtype=bool)
    samples = min(samples, len(shares))
    while not certain.all():
        scale = (samples - certain.sum()) / shares[~certain].sum()
        more = ~certain & (shares * scale >= 1)
        if not more.any():
            return np.where(certain, 1.0, shares * scale)
        certain |= more
    return np.ones(len(shares))


@dataclass(frozen=True)
class _Scores:
    """Scores of n targets [n] and, for each, of the sampled words `ids`, [n, samples]."""

    right: Tensor
    sampled: Tensor
    ids: Tensor


class Noise(nn.Module):
    """Draws words: each is in the sample or not, independently (Poisson sampling).

    A word is in a sample once at most, and the probabilities of that are exact. The sample's
    size varies by less than its square root.

    Parameters
    ----------
    probabilities : ndarray
        float [vocabulary], each in (0, 1]; see `inclusion_probabilities`.
    """

    log_probabilities: Tensor
    _probabilities: Tensor

    def __init__(self, probabilities: npt.NDArray[np.float64]) -> None:
        super().__init__()
        exact = torch.from_numpy(np.asarray(probabilities, dtype=np.float64))
        self.register_buffer("_probabilities", exact.float(), persistent=False)
        self.register_buffer("log_probabilities", exact.log().float(), persistent=False)

    def draw(self) -> Tensor:
        """Return the ids of a sample, int64 [n], ascending, from torch's random state."""
        # In [0, 1), so a probability of one is certain.
        chance = torch.rand(len(self._probabilities), device=self._probabilities.device)
        return (chance < self._probabilities).nonzero().squeeze(1)


def sampled_softmax(
    output: FullSoftmax,
    hidden: Tensor,
    targets: Tensor,
    noise: Noise,
    regularization: Regularization = NONE,
) -> tuple[Tensor, Tensor]:
    """Return the loss of a softmax over each target and one sample of words, and an estimate.

    With scores s and inclusion probabilities π the loss of target y is the negative log of
    exp(s_y - log π_y) / Σ exp(s_k - log π_k) over y and the sampled words k ≠ y (Jean et al.
    2015, arXiv 1412.2007, section 3; a sampled word that is the target counts once). It is the
    probability that y is the word of the text and the others are noise, so the best scores are
    those of the full softmax for any size of the sample, and with the whole vocabulary in the
    sample it is the full softmax itself.

    Parameters
    ----------
    output : FullSoftmax
        Its matrix is used by rows, in whatever form it is stored.
    hidden : Tensor
        float32 [..., size].
    targets : Tensor
        int64 [...].
    noise : Noise
    regularization : Regularization
        See `models.output.OutputLayer.mean_loss`.

    Returns
    -------
    loss : Tensor
        float32 [...], nats, to differentiate.
    nats : Tensor
        float32 [...] without a graph: the negative log-likelihood under the full softmax, with
        its sum over the vocabulary estimated from the sample (Horvitz & Thompson 1952).
    """
    found = _score(output, hidden, targets, noise, regularization)
    hits = found.ids == targets.reshape(-1, 1)  # [n, samples]
    others = (found.sampled - noise.log_probabilities[found.ids]).masked_fill(hits, MASKED)
    rest = torch.logsumexp(others, dim=1)
    right = found.right - noise.log_probabilities[targets.flatten()]
    loss = torch.logaddexp(right, rest) - right
    return loss.view(targets.shape), _estimate(found.right, rest).view(targets.shape)


def noise_contrastive(
    output: FullSoftmax,
    hidden: Tensor,
    targets: Tensor,
    noise: Noise,
    regularization: Regularization = NONE,
) -> tuple[Tensor, Tensor]:
    """Return the loss of telling targets from sampled words, and an estimate of the nats.

    Noise-contrastive estimation (Gutmann & Hyvärinen 2012; Mnih & Teh 2012, arXiv 1206.6426):
    with expected numbers π of noise words, a word comes from the text with probability
    p / (p + π), and the loss is the negative log-likelihood of what each word is. p is
    exp(score) / vocabulary: the normalizer is held fixed, so that the scores learn to be
    normalized, and starts near the true one.

    See `sampled_softmax` for the arguments and what is returned.
    """
    found = _score(output, hidden, targets, noise, regularization)
    log_size = np.log(output.weight.out_features)
    log_noise = noise.log_probabilities + log_size
    log_odds = found.sampled - log_noise[found.ids]
    right_odds = found.right - log_noise[targets.flatten()]
    softplus = nn.functional.softplus
    loss = softplus(-right_odds) + softplus(log_odds).sum(dim=1)
    with torch.no_grad():
        hits = found.ids == targets.reshape(-1, 1)
        rest = torch.logsumexp((log_odds + log_size).masked_fill(hits, MASKED), dim=1)
    return loss.view(targets.shape), _estimate(found.right, rest).view(targets.shape)


def _score(
    output: FullSoftmax,
    hidden: Tensor,
    targets: Tensor,
    noise: Noise,
    regularization: Regularization,
) -> _Scores:
    features = output.features(hidden, regularization).flatten(0, -2)  # [n, size]
    ids = noise.draw()
    # One call for both, since a form in training may round anew at each.
    both = torch.cat([targets.flatten(), ids])
    rows, bias = output.weight.rows(both), output.bias[both]
    count = len(features)
    right = (features * rows[:count]).sum(dim=1) + bias[:count]
    sampled = torch.addmm(bias[count:], features, rows[count:].T).float()
    return _Scores(right, sampled, ids)


def _estimate(right: Tensor, rest: Tensor) -> Tensor:
    right, rest = right.detach(), rest.detach()
    return torch.logaddexp(right, rest) - right
