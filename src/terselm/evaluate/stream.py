"""Reading a text through a model: as one stream, the way every measurement here does, or cut up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.linear.placed_blocks import PlacedBlocks
from terselm.models.language_model import LanguageModel
from terselm.text.batches import TokenStreams, windows

TokenIds = Sequence[int] | npt.NDArray[np.integer[Any]]

Progress = Callable[[int, int], object]
"""Called with (tokens done, tokens in all) as the work goes on."""

WINDOW = 512
"""Tokens that one fused call runs over."""

PARTS = 16
"""Most parts of a text that are read side by side."""

LEAST_PART = 1024
"""Tokens that a part has at least."""

WARM_UP = 256
"""Tokens that are read before a part, so that the state there is nearly what it would be."""

LOGITS_BYTES = 4_000_000
"""Most bytes of one block of logits: enough rows for a fast product, and small enough that the
softmax finds them in the cache. Beyond 32 MB glibc would map every buffer anew."""


def ready(model: LanguageModel) -> LanguageModel:
    """Return a copy to measure with: evaluation mode, every matrix unpacked once.

    The copy computes the same numbers. A recurrent matrix becomes dense, since the fused kernels
    need it so, or its placed blocks do, whose cells run apart; elsewhere each leaf does, so that a
    low-rank product still goes through its factors. Blocks side by side become one.

    Parameters
    ----------
    model : LanguageModel
        On any device, in any mode; it is left as it is.
    """
    copy = model.clone().eval()
    for name, op in copy.weights().items():
        if name.startswith("cells."):
            copy.replace_weight(name, _unpacked_blocks(op, name))
        else:
            unpacked = op.map_leaves(_unpacked, name)
            copy.replace_weight(name, _unpacked(unpacked, name) if _is_full(unpacked) else unpacked)
    return copy


def checked_ids(model: LanguageModel, ids: TokenIds, window: int) -> npt.NDArray[np.integer[Any]]:
    """Return the tokens as an array, after checking that they can be measured on.

    Raises
    ------
    UsageError
        If there are none, one is not in the model's vocabulary, or the window is below 1.
    """
    if window < 1:
        raise UsageError(f"window is {window}; it must be at least 1 token")
    array = np.asarray(ids)
    if not len(array):
        raise UsageError("the text holds no tokens; there is nothing to measure")
    model.vocabulary.check_ids(array)
    return array


def hidden_states(
    model: LanguageModel,
    ids: npt.NDArray[np.integer[Any]],
    start_id: int,
    window: int,
    progress: Progress | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run the recurrent part over a text, the state carried from the first token to the last.

    To be used under `torch.inference_mode`.

    Parameters
    ----------
    model : LanguageModel
        As `ready` returns it.
    ids : ndarray
        Integers [tokens], as `checked_ids` returns them.
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


def hidden_states_in_parts(
    model: LanguageModel, ids: npt.NDArray[np.integer[Any]], start_id: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run the recurrent part over up to `PARTS` parts of a text side by side: much faster.

    All parts but the first begin `WARM_UP` tokens early with a state of zeros, so the numbers are
    nearly, not wholly, those of `hidden_states`. A text too short for two parts is read as one.

    Parameters
    ----------
    model, ids, start_id
        See `hidden_states`.

    Yields
    ------
    hidden, targets : Tensor
        As `hidden_states` yields them, in another order.
    """
    count = max(1, min(PARTS, len(ids) // LEAST_PART))
    streams = TokenStreams(ids, start_id, count, WINDOW // 4)
    state = model.initial_state(1)
    if count > 1:
        # What is read before the last token before each part, int64 [WARM_UP, parts - 1].
        begins = np.arange(1, count) * streams.length - 1
        before = ids[np.arange(-WARM_UP, 0)[:, None] + begins].astype(np.int64)
        fresh = model.initial_state(count - 1)
        warm = model.hidden(torch.from_numpy(before).to(model.device), fresh).state
        state = [
            tuple(torch.cat(pair) for pair in zip(*layer, strict=True))
            for layer in zip(state, warm, strict=True)
        ]
    for inputs, targets in streams:
        hidden = model.hidden(inputs.to(model.device), state)
        state = hidden.state
        yield hidden.output.flatten(0, 1), targets.flatten().to(model.device)
    rest = ids[count * streams.length :]
    if len(rest):
        last = [tuple(each[-1:] for each in layer) for layer in state]
        inputs, targets = next(windows(rest, int(ids[count * streams.length - 1]), len(rest)))
        output = model.hidden(inputs.to(model.device), last).output
        yield output.squeeze(1), targets.squeeze(1).to(model.device)


def output_blocks(
    hidden: Tensor, targets: Tensor, vocabulary_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut `hidden` [n, size] and `targets` [n] so that a block's logits stay small."""
    rows = max(1, LOGITS_BYTES // (4 * vocabulary_size))
    yield from zip(hidden.split(rows), targets.split(rows), strict=True)


def _is_full(op: LinearOp) -> bool:
    """Return whether placed blocks multiply no less than the whole matrix would."""
    return isinstance(op, PlacedBlocks) and op.cost().macs >= op.out_features * op.in_features


def _unpacked_blocks(op: LinearOp, name: str) -> LinearOp:
    if not isinstance(op, PlacedBlocks):
        return _unpacked(op, name)
    blocks = op.children_by_name()
    return op.with_children({key: _unpacked(block, name) for key, block in blocks.items()})


def _unpacked(op: LinearOp, name: str) -> LinearOp:
    if isinstance(op, Dense) and op.stored_type == "float32":
        return op
    return Dense(op.dense())
