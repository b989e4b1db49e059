"""What the inputs of every matrix look like on calibration text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from terselm.cells.apart import run_sequence
from terselm.cells.base import RecurrentCell, State
from terselm.compress.streams import parallel_streams
from terselm.errors import TerselmError, UsageError
from terselm.linear.base import LinearOp
from terselm.models.language_model import LanguageModel

STREAMS = 32
WARM_UP = 8
"""Steps at the start of each stream that only bring the state to life."""
WINDOW = 50
"""Steps worked on at once."""


@dataclass(frozen=True)
class InputStatistics:
    """The inputs x [in] that one matrix was multiplied with.

    Attributes
    ----------
    second_moment : Tensor
        float64 [in, in], the mean of x xᵀ.
    count : int
        How many inputs there were.
    mean : Tensor
        float64 [in], the mean of x.
    """

    second_moment: Tensor
    count: int
    mean: Tensor

    @property
    def mean_square(self) -> Tensor:
        """float64 [in], the mean of x² of each column."""
        return self.second_moment.diagonal()

    @property
    def covariance(self) -> Tensor:
        """float64 [in, in], the second moment about the mean."""
        return self.second_moment - torch.outer(self.mean, self.mean)


@dataclass(frozen=True)
class Statistics:
    """Statistics of a model on calibration text.

    Attributes
    ----------
    inputs : mapping of str to InputStatistics
        By the name of the leaf ("cells.0.weight_hh", "output.right"). The embedding is looked
        up and not multiplied, so it is here only where it is tied to the output.
    token_counts : ndarray
        int64 [vocabulary], how often each word is in the calibration text.
    """

    inputs: Mapping[str, InputStatistics]
    token_counts: npt.NDArray[np.int64]


def collect(model: LanguageModel, ids: npt.NDArray[np.integer[Any]]) -> Statistics:
    """Run the model and record what every matrix is multiplied with.

    Parameters
    ----------
    model : LanguageModel
        Unchanged.
    ids : ndarray
        Token ids [n]; they are cut into 32 parallel streams.

    Raises
    ------
    UsageError
        If there are too few tokens.
    TerselmError
        If what a matrix is multiplied with is not finite, as where states explode; the message
        names it.
    """
    steps = len(ids) // STREAMS
    if steps <= WARM_UP:
        raise UsageError(
            f"{len(ids)} tokens of calibration text are too few; give at least "
            f"{STREAMS * (WARM_UP + 1)}"
        )
    recorder = _Recorder(model)
    counts = np.bincount(np.asarray(ids, dtype=np.int64), minlength=len(model.vocabulary))
    tokens = parallel_streams(ids, STREAMS).to(model.device)  # [steps, streams]
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), recorder.watching():
            _run(model, tokens, recorder)
    finally:
        model.train(training)
    inputs = recorder.result()
    for name, found in inputs.items():
        if not torch.isfinite(found.second_moment).all():
            raise TerselmError(
                f"{name}: its inputs on calibration text are NaN or infinite; the model is not "
                "usable, or needs a method that takes no statistics"
            )
    return Statistics(inputs, counts)


class _Recorder:
    """Sums x xᵀ and x of every leaf that is multiplied while it is on."""

    def __init__(self, model: LanguageModel) -> None:
        self.on = False
        self._products: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._names: dict[nn.Module, str] = {leaf: name for name, leaf in model.leaves().items()}

    @contextmanager
    def watching(self) -> Iterator[None]:
        hooks = [leaf.register_forward_pre_hook(self._before) for leaf in self._names]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def feed(self, op: LinearOp, inputs: Tensor) -> None:
        """Let all leaves of `op` see its inputs [..., in], without a product that is not needed."""
        if op in self._names:
            self._before(op, (inputs,))
        else:
            op(inputs)

    def result(self) -> dict[str, InputStatistics]:
        return {
            name: InputStatistics(self._products[name] / count, count, self._sums[name] / count)
            for name, count in self._counts.items()
        }

    def _before(self, leaf: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not self.on:
            return
        name = self._names[leaf]
        x = inputs[0].reshape(-1, inputs[0].shape[-1]).double()  # [n, in]
        for sums, part in ((self._products, x.T @ x), (self._sums, x.sum(dim=0))):
            sums[name] = sums[name] + part if name in sums else part
        self._counts[name] = self._counts.get(name, 0) + len(x)


def _run(model: LanguageModel, tokens: Tensor, recorder: _Recorder) -> None:
    state = model.initial_state(tokens.shape[1])
    for window in [tokens[:WARM_UP], *tokens[WARM_UP:].split(WINDOW)]:
        xs = model.embedding.rows(window)  # [time, streams, embedding]
        for layer, cell in enumerate(model.layers()):
            xs, state[layer] = _run_cell(cell, xs, state[layer], recorder)
        if len(model.output.weights()) == 1:
            (weight,) = model.output.weights().values()
            recorder.feed(weight, xs)
        elif recorder.on:
            model.output.logits(xs)
        recorder.on = True


def _run_cell(
    cell: RecurrentCell, xs: Tensor, state: State, recorder: _Recorder
) -> tuple[Tensor, State]:
    if cell.weight_names() != ("weight_ih", "weight_hh"):
        return cell.stepwise(xs, state)
    # The fused kernels are faster, but hide the products.
    outputs, after = run_sequence(cell, xs, state)
    recorder.feed(cell.weight_ih, xs)
    recorder.feed(cell.weight_hh, torch.cat([state[0].unsqueeze(0), outputs[:-1]]))
    return outputs, after
