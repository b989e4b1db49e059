"""What a step of training makes small."""

from __future__ import annotations

from torch import Tensor, nn

from terselm.cells.base import State
from terselm.models.language_model import LanguageModel
from terselm.train.config import TrainingConfig
from terselm.train.distillation import Distillation


class Objective(nn.Module):
    """The loss of one window, as a module, so that it can be wrapped for several processes.

    mean nll (or its mixture with a teacher) + alpha · mean(output²) + beta · mean(diff(raw)²)
    (activation and temporal activation regularization, Merity et al. 2017, arXiv 1708.01009).

    Parameters
    ----------
    model : LanguageModel
    config : TrainingConfig
    distillation : Distillation or None
    """

    def __init__(
        self,
        model: LanguageModel,
        config: TrainingConfig,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        # Not a module, so the teacher's parameters stay out of this one's.
        self.distillation = distillation
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
            Scalar, the mean negative log-likelihood of a token in nats.
        state : list of State
            The state after, cut from the graph.
        """
        hidden = self.model.hidden(tokens, state, self._regularization)
        output = self.model.output
        if self.distillation is None:
            nll = output.negative_log_likelihood(hidden.output, targets).mean()
            loss = nll
        else:
            logits = output.logits(hidden.output)
            loss, nll = self.distillation.loss(tokens, targets, logits)
        if self._alpha:
            loss = loss + self._alpha * hidden.output.square().mean()
        if self._beta and len(tokens) > 1:
            loss = loss + self._beta * (hidden.raw[1:] - hidden.raw[:-1]).square().mean()
        return loss, nll.detach(), detached(hidden.state)


def detached(state: list[State]) -> list[State]:
    """Return the state without its graph: back-propagation stops at the window's start."""
    return [tuple(part.detach() for part in layer) for layer in state]
