"""Calibration text as streams that run side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def parallel_streams(
    ids: npt.NDArray[np.integer[Any]], streams: int, steps: int | None = None
) -> Tensor:
    """Cut the beginning of a text into streams, one after the other.

    Parameters
    ----------
    ids : ndarray
        Token ids [n].
    streams : int
    steps : int, optional
        The length of a stream, at most n // streams; without it as long as that.

    Returns
    -------
    Tensor
        int64 [steps, streams], on the CPU.
    """
    length = len(ids) // streams if steps is None else steps
    grid = np.asarray(ids[: length * streams], dtype=np.int64).reshape(streams, length)
    return torch.from_numpy(np.ascontiguousarray(grid.T))
