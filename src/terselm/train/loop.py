"""Training a language model: truncated back-propagation through time, kept resumable."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from terselm.errors import TerselmError
from terselm.models.language_model import LanguageModel
from terselm.models.teacher import Teacher
from terselm.train.checkpoint import RunFolder, fingerprint_of
from terselm.train.config import TrainingConfig
from terselm.train.distillation import Distillation, mode_kept
from terselm.train.distributed import Workers, start_workers
from terselm.train.interruption import StopRequest
from terselm.train.memory import keep_large_buffers
from terselm.train.metrics import EpochRecord, Observer, Stopped
from terselm.train.precision import resolved
from terselm.train.run import Run, trainable_parameters

Validate = Callable[[LanguageModel], float]


@dataclass(frozen=True)
class FitResult:
    """What training made.

    Attributes
    ----------
    model : LanguageModel
        The best by validation perplexity (without validation, or with `keep` "last": that of
        the last step), with averaged weights where averaging was asked for, settled, in
        evaluation mode. It is the object that was handed in.
    best_epoch : int
        The epoch it is from, counted when it ended or was cut off; 0 with `keep` "last" where the
        first epoch did not end.
    valid_perplexity : float or None
        Of `model` as its file will hold it; None without validation.
    history : list of EpochRecord
        One an epoch, those before a resume included.
    stopped : {"epochs", "early", "time", "interrupted"}
        Why training ended.
    tokens_per_second : float
        Of training alone, over all processes.
    config : TrainingConfig
        The settings, with what "auto" came to.
    """

    model: LanguageModel
    best_epoch: int
    valid_perplexity: float | None
    history: list[EpochRecord]
    stopped: Stopped
    tokens_per_second: float
    config: TrainingConfig


def fit(
    model: LanguageModel,
    train_ids: np.ndarray,
    config: TrainingConfig,
    *,
    validate: Validate | None = None,
    validation_ids: np.ndarray | None = None,
    teacher: Teacher | None = None,
    folder: Path | None = None,
    lessons: Path | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    device: str = "auto",
) -> FitResult:
    """Train `model` in place.

    Only float parameters that require gradients change. torch's random state is as before when
    this returns. Ctrl-C or SIGTERM stop after the current step, with a checkpoint; a second
    one stops at once.

    Parameters
    ----------
    model : LanguageModel
        It is moved to the device, changed, and returned with the weights to keep.
    train_ids : np.ndarray
        Token ids of the training text, integers [tokens], each below the vocabulary's size.
    config : TrainingConfig
    validate : callable or None
        Returns the validation perplexity of the model it is given (in evaluation mode). It
        runs in the main process after each epoch.
    validation_ids : np.ndarray or None
        Token ids that `validate` reads, where a run that is resumed shall be refused if they
        are others: perplexities of two texts cannot be compared.
    teacher : LanguageModel, sequence of LanguageModel, or None
        Where given, the loss takes in its distribution, of several the mean (see
        `train.distillation`).
    folder : Path or None
        Where checkpoint and metrics go; None keeps nothing on disk.
    lessons : Path or None
        A folder on the same disk in which runs with the same teachers and text share the samples
        of what those say (`distillation_samples`): the first run leaves them there.
    resume : bool
        Go on with the run in `folder`, to the very weights that it would have had without the
        stop (bit for bit on CPU); where there is none yet, begin it.
    observer : Observer or None
        Told of the progress, in the main process.
    device : {"auto", "cpu", "cuda"}

    Returns
    -------
    FitResult

    Raises
    ------
    UsageError
        If the settings do not fit the text, the teacher, the processes, or the run in `folder`,
        or `folder` holds an unfinished run and `resume` is False, or another process trains there.
    TerselmError
        If the text is too short for the batch, the loss is not finite, a file cannot be written,
        or the checkpoint is damaged.
    """
    keep_large_buffers()
    workers = start_workers(device)
    parameters = trainable_parameters(model)
    if not parameters:
        raise TerselmError("the model has no parameter that training could change")
    model.vocabulary.check_ids(train_ids)
    # What is meant by "auto" must not change where a run goes on.
    precision = resolved(config.precision, workers.device)
    config = config.model_copy(update={"precision": precision})
    run_folder = RunFolder(folder, lessons)
    fingerprint = fingerprint_of(config, model, train_ids, validation_ids, teacher, workers.world)
    cuda = [workers.device] if workers.device.type == "cuda" else []
    with (
        closing(run_folder),
        torch.random.fork_rng(cuda),
        StopRequest() as stop,
        mode_kept(teacher),
        ExitStack() as opened,
    ):
        stored = workers.on_main(lambda: run_folder.open(fingerprint, resume))
        torch.manual_seed(config.seed + workers.rank)
        model.to(workers.device)
        distillation = None if teacher is None else Distillation(teacher, model, config)
        if distillation is not None:
            opened.callback(distillation.close)
        run = Run(
            model,
            train_ids,
            config,
            workers=workers,
            distillation=distillation,
            folder=run_folder,
            fingerprint=fingerprint,
            stored=stored,
            observer=observer if workers.is_main else None,
        )
        return _Trainer(run, workers, validate, stop).train()


class _Trainer:
    """Decides what a run does next: train, validate, stop."""

    def __init__(
        self, run: Run, workers: Workers, validate: Validate | None, stop: StopRequest
    ) -> None:
        self._run = run
        self._workers = workers
        self._validate = validate
        self._stop = stop

    def train(self) -> FitResult:
        """Run to the end, whatever ends it."""
        run = self._run
        stopped: Stopped | None = None
        run.start()
        try:
            stopped = self._train()
            if stopped == "time" and run.has_unjudged_steps:
                self._judge(complete=False)
            return self._result(stopped)
        finally:
            run.model.zero_grad(set_to_none=True)
            run.end(stopped)

    def _train(self) -> Stopped:
        run = self._run
        stopped = self._why_no_more_epochs()
        while stopped is None:
            cut = run.train_epoch(self._stop)
            if cut is not None:
                run.save(finished=cut if cut == "time" else None)
                return cut
            self._judge(complete=True)
            stopped = self._why_no_more_epochs()
            run.save(finished=stopped)
        return stopped

    def _why_no_more_epochs(self) -> Stopped | None:
        run, config = self._run, self._run.config
        if run.epochs_done >= config.epochs:
            return "epochs"
        last_gain = max(run.best_epoch, run.optimizer.switched_after)
        if (
            self._validate is not None
            and config.early_stopping is not None
            and run.epochs_done - last_gain >= config.early_stopping
        ):
            return "early"
        return None

    def _judge(self, complete: bool) -> None:
        """Validate the weights as they are, averaged where asked for, and note the result."""
        run = self._run
        with run.average.swapped_in():
            run.end_epoch(self._perplexity(), complete)

    def _perplexity(self) -> float | None:
        """Return the validation perplexity of the current weights, the same in every process."""
        validate, model = self._validate, self._run.model
        if validate is None:
            return None
        model.eval()
        return self._workers.on_main(lambda: float(validate(model)))

    def _result(self, stopped: Stopped) -> FitResult:
        run, model = self._run, self._run.model
        with torch.no_grad():
            perplexity = run.put_in_kept_weights()
            before = [parameter.clone() for parameter in run.parameters.values()]
            model.settle()
            changed = any(
                not torch.equal(old, new)
                for old, new in zip(before, run.parameters.values(), strict=True)
            )
        model.eval()
        if changed or perplexity is None:
            perplexity = self._perplexity()
        return FitResult(
            model=model,
            best_epoch=run.best_epoch if run.keeps_best else run.epochs_done,
            valid_perplexity=perplexity,
            history=run.history,
            stopped=stopped,
            tokens_per_second=run.tokens_per_second(),
            config=run.config,
        )
