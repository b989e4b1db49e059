"""The dropouts of a recurrent language model, applied inside its forward pass."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from terselm.cells.dropout import dropout, keep_mask


@dataclass(frozen=True)
class Regularization:
    """Dropout probabilities, each in [0, 1).

    Attributes
    ----------
    input : float
        On the word vectors.
    hidden : float
        On the output of every layer but the last.
    output : float
        On the output of the last layer.
    embedding : float
        Probability that a word loses its whole vector for a window (Gal & Ghahramani 2016).
    weight_drop : float
        Probability that a recurrent weight is left out for a window (Merity et al. 2018).
    locked : bool
        One mask for all steps of a window (variational dropout) instead of a new one a step.
    projection : float
        On what the output projection makes of the last layer's output: fewer numbers, each a sum
        over all of that, which `output` therefore hardly disturbs.
    """

    input: float = 0.0
    hidden: float = 0.0
    output: float = 0.0
    embedding: float = 0.0
    weight_drop: float = 0.0
    locked: bool = False
    projection: float = 0.0

    def drop(self, x: Tensor, probability: float) -> Tensor:
        """Return x [time, batch, size] with values left out and the rest scaled up."""
        if probability == 0.0:
            return x
        if not self.locked:
            return dropout(x, probability)
        return x * keep_mask((1, *x.shape[1:]), probability, x)

    def drop_words(self, x: Tensor, tokens: Tensor, vocabulary_size: int) -> Tensor:
        """Return word vectors x [time, batch, size] with whole words left out."""
        if self.embedding == 0.0:
            return x
        mask = keep_mask((vocabulary_size,), self.embedding, x)
        return x * mask[tokens].unsqueeze(-1)


NONE = Regularization()
