"""Learning from teachers: the loss takes in how far the student is from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from terselm.cells.base import State
from terselm.errors import UsageError
from terselm.models.language_model import Hidden, LanguageModel
from terselm.models.lesson import Lesson, Samples, Scores, draw
from terselm.models.output import OutputLayer
from terselm.models.regularization import NONE, Regularization
from terselm.models.teacher import Teacher, teachers_of
from terselm.train.config import TrainingConfig
from terselm.train.sample_file import SampleFile, take_shared


@dataclass(frozen=True)
class Place:
    """Where samples of a text are kept.

    Attributes
    ----------
    path : Path or None
        Those of this run; None: in a temporary file.
    shared : Path or None
        Whence they are taken if a run with the same teachers and text has left them there, and
        where they are left otherwise. None: nowhere.
    streams, steps : int
        Of the text, as this process reads it.
    """

    path: Path | None
    streams: int
    steps: int
    shared: Path | None = None


class Distillation:
    """Teachers that read the same windows as the student, each with a state of its own.

    The loss becomes (1 - w) · nll + w · T² · KL(teachers ‖ student) with all distributions at
    temperature T, those of several teachers averaged (Hinton et al. 2015, arXiv 1503.02531); T²
    keeps the size of the gradient. To it comes h · mean((s - t)²) / mean(t²), where s and t are
    what the last layers of student and teacher put out, before dropout (hints of Romero et al.
    2015, arXiv 1412.6550, between layers of one width, so without a regressor; Sun et al. 2019,
    arXiv 1908.09355); of several teachers the mean of these terms.

    With `distillation_samples` the student learns from so many words, which are drawn from the
    teachers' distribution in the first epoch and kept, since the teachers say the same of a text
    in every epoch; they read it once.

    Parameters
    ----------
    teacher : LanguageModel or sequence of LanguageModel
        Moved to the student's device and put in evaluation mode; their weights stay.
    student : LanguageModel
    config : TrainingConfig
        Gives `distillation_weight`, `distillation_temperature`, `distillation_hidden` and
        `distillation_samples`.

    Raises
    ------
    UsageError
        If there is no teacher, or one is the student itself or has another vocabulary, or its
        last layer has another width and `distillation_hidden` is not 0.
    """

    def __init__(self, teacher: Teacher, student: LanguageModel, config: TrainingConfig) -> None:
        teachers = teachers_of(teacher)
        if not teachers:
            raise UsageError("distillation without a teacher; give one")
        for each in teachers:
            _check(each, student, config)
        self.teachers = [each.to(student.device).eval() for each in teachers]
        self.weight = config.distillation_weight
        self.temperature = config.distillation_temperature
        self.hidden_weight = config.distillation_hidden
        self._samples = config.distillation_samples
        self._kept: SampleFile | None = None
        self._shared: Path | None = None
        self._steps = self._position = 0
        # Of each teacher, after the last window.
        self._states: list[list[State]] | None = None

    def open(self, place: Place, stored: Mapping[str, Any] | None) -> None:
        """Make ready for a run.

        Parameters
        ----------
        place : Place
        stored : mapping or None
            What `training_state` returned in the run to go on with, on the teachers' device.

        Raises
        ------
        TerselmError
            If the samples of that run are not there, or cannot be kept.
        """
        known = 0
        if stored is not None:
            self._states, self._position = stored["states"], stored["position"]
            known = stored["known"]
        if self._samples is None or not self.weight:
            return
        if place.path is not None and place.shared is not None:
            self._shared = place.shared
            if stored is None and take_shared(place.shared, place.path):
                known = place.steps
        words = len(self.teachers[0].vocabulary)
        self._steps = place.steps
        self._kept = SampleFile(place.path, place.streams, self._samples, words, known)

    def close(self) -> None:
        """Close what was opened."""
        if self._kept is not None:
            self._kept.close()

    def start_text(self) -> None:
        """Read on from the start of the text."""
        self._states, self._position = None, 0

    def training_state(self) -> dict[str, Any]:
        """Return what a run that goes on must know, for a checkpoint."""
        if self._kept is not None:
            self._kept.flush()
        return {
            "states": self._states,
            "position": self._position,
            "known": 0 if self._kept is None else self._kept.known,
        }

    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        output: OutputLayer,
        hidden: Hidden,
        regularization: Regularization = NONE,
    ) -> tuple[Tensor, Tensor]:
        """Return (the whole loss, the mean negative log-likelihood), scalars, in nats.

        Parameters
        ----------
        tokens, targets : Tensor
            int64 [time, batch].
        output : OutputLayer
            The student's.
        hidden : Hidden
            What the student's layers make of the tokens.
        regularization : Regularization
            Of the student; see `models.output.OutputLayer.mean_loss`.
        """
        if self.weight == 0.0 and self.hidden_weight == 0.0:
            return output.mean_loss(hidden.output, targets, None, regularization)
        if self._kept is not None:
            sampled = Lesson(self._sampled(tokens, self._kept), self.weight, self.temperature)
            return output.mean_loss(hidden.output, targets, sampled, regularization)
        taught = self._teach(tokens)
        lesson = None
        if self.weight:
            lesson = Lesson(self._scores(taught), self.weight, self.temperature)
        loss, nll = output.mean_loss(hidden.output, targets, lesson, regularization)
        if self.hidden_weight:
            far = [relative_square_error(hidden.raw, each.raw) for each in taught]
            loss = loss + self.hidden_weight * torch.stack(far).mean()
        return loss, nll

    def _sampled(self, tokens: Tensor, kept: SampleFile) -> Samples:
        """Return the samples of a window: those kept, or drawn now and kept."""
        steps, streams = tokens.shape
        start, self._position = self._position, self._position + steps
        if start < kept.known:
            words = torch.from_numpy(kept.read(start, steps)).to(tokens.device)
            return Samples(words.flatten(0, 1))
        # The same for every run, seed and cut, so that runs may share them.
        offsets = np.concatenate(
            [
                np.random.default_rng(step).random(streams, np.float32)
                for step in range(start, start + steps)
            ]
        )
        there = torch.from_numpy(offsets).to(tokens.device)
        drawn = draw(self._scores(self._teach(tokens)), self.temperature, kept.samples, there)
        kept.append(drawn.words.view(steps, streams, -1).cpu().numpy())
        if self._shared is not None and kept.known == self._steps:
            kept.share(self._shared)
        return drawn

    @torch.no_grad()
    def _teach(self, tokens: Tensor) -> list[Hidden]:
        """Return what the layers of each teacher make of the window; the states move on."""
        if self._states is None:
            self._states = [each.initial_state(tokens.shape[1]) for each in self.teachers]
        taught = [
            each.hidden(tokens, state)
            for each, state in zip(self.teachers, self._states, strict=True)
        ]
        self._states = [hidden.state for hidden in taught]
        return taught

    @torch.no_grad()
    def _scores(self, taught: Sequence[Hidden]) -> tuple[Scores, ...]:
        return tuple(
            each.output.scores(hidden.output)
            for each, hidden in zip(self.teachers, taught, strict=True)
        )


def _check(teacher: LanguageModel, student: LanguageModel, config: TrainingConfig) -> None:
    if teacher is student:
        raise UsageError("the teacher is the model itself; give a copy (model.clone())")
    student.vocabulary.check_same(teacher.vocabulary, "teacher and model need the same vocabulary")
    widths = [made.layers()[-1].output_size for made in (student, teacher)]
    if config.distillation_hidden and widths[0] != widths[1]:
        raise UsageError(
            f"the last layer puts out {widths[0]} numbers a step, the teacher's {widths[1]}; "
            "distillation from hidden states needs the same width: "
            "put it before the step that changed the width, or leave it out"
        )


@contextmanager
def mode_kept(teacher: Teacher | None) -> Iterator[None]:
    """Put teachers back into the modes in which they came."""
    training = [(each, each.training) for each in teachers_of(teacher)]
    try:
        yield
    finally:
        for each, mode in training:
            each.train(mode)


def relative_square_error(found: Tensor, expected: Tensor) -> Tensor:
    """Return mean((found - expected)²) / mean(expected²), a scalar without a unit."""
    expected = expected.float()  # bfloat16's least number of use is larger than some outputs
    size = expected.square().mean().clamp_min(torch.finfo(expected.dtype).eps)
    return (found - expected).square().mean() / size
