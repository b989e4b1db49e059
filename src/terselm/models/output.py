"""The output layer: from the last hidden vector to a distribution over the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from terselm.linear.base import LinearOp


class FullSoftmax(nn.Module):
    """Scores every word: softmax(weight · h + bias).

    Parameters
    ----------
    weight : LinearOp
        [vocabulary, size]; the embedding itself where the two are tied.
    bias : Tensor
        float32 [vocabulary].
    """

    def __init__(self, weight: LinearOp, bias: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.bias = nn.Parameter(bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return unnormalized scores [..., vocabulary] for hidden [..., size]."""
        return self.weight(hidden) + self.bias

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Return natural-log probabilities [..., vocabulary]."""
        return torch.log_softmax(self.logits(hidden), dim=-1)

    def negative_log_likelihood(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return nats [...] for hidden [..., size] and int64 targets [...]."""
        logits = self.logits(hidden).flatten(0, -2)
        loss = nn.functional.cross_entropy(logits, targets.flatten(), reduction="none")
        return loss.view(targets.shape)
