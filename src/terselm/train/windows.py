"""The windows of text that one epoch goes through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from terselm.errors import UsageError
from terselm.text.batches import TokenStreams
from terselm.train.config import TrainingConfig

SHORTEST = 5
USUAL_SHARE = 0.95
DEVIATION = 5.0


class Windows:
    """Cuts the training text into windows, the same ones whenever an epoch is asked for again.

    Window lengths are a function of seed and epoch alone, so a resumed run needs no state of
    theirs, and every process cuts alike.

    Parameters
    ----------
    ids : np.ndarray
        Token ids of the training text, [tokens].
    start_id : int
        The token before the first one.
    config : TrainingConfig
        Gives `batch`, `window`, `random_window` and `seed`.
    rank, world : int
        This process and how many there are; each takes its share of the streams.

    Raises
    ------
    UsageError
        If the streams cannot be shared evenly.
    """

    def __init__(
        self, ids: np.ndarray, start_id: int, config: TrainingConfig, rank: int = 0, world: int = 1
    ) -> None:
        if config.batch % world:
            raise UsageError(
                f"batch: {config.batch} streams cannot be shared evenly by {world} processes; "
                f"use a multiple of {world}"
            )
        self._config = config
        self.streams = config.batch // world
        # Varied windows are cut from one that holds the whole text.
        window = max(len(ids), 1) if config.random_window else config.window
        streams = TokenStreams(ids, start_id, config.batch, window)
        self._streams = streams.shard(rank, world) if world > 1 else streams

    @property
    def steps(self) -> int:
        """Steps of every stream."""
        return self._streams.length

    def epoch(self, number: int) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the (inputs, targets) of an epoch, int64 [time, streams] each, in order."""
        if not self._config.random_window:
            return _FixedWindows(self._streams)
        inputs, targets = self._streams.window(0)
        draw = np.random.default_rng([self._config.seed, number])
        return _VariedWindows(inputs, targets, varied_starts(len(inputs), self._config, draw))


def varied_starts(length: int, config: TrainingConfig, draw: np.random.Generator) -> list[int]:
    """Return where windows of varied length start, and `length` at the end.

    The length is normal around `window`, or in one case of twenty around half of it
    (Merity et al. 2018, section 5).
    """
    starts = [0]
    while starts[-1] < length:
        mean = config.window if draw.random() < USUAL_SHARE else config.window / 2
        size = max(SHORTEST, int(draw.normal(mean, DEVIATION)))
        starts.append(min(length, starts[-1] + size))
    return starts


class _FixedWindows(Sequence[tuple[Tensor, Tensor]]):
    def __init__(self, streams: TokenStreams) -> None:
        self._streams = streams

    def __len__(self) -> int:
        return len(self._streams)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self._streams.window(index)


class _VariedWindows(Sequence[tuple[Tensor, Tensor]]):
    def __init__(self, inputs: Tensor, targets: Tensor, starts: list[int]) -> None:
        self._inputs, self._targets, self._starts = inputs, targets, starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        part = slice(self._starts[index], self._starts[index + 1])
        return self._inputs[part], self._targets[part]
