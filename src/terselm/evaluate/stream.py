"""Reading a text as one stream through a model, the way every measurement here does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.models.language_model import LanguageModel
from terselm.text.batches import windows

TokenIds = Sequence[int] | npt.NDArray[np.integer]

Progress = Callable[[int, int], object]
"""Called with (tokens done, tokens in all) as the work goes on."""

WINDOW = 512
"""Tokens that one fused call runs over."""

LOGITS_BYTES = 8_000_000
"""Most bytes of one block of logits. Together with its softmax it stays below the 32 MB from
which glibc maps every buffer anew, which costs more than filling it."""


def ready(model: LanguageModel) -> LanguageModel:
    """Return a copy to measure with: evaluation mode, every matrix unpacked once.

    The copy computes the same numbers. A recurrent matrix becomes dense, since the fused kernels
    need it so; elsewhere each leaf does, so that a low-rank product still goes through its
    factors.

    Parameters
    ----------
    model : LanguageModel
        On any device, in any mode; it is left as it is.
    """
    copy = model.clone().eval()
    for name, op in copy.weights().items():
        if name.startswith("cells."):
            copy.replace_weight(name, _unpacked(op, name))
        else:
            copy.replace_weight(name, op.map_leaves(_unpacked, name))
    return copy


def check_window(window: int) -> None:
    """Refuse a window that is not a positive number of tokens.

    Raises
    ------
    UsageError
        If `window` is below 1.
    """
    if window < 1:
        raise UsageError(f"window is {window}; it must be at least 1 token")


def hidden_states(
    model: LanguageModel,
    ids: TokenIds,
    start_id: int,
    window: int = WINDOW,
    progress: Progress | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run the recurrent part over a text, the state carried from the first token to the last.

    To be used under `torch.inference_mode`.

    Parameters
    ----------
    model : LanguageModel
        As `ready` returns it.
    ids : sequence of int
        The tokens of the text.
    start_id : int
        What the model reads before the first token.
    window : int
        Tokens a call; it changes the speed, not the result.
    progress : callable, optional
        See `Progress`; called once a window.

    Yields
    ------
    hidden : Tensor
        float32 [n, size], what the output layer reads, on the model's device.
    targets : Tensor
        int64 [n], the tokens to be predicted from it. Every token of the text comes once.
    """
    state = model.initial_state(1)
    done = 0
    for inputs, targets in windows(ids, start_id, window):
        hidden = model.hidden(inputs.to(model.device), state)
        state = hidden.state
        done += len(targets)
        yield hidden.output.squeeze(1), targets.squeeze(1).to(model.device)
        if progress is not None:
            progress(done, len(ids))


def output_blocks(
    hidden: Tensor, targets: Tensor, vocabulary_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut `hidden` [n, size] and `targets` [n] so that a block's logits stay small."""
    rows = max(1, LOGITS_BYTES // (4 * vocabulary_size))
    yield from zip(hidden.split(rows), targets.split(rows), strict=True)


def _unpacked(op: LinearOp, name: str) -> LinearOp:
    if isinstance(op, Dense) and op.stored_type == "float32":
        return op
    return Dense(op.dense())
