"""Windows of tokens for training and evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from terselm.errors import TerselmError, UsageError


class TokenStreams:
    """A text cut into equally long streams that are read side by side, window after window.

    Stream b holds tokens b L to (b + 1) L - 1, where L is the number of tokens divided by the
    number of streams, rounded down; what remains at the end of the text is left out. Every
    other token is a target exactly once.

    Parameters
    ----------
    ids : ndarray
        Integers [tokens]; a memory-mapped array is read a window at a time.
    start_id : int
        The input before the first token of the text.
    streams : int
        How many streams, at least 1.
    window : int
        Steps in a window, at least 1.

    Raises
    ------
    UsageError
        If `streams` or `window` is below 1.
    TerselmError
        If there are fewer tokens than streams.
    """

    def __init__(
        self, ids: npt.NDArray[np.integer[Any]], start_id: int, streams: int, window: int
    ) -> None:
        if streams < 1 or window < 1:
            raise UsageError(f"{streams} streams in windows of {window}: both must be at least 1")
        if len(ids) < streams:
            advice = f"use a batch of at most {len(ids)}" if len(ids) else "give more text"
            raise TerselmError(f"{len(ids)} tokens are too few for {streams} streams; {advice}")
        self.start_id = start_id
        self.streams = streams
        self.window_length = window
        self.length = len(ids) // streams
        self._tokens = ids[: streams * self.length].reshape(streams, -1)  # [B, L], a view
        self._before = np.full(streams, start_id, np.int64)  # [B], the token before each stream
        self._before[1:] = self._tokens[:-1, -1]

    def __len__(self) -> int:
        return -(-self.length // self.window_length)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return map(self.window, range(len(self)))

    def window(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one window.

        Parameters
        ----------
        index : int
            From 0 to `len(self) - 1`.

        Returns
        -------
        inputs, targets : Tensor
            int64 [steps, streams]. A target follows its input in the text. The last window
            may have fewer steps.

        Raises
        ------
        IndexError
            If there is no such window.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        start = index * self.window_length
        stop = min(start + self.window_length, self.length)
        targets = self._tokens[:, start:stop]  # [B, T]
        inputs = np.empty((stop - start, self.streams), np.int64)
        inputs[1:] = targets[:, :-1].T
        inputs[0] = self._tokens[:, start - 1] if start else self._before
        return torch.from_numpy(inputs), torch.from_numpy(targets.T.astype(np.int64, order="C"))

    def shard(self, rank: int, world: int) -> TokenStreams:
        """Return the streams of one of several processes.

        Parameters
        ----------
        rank : int
            Which process, from 0.
        world : int
            How many processes; it must divide the number of streams.

        Raises
        ------
        UsageError
            If the streams cannot be shared out equally, or there is no such rank.
        """
        if world < 1 or self.streams % world:
            raise UsageError(
                f"{self.streams} streams cannot be shared equally by {world} processes; "
                "use a multiple"
            )
        if not 0 <= rank < world:
            raise UsageError(f"rank {rank} of {world} processes does not exist")
        share = self.streams // world
        mine = slice(rank * share, (rank + 1) * share)
        part = copy.copy(self)
        part.streams = share
        part._tokens, part._before = self._tokens[mine], self._before[mine]
        return part


def windows(
    ids: npt.NDArray[np.integer[Any]], start_id: int, window: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return an iterator over a text as one stream: every token is a target exactly once.

    Parameters
    ----------
    ids : ndarray
        Integers [tokens].
    start_id : int
        The input before the first token.
    window : int
        Steps in a window, at least 1.

    Returns
    -------
    iterator of (Tensor, Tensor)
        Inputs and targets, int64 [steps, 1]; the last window may have fewer steps.

    Raises
    ------
    UsageError
        If `window` is below 1.
    TerselmError
        If there are no tokens.
    """
    return iter(TokenStreams(ids, start_id, 1, window))
