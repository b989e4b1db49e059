"""What a compression method is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict
from torch import Tensor

from terselm.compress.statistics import Statistics
from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.models.language_model import LanguageModel
from terselm.models.teacher import Teacher
from terselm.registry import Registry
from terselm.text.base import Vocabulary

METHODS: Registry[type[Method]] = Registry("method", "terselm.compress.methods")

OPTIONS = ConfigDict(extra="forbid", allow_inf_nan=False)
"""How a method checks its options: an unknown one is an error."""

M = TypeVar("M", bound=type)


def register_method(name: str) -> Callable[[M], M]:
    """Return a decorator that files a method under the name that recipes use."""

    def add(cls: M) -> M:
        if not issubclass(cls, Method):
            raise TypeError(f"{cls.__name__} is not a Method")
        cls.name = name
        METHODS.register(name)(cls)
        return cls

    return add


@dataclass(frozen=True)
class RecoverySettings:
    """How a compressed model is trained further; see `compress.methods.recover.Recover`.

    Attributes
    ----------
    regularization : mapping of str to float
        The dropouts beside `dropout`, by their names in the settings of training.
    keep : {"best", "last"}
        best: the best model by validation perplexity, that from before the training included.
        last: the model of the last step, whatever came before it; for methods that make the
        model smaller in training, where early models look best because nothing is gone yet.
    """

    epochs: float
    time_limit: float | None
    optimizer: str
    learning_rate: float
    dropout: float
    batch: int
    window: int
    distillation: float
    temperature: float
    hidden_distillation: float = 0.0
    samples: int | None = None
    regularization: Mapping[str, float] = field(default_factory=dict)
    keep: Literal["best", "last"] = "best"


class Recovery(Protocol):
    """Trains a compressed model further, in place of the one given, and returns the result.

    Compression does not know how to train; the caller hands this in (`Context.recover`).
    """

    def __call__(
        self, model: LanguageModel, settings: RecoverySettings, teacher: Teacher | None
    ) -> LanguageModel:
        """Return the trained model; `teacher` is the context's source or None."""


CALIBRATION_TOKENS = 100_000
"""Of calibration text, from the start of the training text, where nothing else is said."""


@dataclass(frozen=True)
class Context:
    """What a method may use beside the model.

    Attributes
    ----------
    source : LanguageModel, sequence of LanguageModel, or None
        The model before the first step, for distillation, or those that teach in its place.
        `compress` sets it to the model it is given unless it is set already, as where a recipe
        goes on from an earlier one's result.
    recover : Recovery or None
        Training, where the caller has text to train on.
    calibration : ndarray or None
        Token ids [n] of calibration text, for methods that look at inputs. `compress` renumbers
        them where a step changes the vocabulary.
    statistics : Statistics or None
        What the inputs of every weight look like on the calibration text, measured on the
        model as the step finds it. Set by `compress` where the method `needs_statistics`, and
        None for other methods; if set already, that is taken for the model as it is before the
        first step.
    model : LanguageModel or None
        The model as the step finds it; a `WeightMethod` may look at it. Set by `compress`.
    rounded : mapping of str to Tensor
        float32 [out, in], by the name of the leaf: the dense matrices that steps before this one
        replaced, as they were then. Set by `compress`.
    prepared : object
        What `WeightMethod.prepare` of this step returned. Set by `compress`.
    count_tokens : callable or None
        Returns how often each token of a vocabulary is in the whole training text, int64
        [vocabulary]. Called by the steps that need it. None: they count calibration text.
    """

    source: Teacher | None = None
    recover: Recovery | None = None
    calibration: npt.NDArray[np.integer[Any]] | None = None
    statistics: Statistics | None = None
    model: LanguageModel | None = None
    rounded: Mapping[str, Tensor] = field(default_factory=dict)
    prepared: Any = None
    count_tokens: Callable[[Vocabulary], npt.NDArray[np.int64]] | None = None


class Method:
    """One step of a recipe. Subclasses are frozen dataclasses of their options."""

    name: ClassVar[str]
    enlarges: ClassVar[bool] = False
    """Whether a larger file is what it is for."""

    def reads_calibration(self) -> bool:
        """Return whether it looks at `Context.calibration` where there is any."""
        return True


class WeightMethod(Method):
    """A method that changes how a matrix is stored, one matrix at a time."""

    takes: ClassVar[tuple[str, ...]]
    """The stored forms of a leaf that it can change."""

    uses_statistics: ClassVar[bool] = False
    """Whether it needs `Context.statistics`, and so calibration text."""

    def needs_statistics(self) -> bool:
        """Return whether it needs them with the options it has; `uses_statistics` by default."""
        return self.uses_statistics

    def reads_calibration(self) -> bool:
        """Return whether it needs statistics."""
        return self.needs_statistics()

    def corrects_bias(self) -> bool:
        """Return whether biases are to make up for the mean of what the step changes.

        `compress` then adds (W − V) E[x] to the bias of every whole weight W that became V. It
        needs statistics.
        """
        return False

    def prepare(self, leaves: Mapping[str, LinearOp], context: Context) -> Any:
        """Look at all leaves of the step together, before the first one is changed.

        For methods whose choice for one matrix depends on the others, such as one threshold
        for the whole model. What it returns is `context.prepared` in `apply_to_leaf`.

        Parameters
        ----------
        leaves : mapping of str to LinearOp
            Every leaf that the step will be applied to and whose form is in `takes`.
        context : Context
        """
        return None

    def apply(self, op: LinearOp, name: str, context: Context) -> LinearOp:
        """Return `op` with every leaf changed; `op` itself stays as it is.

        Raises
        ------
        UsageError
            If a leaf is stored in a form that the method does not take.
        """
        return op.map_leaves(lambda leaf, leaf_name: self._checked(leaf, leaf_name, context), name)

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return the new form of one leaf whose stored form is in `takes`."""
        raise NotImplementedError

    def _checked(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        if leaf.kind not in self.takes:
            raise wrong_form(self.name, self.takes, name, leaf)
        return self.apply_to_leaf(leaf, name, context)


def wrong_form(method: str, takes: Sequence[str], name: str, op: LinearOp) -> UsageError:
    """Return the error of a method that does not take the form in which a weight is stored.

    Parameters
    ----------
    method : str
    takes : sequence of str
        The forms that it takes.
    name : str
        Of the weight.
    op : LinearOp
        How it is stored.
    """
    advice = f"put {method} before the step that stored it so"
    if "dense" in takes:
        advice += ", or `unpack` before it"
    return UsageError(f"takes {' or '.join(takes)} weights, and {name} is {op.kind}; {advice}")


class ModelMethod(Method):
    """A method that works on the whole model."""

    def apply(self, model: LanguageModel, context: Context) -> LanguageModel:
        """Return the changed model; it may be `model`, which belongs to the method."""
        raise NotImplementedError
