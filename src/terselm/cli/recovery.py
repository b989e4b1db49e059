"""The training that `recover` steps ask for, made from a corpus."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from terselm.cli.loading import split_of
from terselm.cli.output import Output
from terselm.compress.base import Recovery, RecoverySettings
from terselm.evaluate.perplexity import perplexity
from terselm.models.language_model import LanguageModel
from terselm.train.config import make_training_config
from terselm.train.loop import fit
from terselm.train.progress import ProgressObserver


def recovery(
    data: str,
    seed: int,
    output: Output,
    validation: Callable[[LanguageModel], float] | None = None,
) -> Recovery:
    """Return the callable that trains a compressed model on the text `data`.

    `validation` says how good a model is (less is better); if not given, the perplexity of the
    validation text.

    Where the settings keep the best model by validation perplexity, the state it starts from
    counts too, so that such a recovery never makes a model worse on validation text. Where they
    keep the last, that is returned, however good the others were.
    """

    def recover(
        model: LanguageModel, settings: RecoverySettings, teacher: LanguageModel | None
    ) -> LanguageModel:
        train = split_of(data, "train", model.vocabulary)
        validate = validation
        if validate is None:
            valid = split_of(data, "valid", model.vocabulary)
            validate = partial(perplexity, ids=valid.ids)
        # Below one epoch the schedule runs over the part of the text that is read.
        tokens = len(train.ids) if settings.epochs >= 1 else int(settings.epochs * len(train.ids))

        config = make_training_config(
            {
                "optimizer": settings.optimizer,
                "learning_rate": settings.learning_rate,
                "schedule": "cosine",
                "epochs": max(1, int(settings.epochs)),
                "time_limit": settings.time_limit,
                "batch": settings.batch,
                "window": settings.window,
                "dropout": settings.dropout,
                "seed": seed,
                "distillation_weight": settings.distillation,
                "distillation_temperature": settings.temperature,
                "distillation_hidden": settings.hidden_distillation,
                "keep": settings.keep,
            }
        )
        start = (model.clone(), validate(model)) if settings.keep == "best" else None
        result = fit(
            model,
            train.ids[:tokens],
            config,
            validate=validate,
            teacher=teacher,
            observer=ProgressObserver("recover"),
            device=model.device.type,
        )
        if result.stopped == "interrupted":
            raise KeyboardInterrupt
        after = result.valid_perplexity
        if start is not None and after is not None and after > start[1]:
            output.remark(
                f"recover made validation perplexity worse ({start[1]:.2f} to {after:.2f}); "
                "the model from before is kept"
            )
            return start[0]
        return result.model

    return recover
