"""What the inputs of every matrix look like on calibration text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from terselm.errors import UsageError
from terselm.models.language_model import LanguageModel

STREAMS = 32
WARM_UP = 8
"""Steps at the start of each stream that only bring the state to life."""


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
    """Run the model step by step and record what every matrix is multiplied with.

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
    """
    steps = len(ids) // STREAMS
    if steps <= WARM_UP:
        raise UsageError(
            f"{len(ids)} tokens of calibration text are too few; give at least "
            f"{STREAMS * (WARM_UP + 1)}"
        )
    recorder = _Recorder()
    leaves = {
        leaf_name: leaf
        for name, op in model.weights().items()
        for leaf_name, leaf in op.leaves(name).items()
    }
    hooks = [leaf.register_forward_pre_hook(recorder.hook(name)) for name, leaf in leaves.items()]
    counts = np.bincount(np.asarray(ids, dtype=np.int64), minlength=len(model.vocabulary))
    grid = np.asarray(ids[: steps * STREAMS], dtype=np.int64).reshape(STREAMS, steps)
    tokens = torch.from_numpy(np.ascontiguousarray(grid.T)).to(model.device)  # [steps, streams]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            _run(model, tokens, recorder)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return Statistics(recorder.result(), counts)


class _Recorder:
    """Sums x xᵀ and x of every leaf while it is on."""

    def __init__(self) -> None:
        self.on = False
        self._products: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def hook(self, name: str) -> Any:
        def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if not self.on:
                return
            x = inputs[0].reshape(-1, inputs[0].shape[-1]).double()  # [n, in]
            for sums, part in ((self._products, x.T @ x), (self._sums, x.sum(dim=0))):
                sums[name] = sums[name] + part if name in sums else part
            self._counts[name] = self._counts.get(name, 0) + len(x)

        return record

    def result(self) -> dict[str, InputStatistics]:
        return {
            name: InputStatistics(self._products[name] / count, count, self._sums[name] / count)
            for name, count in self._counts.items()
        }


def _run(model: LanguageModel, tokens: Tensor, recorder: _Recorder) -> None:
    # The fused kernels hide the recurrent inputs; step by step every product is a call.
    state = model.initial_state(tokens.shape[1])
    outputs = []
    for number, token in enumerate(tokens):
        recorder.on = number >= WARM_UP
        x = model.embedding.rows(token)
        for layer, cell in enumerate(model.layers()):
            state[layer] = cell.step(cell.project(x), state[layer])
            x = state[layer][0]
        if recorder.on:
            outputs.append(x)
    model.output.logits(torch.cat(outputs))
