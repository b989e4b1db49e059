"""The training that `recover` steps ask for, on the text of `--data`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from terselm.cli.loading import split_of
from terselm.cli.output import Output
from terselm.compress.base import Recovery
from terselm.evaluate.perplexity import validation_perplexity
from terselm.models.language_model import LanguageModel
from terselm.pipeline.recovery import make_recovery
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
    """

    def validate(model: LanguageModel) -> float:
        return validation_perplexity(model, split_of(data, "valid", model.vocabulary).ids)

    return make_recovery(
        lambda vocabulary: split_of(data, "train", vocabulary).ids,
        validation or validate,
        seed,
        remark=output.remark,
        observer=partial(ProgressObserver, "recover"),
    )
