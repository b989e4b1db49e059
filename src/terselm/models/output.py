"""The output layer: from the last hidden vector to a distribution over the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.models.lesson import Lesson, Scores
from terselm.models.regularization import NONE, Regularization
from terselm.models.softmax_loss import loss_of_scores, softmax_loss
from terselm.registry import Registry

if TYPE_CHECKING:
    from terselm.models.config import ModelConfig

OUTPUTS: Registry[type[OutputLayer]] = Registry("output layer", "terselm.models")

INITIAL_BOUND = 0.1


class OutputLayer(nn.Module):
    """What every output layer can do. Each kind is a file of its own in this folder.

    Attributes
    ----------
    bias : nn.Parameter
        float32, added to the scores that are computed for every token.
    """

    kind: ClassVar[str]
    bias: nn.Parameter

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Refuse a configuration that this layer cannot be built from.

        Raises
        ------
        ValueError
            With the message for the user.
        """

    @classmethod
    def build(
        cls,
        config: ModelConfig,
        vocabulary_size: int,
        embedding: LinearOp,
        counts: npt.NDArray[np.int64] | None,
    ) -> OutputLayer:
        """Return a layer with random weights.

        Parameters
        ----------
        config : ModelConfig
        vocabulary_size : int
        embedding : LinearOp
            [vocabulary, embedding], for a layer that is tied to it.
        counts : ndarray or None
            int64 [vocabulary], how often each word is in the training text.

        Raises
        ------
        UsageError
            If the configuration does not fit the vocabulary.
        """
        raise NotImplementedError

    def logits(self, hidden: Tensor) -> Tensor:
        """Return scores [..., vocabulary] for hidden [..., size]; their softmax is the result."""
        raise NotImplementedError

    def scores(self, hidden: Tensor) -> Scores:
        """Return what `logits` does, token after token, to be read in parts."""
        return Scores(self.logits(hidden).flatten(0, -2))

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Return natural-log probabilities [..., vocabulary]."""
        raise NotImplementedError

    def negative_log_likelihood(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return nats [...] for hidden [..., size] and int64 targets [...]."""
        raise NotImplementedError

    def mean_loss(
        self,
        hidden: Tensor,
        targets: Tensor,
        lesson: Lesson | None = None,
        regularization: Regularization = NONE,
    ) -> tuple[Tensor, Tensor]:
        """Return what training makes small, and the mean negative log-likelihood, in nats.

        Parameters
        ----------
        hidden : Tensor
            [time, batch, size].
        targets : Tensor
            int64 [time, batch].
        lesson : Lesson or None
            What a teacher has to say of each target; see `models.softmax_loss.softmax_loss`.
        regularization : Regularization
            Its part that acts behind the hidden vector, in training mode only.
        """
        if lesson is not None:
            return loss_of_scores(self.logits(hidden).flatten(0, -2), targets.flatten(), lesson)
        nll = self.negative_log_likelihood(hidden, targets).mean()
        return nll, nll.detach()

    def weights(self) -> dict[str, LinearOp]:
        """Return every matrix by its name in the model, in the order of the computation."""
        raise NotImplementedError

    def inputs(self) -> list[str]:
        """Return the names of the weights that are multiplied with the hidden vector."""
        raise NotImplementedError

    def tables(self) -> dict[str, Tensor]:
        """Return the integer tensors that the file stores beside the weights, by name."""
        return {}

    def load_tables(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the place of this layer's tables from what `tables` returned.

        Raises
        ------
        TerselmError
            If one is missing or its type, size or content is impossible.
        """


@OUTPUTS.register("softmax")
class FullSoftmax(OutputLayer):
    """Scores every word: softmax(weight · h + bias), or softmax(weight · (projection · h) + bias).

    Parameters
    ----------
    weight : LinearOp
        [vocabulary, size]; the embedding itself where the two are tied.
    bias : Tensor
        float32 [vocabulary].
    projection : LinearOp or None
        [size, hidden], where a tied embedding has another size than the hidden vector.
    """

    kind = "softmax"

    def __init__(self, weight: LinearOp, bias: Tensor, projection: LinearOp | None = None) -> None:
        super().__init__()
        self.projection = projection
        self.weight = weight
        self.bias = nn.Parameter(bias)

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Refuse clusters, which this layer has none of."""
        for name in ("cutoffs", "cluster_sizes"):
            if getattr(config, name):
                raise ValueError(f"{name} are for the adaptive output; set output to adaptive")

    @classmethod
    def build(
        cls,
        config: ModelConfig,
        vocabulary_size: int,
        embedding: LinearOp,
        counts: npt.NDArray[np.int64] | None,
    ) -> FullSoftmax:
        """Return a layer with random weights; see `OutputLayer.build`."""
        bias = torch.zeros(vocabulary_size)
        if not config.tied:
            weight = Dense.initialize(vocabulary_size, config.output_size, INITIAL_BOUND)
            return cls(weight, bias)
        projection = None
        if config.has_output_projection:
            bound = 1 / math.sqrt(config.output_size)
            projection = Dense.initialize(config.embedding, config.output_size, bound)
        return cls(embedding, bias, projection)

    def features(self, hidden: Tensor, regularization: Regularization = NONE) -> Tensor:
        """Return what the weight is multiplied with, [..., size], for hidden [..., hidden].

        With a regularization that acts here, hidden is [time, batch, hidden].
        """
        if self.projection is None:
            return hidden
        projected: Tensor = self.projection(hidden)
        drop = regularization if self.training else NONE
        return drop.drop(projected, drop.projection)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return unnormalized scores [..., vocabulary] for hidden [..., size]."""
        return self.weight(self.features(hidden)) + self.bias

    def scores(self, hidden: Tensor) -> Scores:
        """Return the same, token after token, with the bias apart."""
        return Scores(self.weight(self.features(hidden)).flatten(0, -2), self.bias)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Return natural-log probabilities [..., vocabulary]."""
        return torch.log_softmax(self.logits(hidden), dim=-1, dtype=torch.float32)

    def negative_log_likelihood(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return nats [...] for hidden [..., size] and int64 targets [...]."""
        logits = self.logits(hidden).flatten(0, -2)
        loss = nn.functional.cross_entropy(logits, targets.flatten(), reduction="none")
        return loss.view(targets.shape)

    def mean_loss(
        self,
        hidden: Tensor,
        targets: Tensor,
        lesson: Lesson | None = None,
        regularization: Regularization = NONE,
    ) -> tuple[Tensor, Tensor]:
        """Return loss and mean negative log-likelihood; see `OutputLayer.mean_loss`."""
        features = self.features(hidden, regularization).flatten(0, -2)
        flat = targets.flatten()
        if hidden.device.type == "cpu":
            return softmax_loss(features, self.weight.dense(), self.bias, flat, lesson)
        return loss_of_scores(self.weight(features) + self.bias, flat, lesson)

    def weights(self) -> dict[str, LinearOp]:
        """Return `output_projection`, where there is one, and `output`."""
        found = {} if self.projection is None else {"output_projection": self.projection}
        return found | {"output": self.weight}

    def inputs(self) -> list[str]:
        """Return the names of the weights that are multiplied with the hidden vector."""
        return ["output"] if self.projection is None else ["output_projection"]
