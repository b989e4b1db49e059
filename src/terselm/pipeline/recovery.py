"""The training that `recover` steps ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from terselm.compress.base import Recovery, RecoverySettings
from terselm.models.language_model import LanguageModel
from terselm.models.teacher import Teacher
from terselm.text.base import Vocabulary
from terselm.train.config import make_training_config
from terselm.train.loop import fit
from terselm.train.metrics import Observer

Tokens = npt.NDArray[np.integer[Any]]


def make_recovery(
    training_text: Callable[[Vocabulary], Tokens],
    validate: Callable[[LanguageModel], float],
    seed: int,
    *,
    remark: Callable[[str], None] | None = None,
    observer: Callable[[], Observer] | None = None,
    folder: Callable[[], Path] | None = None,
    lessons: Path | None = None,
    validation_text: Callable[[Vocabulary], Tokens] | None = None,
) -> Recovery:
    """Return the callable that trains a compressed model further.

    Where the settings keep the best model, the one it starts from counts too, so that such a
    recovery never makes a model worse by `validate`. Where they keep the last, that is returned,
    however good the others were.

    Parameters
    ----------
    training_text : callable
        Returns the training text in the tokens of a vocabulary.
    validate : callable
        How good a model is; less is better.
    seed : int
    remark : callable, optional
        Told where the model from before is kept.
    observer : callable, optional
        Returns the observer of a training.
    folder : callable, optional
        Returns where the checkpoint of the next training goes; if it holds one, that training
        goes on from there.
    lessons : Path, optional
        Where trainings share samples of what teachers say.
    validation_text : callable, optional
        Returns what `validate` reads; a training does not go on if it is another text.
    """

    def recover(
        model: LanguageModel, settings: RecoverySettings, teacher: Teacher | None
    ) -> LanguageModel:
        ids = training_text(model.vocabulary)
        # Below one epoch the schedule runs over the part of the text that is read.
        tokens = len(ids) if settings.epochs >= 1 else int(settings.epochs * len(ids))
        start = (model.clone(), validate(model)) if settings.keep == "best" else None
        result = fit(
            model,
            ids[:tokens],
            make_training_config(_values(settings, seed)),
            validate=validate,
            validation_ids=None if validation_text is None else validation_text(model.vocabulary),
            teacher=teacher,
            folder=None if folder is None else folder(),
            lessons=lessons,
            resume=folder is not None,
            observer=None if observer is None else observer(),
            device=model.device.type,
        )
        if result.stopped == "interrupted":
            raise KeyboardInterrupt
        after = result.valid_perplexity
        # Not "after > start": NaN is worse than anything.
        if start is not None and after is not None and not after <= start[1]:
            if remark is not None:
                remark(
                    f"recover made validation perplexity worse ({start[1]:.2f} to {after:.2f}); "
                    "the model from before is kept"
                )
            return start[0]
        return result.model

    return recover


def _values(settings: RecoverySettings, seed: int) -> dict[str, Any]:
    return {
        "optimizer": settings.optimizer,
        "learning_rate": settings.learning_rate,
        "schedule": "cosine",
        "epochs": max(1, int(settings.epochs)),
        "time_limit": settings.time_limit,
        "batch": settings.batch,
        "window": settings.window,
        "dropout": settings.dropout,
        **settings.regularization,
        "seed": seed,
        "distillation_weight": settings.distillation,
        "distillation_temperature": settings.temperature,
        "distillation_hidden": settings.hidden_distillation,
        "distillation_samples": settings.samples,
        "keep": settings.keep,
    }
