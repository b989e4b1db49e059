"""Learning from a teacher: the loss takes in how far the student's distribution is from it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from terselm.cells.base import State
from terselm.errors import UsageError
from terselm.models.language_model import LanguageModel
from terselm.train.config import TrainingConfig


class Distillation:
    """A teacher that reads the same windows as the student, with a state of its own.

    The loss becomes (1 - w) · nll + w · T² · KL(teacher ‖ student) with both distributions at
    temperature T (Hinton et al. 2015, arXiv 1503.02531); T² keeps the size of the gradient.

    Parameters
    ----------
    teacher : LanguageModel
        It is moved to the student's device and put in evaluation mode; its weights stay.
    student : LanguageModel
    config : TrainingConfig
        Gives `distillation_weight` and `distillation_temperature`.

    Attributes
    ----------
    state : list of State
        The teacher's state after the last window; set it to None where a text starts.

    Raises
    ------
    UsageError
        If the teacher is the student itself or has another vocabulary.
    """

    def __init__(
        self, teacher: LanguageModel, student: LanguageModel, config: TrainingConfig
    ) -> None:
        if teacher is student:
            raise UsageError("the teacher is the model itself; give a copy (model.clone())")
        if len(teacher.vocabulary) != len(student.vocabulary):
            raise UsageError(
                f"the teacher has {len(teacher.vocabulary)} words, "
                f"the model {len(student.vocabulary)}; both need the same vocabulary"
            )
        self.teacher = teacher.to(student.device).eval()
        self.weight = config.distillation_weight
        self.temperature = config.distillation_temperature
        self.state: list[State] | None = None

    def loss(self, tokens: Tensor, targets: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return (the mixed loss, the mean negative log-likelihood), scalars, in nats.

        Parameters
        ----------
        tokens, targets : Tensor
            int64 [time, batch].
        logits : Tensor
            float32 [time, batch, vocabulary], the student's.
        """
        flat = logits.flatten(0, -2)
        nll = nn.functional.cross_entropy(flat, targets.flatten())
        if self.weight == 0.0:
            return nll, nll
        expected = self._teach(tokens).flatten(0, -2)
        found = torch.log_softmax(flat / self.temperature, dim=-1)
        divergence = nn.functional.kl_div(found, expected, reduction="batchmean", log_target=True)
        mixed = (1 - self.weight) * nll + self.weight * self.temperature**2 * divergence
        return mixed, nll

    def _teach(self, tokens: Tensor) -> Tensor:
        """Return the teacher's log-probabilities [time, batch, vocabulary]; its state moves on."""
        with torch.no_grad():
            if self.state is None:
                self.state = self.teacher.initial_state(tokens.shape[1])
            logits, self.state = self.teacher(tokens, self.state)
            return torch.log_softmax(logits / self.temperature, dim=-1)
