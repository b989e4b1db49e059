"""What a step of training makes small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from terselm.cells.base import State
from terselm.errors import UsageError
from terselm.models.language_model import Hidden, LanguageModel
from terselm.models.output import FullSoftmax
from terselm.models.regularization import Regularization
from terselm.models.sampling import (
    Noise,
    count_tokens,
    inclusion_probabilities,
    noise_contrastive,
    sampled_softmax,
)
from terselm.train.config import TrainingConfig
from terselm.train.distillation import Distillation
from terselm.train.precision import mixed

SampledLoss = Callable[[FullSoftmax, Tensor, Tensor, Noise, Regularization], tuple[Tensor, Tensor]]

SAMPLED: dict[str, SampledLoss] = {
    "sampled": sampled_softmax,
    "nce": noise_contrastive,
}


class Objective(nn.Module):
    """The loss of one window, as a module, so that it can be wrapped for several processes.

    loss + alpha · mean(output²) + beta · mean(diff(raw)²), with the mean nll, its mixture with
    a teacher, or a sampled loss in its place
    (activation and temporal activation regularization, Merity et al. 2017, arXiv 1708.01009).

    Parameters
    ----------
    model : LanguageModel
    config : TrainingConfig
    distillation : Distillation or None
    noise : Noise or None
        What a sampled loss draws words from; see `make_noise`.

    Raises
    ------
    UsageError
        If a sampled loss meets a teacher, or an output layer that does not score every word, or
        there is dropout behind an output projection and no such projection.
    """

    def __init__(
        self,
        model: LanguageModel,
        config: TrainingConfig,
        distillation: Distillation | None = None,
        noise: Noise | None = None,
    ) -> None:
        super().__init__()
        if (noise is None) != (config.loss == "full"):
            raise ValueError("sampled losses, and only they, need noise")
        if noise is not None and distillation is not None:
            raise UsageError(
                f"loss: {config.loss} scores a sample of words, a teacher needs them all; use full"
            )
        if noise is not None and not isinstance(model.output, FullSoftmax):
            raise UsageError(
                f"loss: {config.loss} is for an output that scores every word, and this one is "
                f"{model.output.kind}; use full"
            )
        if config.projection_dropout and not model.config.has_output_projection:
            raise UsageError(
                "projection_dropout: this model has no output projection (it has one where "
                "embedding and output are tied and the last layer has another width); leave it out"
            )
        self.model = model
        # Not a module, so the teacher's parameters stay out of this one's.
        self.distillation = distillation
        self.noise = noise
        self._loss = SAMPLED.get(config.loss)
        self._precision = config.precision
        self._regularization = config.regularization()
        self._alpha = config.activation_regularization
        self._beta = config.temporal_activation_regularization

    def forward(
        self, tokens: Tensor, targets: Tensor, state: list[State]
    ) -> tuple[Tensor, Tensor, list[State]]:
        """Run one window.

        Parameters
        ----------
        tokens, targets : Tensor
            int64 [time, batch].
        state : list of State
            The state before, without a graph.

        Returns
        -------
        loss : Tensor
            Scalar, what to differentiate.
        nll : Tensor
            Scalar, the mean negative log-likelihood of a token in nats; an estimate where the
            loss is a sampled one.
        state : list of State
            The state after, cut from the graph.
        """
        with mixed(self._precision, tokens.device):
            hidden = in_float32(self.model.hidden(tokens, state, self._regularization))
            loss, nll = self._losses(tokens, targets, hidden)
        if self._alpha:
            loss = loss + self._alpha * hidden.output.square().mean()
        if self._beta and len(tokens) > 1:
            loss = loss + self._beta * (hidden.raw[1:] - hidden.raw[:-1]).square().mean()
        return loss, nll.detach(), detached(hidden.state)

    def _losses(self, tokens: Tensor, targets: Tensor, hidden: Hidden) -> tuple[Tensor, Tensor]:
        output = self.model.output
        if self._loss is not None and self.noise is not None and isinstance(output, FullSoftmax):
            loss, nll = self._loss(output, hidden.output, targets, self.noise, self._regularization)
            return loss.mean(), nll.mean()
        if self.distillation is None:
            return output.mean_loss(hidden.output, targets, None, self._regularization)
        return self.distillation.loss(tokens, targets, output, hidden, self._regularization)


def make_noise(
    config: TrainingConfig, ids: npt.NDArray[np.integer[Any]], vocabulary_size: int
) -> Noise | None:
    """Return what the loss draws words from; None where it scores them all.

    Parameters
    ----------
    config : TrainingConfig
    ids : ndarray
        The training text, integers [tokens].
    vocabulary_size : int
    """
    if config.loss == "full":
        return None
    return Noise(inclusion_probabilities(count_tokens(ids, vocabulary_size), config.samples))


def detached(state: list[State]) -> list[State]:
    """Return the state without its graph: back-propagation stops at the window's start.

    Copied, since parts may be views of what all steps of a window made.
    """
    return [tuple(part.detach().clone() for part in layer) for layer in state]


def in_float32(hidden: Hidden) -> Hidden:
    """Return the same in float32, from whatever it was computed in."""
    state = [tuple(part.float() for part in layer) for layer in hidden.state]
    return Hidden(hidden.output.float(), hidden.raw.float(), state)
