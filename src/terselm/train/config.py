"""The settings of a training run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from terselm.errors import UsageError
from terselm.models.config import first_problem
from terselm.models.regularization import Regularization
from terselm.train.precision import Precision

Optimizer = Literal["sgd", "adam", "adamw", "adam_then_sgd", "muon"]
Schedule = Literal["constant", "exponential", "plateau", "cosine"]
Averaging = Literal["none", "ema", "nt_asgd"]
Loss = Literal["full", "sampled", "nce"]
Keep = Literal["best", "last"]

Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]

USUAL_SGD_RATE = 20.0
USUAL_ADAM_RATE = 2e-3
CHANGEABLE = frozenset({"epochs", "time_limit", "early_stopping", "checkpoint_every", "keep"})
"""Settings that a resumed run may give anew; they do not touch the steps already done."""


class TrainingConfig(BaseModel):
    """How a language model is trained.

    Rates and norms refer to the mean loss of a token, in nats, not to a sum over the window.

    Attributes
    ----------
    optimizer : {"sgd", "adam", "adamw", "adam_then_sgd", "muon"}
        adam_then_sgd starts with Adam and goes on with SGD (Keskar & Socher 2017). muon changes
        the matrices of recurrent layers and the output projection by Muon, the rest by AdamW; it
        takes fewer steps and more work for each, in bfloat16 (see `train.optimizers`).
    learning_rate : float or None
        Of the optimizer that starts; None: 20 for SGD, 0.002 for Adam, AdamW and Muon.
    sgd_learning_rate : float
        Of the SGD part of "adam_then_sgd".
    switch_after : int or None
        Epochs of Adam before SGD; None: until validation stops improving.
    schedule : {"constant", "exponential", "plateau", "cosine"}
        exponential: times `decay` every epoch; plateau: times `decay` after an epoch whose
        validation perplexity is not the best so far; cosine: to zero at the last epoch or
        at the time limit, whichever comes first.
    decay : float
    decay_after : int
        Epochs before the schedule begins, counted from the start or from the switch to SGD.
    momentum : float
        Of SGD.
    weight_decay : float
        L2 for SGD and Adam, decoupled for AdamW and Muon.
    clip : float or None
        Greatest norm of the whole gradient.
    loss : {"full", "sampled", "nce"}
        full: the softmax over all words. sampled: over the target and a sample of words, nce:
        noise-contrastive estimation; both cost as much as the sample is large, for very large
        vocabularies (see `models.sampling`). Validation always uses the full softmax.
    samples : int
        Mean number of sampled words, drawn anew each window, as likely as count^0.75.
    epochs : int
    batch : int
        Parallel streams of text, over all processes together.
    window : int
        Steps of truncated back-propagation through time.
    random_window : bool
        Windows of varied length around `window`, the rate scaled with the length
        (Merity et al. 2018, section 5).
    dropout : float
        On the output of every layer: the value of `hidden_dropout` and `output_dropout`
        where these are None.
    input_dropout, hidden_dropout, output_dropout, embedding_dropout, weight_drop : float
        See `models.regularization.Regularization`.
    projection_dropout : float
        Likewise; only where a tied embedding has another size than the last layer.
    locked_dropout : bool
        One mask for all steps of a window.
    activation_regularization : float
        Weight of the mean squared output of the last layer, after dropout (Merity et al. 2017).
    temporal_activation_regularization : float
        Weight of the mean squared change of that output from step to step, before dropout.
    averaging : {"none", "ema", "nt_asgd"}
        ema: exponential moving average of the weights; nt_asgd: plain average from the epoch
        on in which validation stops improving (Merity et al. 2018, algorithm 1).
    average_decay : float
        Of "ema", a step.
    average_patience : int
        Epochs that "nt_asgd" looks back.
    early_stopping : int or None
        Stop after so many epochs without a better validation perplexity.
    keep : {"best", "last"}
        Which model training ends with: the best by validation perplexity, or that of the last
        step, for training that makes a model smaller as it goes on.
    time_limit : float or None
        Seconds of training and validation, those before a resume included.
    precision : {"auto", "float32", "bfloat16"}
        Of the products; auto: bfloat16 where the processor multiplies it natively (see
        `train.precision`), up to twice as fast.
    seed : int
        Of dropout and window lengths. The initial weights are the caller's.
    checkpoint_every : float
        Seconds between checkpoints; 0: after every step.
    distillation_weight : float
        Share of the teacher in the loss, where a teacher is given.
    distillation_temperature : float
    distillation_hidden : float
        Weight of the difference to the teacher's outputs of the last layer, relative to their
        mean square; see `train.distillation`.
    distillation_samples : int or None
        Words a token that the student learns from in the place of the teacher's whole
        distribution. They are drawn in the first epoch and kept, so that the teacher reads the
        text once; with two bytes each they take room on the disk. None: the whole, computed in
        every epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    optimizer: Optimizer = "sgd"
    learning_rate: Positive | None = None
    sgd_learning_rate: Positive = USUAL_SGD_RATE
    switch_after: Annotated[int, Field(ge=1)] | None = None
    schedule: Schedule = "plateau"
    decay: Annotated[float, Field(gt=0, le=1)] = 0.5
    decay_after: Annotated[int, Field(ge=0)] = 0
    momentum: Probability = 0.0
    weight_decay: NotNegative = 0.0
    clip: Positive | None = 0.25
    loss: Loss = "full"
    samples: Annotated[int, Field(ge=1)] = 8192
    epochs: Annotated[int, Field(ge=1)] = 40
    batch: Annotated[int, Field(ge=1)] = 20
    window: Annotated[int, Field(ge=1)] = 35
    random_window: bool = False
    dropout: Probability = 0.0
    input_dropout: Probability = 0.0
    hidden_dropout: Probability | None = None
    output_dropout: Probability | None = None
    embedding_dropout: Probability = 0.0
    weight_drop: Probability = 0.0
    projection_dropout: Probability = 0.0
    locked_dropout: bool = False
    activation_regularization: NotNegative = 0.0
    temporal_activation_regularization: NotNegative = 0.0
    averaging: Averaging = "none"
    average_decay: Probability = 0.999
    average_patience: Annotated[int, Field(ge=1)] = 5
    early_stopping: Annotated[int, Field(ge=1)] | None = None
    keep: Keep = "best"
    time_limit: Positive | None = None
    precision: Precision = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    checkpoint_every: NotNegative = 120.0
    distillation_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    distillation_temperature: Positive = 1.0
    distillation_hidden: NotNegative = 0.0
    distillation_samples: Annotated[int, Field(ge=1, le=2**16)] | None = None

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        if self.momentum and self.optimizer in ("adam", "adamw", "muon"):
            raise ValueError(f"momentum is for sgd; {self.optimizer} has its own")
        if self.switch_after is not None and self.optimizer != "adam_then_sgd":
            raise ValueError("switch_after needs the optimizer adam_then_sgd")
        if self.distillation_samples is not None and self.distillation_hidden:
            raise ValueError(
                "distillation_samples keeps no outputs of layers, as distillation_hidden needs"
            )
        return self

    @property
    def first_rate(self) -> float:
        """The learning rate that the run starts with."""
        if self.learning_rate is not None:
            return self.learning_rate
        return USUAL_SGD_RATE if self.optimizer == "sgd" else USUAL_ADAM_RATE

    def regularization(self) -> Regularization:
        """Return the dropouts for the model's forward pass."""
        return Regularization(
            input=self.input_dropout,
            hidden=self.dropout if self.hidden_dropout is None else self.hidden_dropout,
            output=self.dropout if self.output_dropout is None else self.output_dropout,
            embedding=self.embedding_dropout,
            weight_drop=self.weight_drop,
            locked=self.locked_dropout,
            projection=self.projection_dropout,
        )


def make_training_config(values: dict[str, Any]) -> TrainingConfig:
    """Return checked settings.

    Raises
    ------
    UsageError
        If a setting is unknown or its value impossible; the message names it.
    """
    try:
        return TrainingConfig(**values)
    except ValidationError as error:
        raise UsageError(first_problem(error)) from None
