"""From settings and a corpus to a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, Field, ValidationError

from terselm.errors import UsageError
from terselm.evaluate.perplexity import validation_perplexity
from terselm.models.config import ModelConfig, first_problem, make_config
from terselm.models.language_model import LanguageModel
from terselm.models.sampling import count_tokens
from terselm.models.teacher import Teacher
from terselm.pipeline.units import read_seconds
from terselm.text.base import Vocabulary
from terselm.text.build import build_vocabulary
from terselm.text.corpus import Corpus
from terselm.text.token_cache import TokenizedSplit, tokenize
from terselm.train.config import TrainingConfig, make_training_config
from terselm.train.loop import FitResult, fit
from terselm.train.metrics import Observer

MODEL_SETTINGS = (
    *("cell", "layers", "hidden", "embedding", "projection", "tied"),
    *("output", "cutoffs", "division", "cluster_sizes"),
)
MOST_LAYERS = 64
"""As in the C library."""
TEXT_SETTINGS = ("tokens", "vocabulary_size", "lowercase")

Size = Annotated[int, Field(ge=1, le=2**20, strict=True)]


@dataclass(frozen=True)
class Settings:
    """What `terselm train` is told.

    Attributes
    ----------
    model : ModelConfig
    training : TrainingConfig
    text : mapping
        `tokens`, `vocabulary_size` and `lowercase`, where given.
    """

    model: ModelConfig
    training: TrainingConfig
    text: Mapping[str, Any]


class _Plain(BaseModel):
    """What is computed with before a model's or a run's own checks see it."""

    layers: Annotated[int, Field(ge=1, le=MOST_LAYERS, strict=True)] = 2
    hidden: Size | Annotated[list[Size], Field(max_length=MOST_LAYERS)] = 200
    tokens: Literal["words", "characters", "bpe"] = "words"
    vocabulary_size: Annotated[int, Field(ge=2, strict=True)] | None = None
    lowercase: Annotated[bool, Field(strict=True)] | None = None


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Return checked settings of `cell`, `layers`, ..., `learning_rate`, ... in one mapping.

    Parameters
    ----------
    values : mapping
        `time_limit` may be a text such as "30min".

    Raises
    ------
    UsageError
        If a setting is unknown or its value impossible; the message names it.
    """
    rest = dict(values)
    try:
        _Plain(**rest)
    except ValidationError as error:
        raise UsageError(first_problem(error)) from None
    if isinstance(rest.get("time_limit"), str):
        rest["time_limit"] = read_seconds(rest["time_limit"], "time_limit")
    model = {name: rest.pop(name) for name in MODEL_SETTINGS if name in rest}
    text = {name: rest.pop(name) for name in TEXT_SETTINGS if name in rest}
    return Settings(_model_config(model), make_training_config(rest), text)


def check_further(values: Mapping[str, Any]) -> None:
    """Refuse settings that a model to be trained further has already.

    Raises
    ------
    UsageError
        If there is one; the message names it.
    """
    for name in (*MODEL_SETTINGS, *TEXT_SETTINGS):
        if name in values:
            raise UsageError(f"{name}: the model to start from has its own; leave it out")


def make_further_settings(values: Mapping[str, Any], start: LanguageModel) -> Settings:
    """Return checked settings of how `start` is trained further.

    Raises
    ------
    UsageError
        If a setting is unknown, its value impossible, or the model has its own.
    """
    check_further(values)
    return replace(make_settings(values), model=start.config)


def _model_config(values: dict[str, Any]) -> ModelConfig:
    """Return the model's configuration from `layers`, `hidden`, ... as the flags name them."""
    hidden = values.pop("hidden", 200)
    layers = values.pop("layers", None)
    if not isinstance(hidden, list):
        hidden = [hidden] * (layers or 2)
    elif layers not in (None, len(hidden)):
        raise UsageError(
            f"layers is {layers}, but hidden has {len(hidden)} sizes; give one of them"
        )
    if not hidden:
        raise UsageError("hidden has no size; give one a layer")
    values["hidden"] = tuple(hidden)
    if isinstance(values.get("cutoffs"), str):
        values["cutoffs"] = values["cutoffs"].split(",")
    values.setdefault("embedding", values.get("projection") or values["hidden"][-1])
    return make_config(values)


def _check_agrees(vocabulary: Vocabulary, text: Mapping[str, Any]) -> None:
    has = {
        "tokens": vocabulary.kind,
        "vocabulary_size": len(vocabulary),
        "lowercase": vocabulary.lowercase,
    }
    for name, value in text.items():
        if value is not None and value != has[name]:
            raise UsageError(
                f"{name} is {value}, but {has[name]} in the vocabulary of the teacher, which is "
                "taken; leave it out"
            )


class Trainer:
    """A model, and the text that it is trained on.

    Parameters
    ----------
    settings : Settings
    corpus : Corpus
    vocabulary : Vocabulary or None
        None: made from the corpus as the settings say.
    start : LanguageModel or None
        The model to train further, with its own vocabulary, which is then not given; it is
        changed. None: one with random weights.

    Attributes
    ----------
    model : LanguageModel
    train_tokens, valid_tokens : TokenizedSplit

    Raises
    ------
    UsageError
        If the settings ask for another vocabulary than this one.
    """

    def __init__(
        self,
        settings: Settings,
        corpus: Corpus,
        vocabulary: Vocabulary | None = None,
        start: LanguageModel | None = None,
    ) -> None:
        self.settings = settings
        self.corpus = corpus
        text = settings.text
        if start is not None:
            vocabulary = start.vocabulary
        if vocabulary is not None:
            _check_agrees(vocabulary, text)
        words = vocabulary or build_vocabulary(
            corpus,
            text.get("tokens", "words"),
            size=text.get("vocabulary_size"),
            lowercase=bool(text.get("lowercase", False)),
        )
        self.train_tokens: TokenizedSplit = tokenize(corpus, "train", words)
        self.valid_tokens: TokenizedSplit = tokenize(corpus, "valid", words)
        torch.manual_seed(settings.training.seed)
        if start is None:
            counts = count_tokens(self.train_tokens.ids, len(words))
            self.model = LanguageModel(settings.model, words, counts)
        else:
            self.model = start

    def train(
        self,
        folder: Path,
        *,
        resume: bool,
        device: str,
        teacher: Teacher | None = None,
        lessons: Path | None = None,
        more_text: npt.NDArray[np.integer[Any]] | None = None,
        observer: Observer | None = None,
    ) -> FitResult:
        """Train the model; see `terselm.train.loop.fit`. Its provenance says how it was made.

        Parameters
        ----------
        folder : Path
            Where checkpoint and metrics go.
        resume : bool
        device : str
        teacher : LanguageModel, sequence of LanguageModel, or None
        lessons : Path or None
            Where runs share samples of what teachers say.
        more_text : ndarray or None
            Token ids [tokens] to train on after those of the training text.
        observer : Observer or None
        """
        ids = self.train_tokens.ids
        before = self.model.provenance
        result = fit(
            self.model,
            ids if more_text is None else np.concatenate([ids, more_text]),
            self.settings.training,
            validate=lambda candidate: validation_perplexity(candidate, self.valid_tokens.ids),
            validation_ids=self.valid_tokens.ids,
            teacher=teacher,
            folder=folder,
            lessons=lessons,
            resume=resume,
            observer=observer,
            device=device,
        )
        result.model.provenance = {
            "data": self.corpus.name,
            "training": result.config.model_dump(mode="json"),
            "epochs_done": len(result.history),
            "perplexity": {"valid": result.valid_perplexity},
        }
        if before:
            result.model.provenance["start"] = before
        return result
