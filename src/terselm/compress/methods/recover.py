"""Training what a compression step left, to win back what it cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from terselm.compress.base import (
    OPTIONS,
    Context,
    ModelMethod,
    RecoverySettings,
    register_method,
)
from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.coded import CodedOp, with_latents, without_latents
from terselm.models.language_model import LanguageModel
from terselm.models.teacher import teachers_of

Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


OF_DISTILL = ("distill_weight", "temperature", "distill_samples")
"""Options that mean nothing without `distill`."""
REGULARIZATION = (
    "input_dropout",
    "embedding_dropout",
    "weight_drop",
    "projection_dropout",
    "locked_dropout",
)


def _passes(epochs: float) -> float:
    if epochs > 1 and epochs != int(epochs):
        raise ValueError(f"{epochs} passes are not possible; give {int(epochs)}, or less than 1")
    return epochs


Epochs = Annotated[float, Field(gt=0.0), AfterValidator(_passes)]


@register_method("recover")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Recover(ModelMethod):
    """Train the compressed model further; what earlier steps fixed stays.

    Factors are trained as factors, codes stay the codes they are and their scales are
    trained. With distillation the model also learns from the source model's distribution, or
    from what its last layer puts out, or from both.

    Paper: fine-tuning after each step as in arXiv 1902.02380, section 3.1; distillation by
    Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), from hidden states by Romero et al. 2015
    (arXiv 1412.6550) and Sun et al. 2019 (arXiv 1908.09355).

    Recipe::

        - {method: recover, epochs: 1, distill: true, distill_hidden: 1}

    of a model that is trained out, from its predictions alone::

        - {method: recover, learning_rate: 0.0003, dropout: 0, distill: true, distill_weight: 1}

    Cost: nothing in the file; as long as training. Needs text (`--data`).

    When not: after 8 bits, where there is nothing to win back. From text alone, when the model
    had its fill of that text: a short training, at a high rate after one that ended at a low one,
    then costs more than it wins back.

    Parameters
    ----------
    epochs : float
        Passes over the training text: a whole number, or below 1 that share of the text, from
        its beginning.
    time_limit : float or None
        Seconds after which training ends; the learning rate has then fallen to zero.
    optimizer : {"adam", "adamw", "sgd"}
    learning_rate : float
    dropout : float
        On the outputs of all layers.
    input_dropout, embedding_dropout, weight_drop : float
        On the word vectors, on whole words, and on recurrent weights, as in training; what a
        model was trained with keeps it from overfitting here too.
    projection_dropout : float
        On what the output projection makes, where there is one.
    locked_dropout : bool
        One mask for all steps of a window.
    batch : int
        Parallel streams of text.
    window : int
        Steps of back-propagation through time.
    distill : bool
        Learn from the source model too.
    distill_weight : float
        Share of the distillation loss, in [0, 1]. Only with `distill`.
    temperature : float
        Softens both distributions of the distillation. Only with `distill`.
    distill_hidden : float
        Weight of the mean squared difference between the outputs of the last layer and the
        source model's, relative to the mean square of those; with or without `distill`. Not
        after a step that changes the width of the last layer.
    distill_samples : int or None
        Words a token that it learns from in the place of the source model's whole distribution,
        drawn from that in the first epoch and kept (2 bytes each): the source model reads the
        text once, and the epochs after the first take little longer than without it. Some
        hundreds are nearly as good as the whole. None: the whole, computed in every epoch. Only
        with `distill`, and not together with `distill_hidden`.
    train_codes : bool
        Quantization-aware training: codes are trained too, through float weights that are
        rounded in every step (straight-through). They start at what was rounded, as far as
        its codes allow. Without it codes stay, scales are trained. Only after a step that makes
        codes.
    """

    keep: ClassVar[Literal["best", "last"]] = "best"
    """Which model the training ends with; see `RecoverySettings`."""

    epochs: Epochs = 1.0
    time_limit: Positive | None = None
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: Positive = 0.0005
    dropout: Probability = 0.2
    input_dropout: Probability = 0.0
    embedding_dropout: Probability = 0.0
    weight_drop: Probability = 0.0
    projection_dropout: Probability = 0.0
    locked_dropout: bool = False
    batch: Count = 20
    window: Count = 35
    distill: bool = False
    distill_weight: Share = 0.5
    temperature: Positive = 1.0
    distill_hidden: NotNegative = 0.0
    distill_samples: Annotated[int, Field(ge=1, le=2**16)] | None = None
    train_codes: bool = False

    @model_validator(mode="after")
    def _check(self) -> Recover:
        if self.distill_samples is not None and self.distill_hidden:
            raise ValueError("distill_samples keeps no outputs of layers, as distill_hidden needs")
        defaults = {field.name: field.default for field in fields(self)}
        ignored = [name for name in OF_DISTILL if getattr(self, name) != defaults[name]]
        if ignored and not self.distill:
            raise ValueError(f"{ignored[0]} goes with distill: true; add that, or leave it out")
        return self

    def reads_calibration(self) -> bool:
        """Return False: it trains on the whole text."""
        return False

    def apply(self, model: LanguageModel, context: Context) -> LanguageModel:
        """Return the trained model.

        Raises
        ------
        UsageError
            If there is no text to train on, there are no codes for `train_codes`, or the
            vocabulary is no longer that of the source model and there is something to distil.
        """
        if context.recover is None:
            raise UsageError("needs text to train on; give --data")
        if self.train_codes and not any(isinstance(op, CodedOp) for op in model.leaves().values()):
            raise UsageError(
                "train_codes is set, and this model has no codes; put the step after one that "
                "makes codes, such as quantize, or leave train_codes out"
            )
        settings = RecoverySettings(
            epochs=self.epochs,
            time_limit=self.time_limit,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            dropout=self.dropout,
            regularization={name: getattr(self, name) for name in REGULARIZATION},
            batch=self.batch,
            window=self.window,
            distillation=self.distill_weight if self.distill else 0.0,
            temperature=self.temperature,
            hidden_distillation=self.distill_hidden,
            samples=self.distill_samples if self.distill else None,
            keep=self.keep,
        )
        teacher = context.source if self.distill or self.distill_hidden else None
        words = model.vocabulary.fingerprint()
        if any(each.vocabulary.fingerprint() != words for each in teachers_of(teacher)):
            raise UsageError(
                "cannot distil from the source model, whose vocabulary is another one by now; "
                "put this step before prune_vocabulary, or leave distill out"
            )
        if not self.train_codes:
            return context.recover(model, settings, teacher)
        _replace_all(model, partial(with_latents, weights=context.rounded))
        model.eval()
        model = context.recover(model, settings, teacher)
        model.settle()
        _replace_all(model, without_latents)
        return model


def _replace_all(model: LanguageModel, change: Callable[[LinearOp, str], LinearOp]) -> None:
    for name, op in model.weights().items():
        model.replace_weight(name, change(op, name))
