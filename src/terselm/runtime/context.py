"""What calls of the C library are made with: working memory, tokens, arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from terselm.errors import UsageError
from terselm.runtime.library import (
    ARGUMENT,
    NO_TOKEN,
    Options,
    check,
    kernel_names,
    library,
)
from terselm.runtime.opened import Opened
from terselm.runtime.state import State

Tokens = Sequence[int] | npt.NDArray[np.integer[Any]]


PREVIEW_BITS = (0, 2, 3, 4)
PREVIEW_MODES = ("exact", "fast")


def options_of(
    batch: int, threads: int, kernels: str | None, preview: int, preview_mode: str
) -> Options:
    """Return what a context is made with.

    Raises
    ------
    UsageError
        If one of them cannot be.
    """
    if not 1 <= batch <= 4096 or not 1 <= threads <= 256:
        raise UsageError(
            f"batch is {batch}, threads is {threads}; they go from 1 to 4096 and 1 to 256"
        )
    if preview not in PREVIEW_BITS or preview_mode not in PREVIEW_MODES:
        raise UsageError(
            f"preview is {preview}, preview_mode {preview_mode!r}; give 0, 2, 3 or 4 and "
            "exact or fast"
        )
    mode = PREVIEW_MODES.index(preview_mode) if preview else 0
    return Options(batch, threads, None if kernels is None else kernels.encode(), preview, mode)


class Context:
    """Working memory of one thread; freed with it."""

    def __init__(self, opened: Opened, options: Options) -> None:
        self.handle = ctypes.c_void_p()
        self._opened = opened  # must stay open for as long
        status = library().tlm_context_open(
            opened.handle, ctypes.byref(options), ctypes.byref(self.handle)
        )
        name = options.kernels
        if status == ARGUMENT and name is not None and not library().tlm_can_run(name):
            raise UsageError(
                f"this machine cannot run kernels {name.decode()!r}; it can run "
                f"{', '.join(kernel_names())}"
            )
        if status == ARGUMENT and options.preview:
            raise UsageError(
                "this output layer can have no preview: it is adaptive, a tensor train, "
                "that of a merged model, or made of blocks that are made of others; leave preview "
                "out"
            )
        check(status, "context")

    def __del__(self) -> None:
        if self.handle:
            library().tlm_context_close(self.handle)


def token_ids(tokens: Tokens) -> npt.NDArray[np.uint32]:
    """Return tokens as uint32; what does not fit becomes one that no vocabulary has.

    Raises
    ------
    UsageError
        If they are no list of integers.
    """
    given = np.atleast_1d(np.asarray(tokens))
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        kind = f"{given.dtype} of shape {given.shape}"
        raise UsageError(f"tokens are {kind}; give a list of integers")
    array = given.astype(np.int64)
    return np.ascontiguousarray(
        np.where((array < 0) | (array > NO_TOKEN), NO_TOKEN, array), np.uint32
    )


def addresses(states: Sequence[State], opened: Opened) -> Any:
    """Return the addresses of states as a C array.

    Raises
    ------
    UsageError
        If one is of another model file.
    """
    return (ctypes.c_void_p * len(states))(*(state.address_in(opened) for state in states))


def encoded(text: str) -> bytes:
    """Return a text in UTF-8.

    Raises
    ------
    UsageError
        If it has none: halves of surrogate pairs, such as Python makes of bytes that are no text.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the text is not UTF-8 at character {error.start + 1}") from None


def output_array(
    given: npt.NDArray[np.float32] | None, shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Return the array to write to: the given one, or a new one.

    Raises
    ------
    UsageError
        If the given one is not a contiguous, writable float32 array of this shape.
    """
    if given is None:
        return np.empty(shape, np.float32)
    fits = given.dtype == np.float32 and given.shape == shape and given.flags.c_contiguous
    if not fits or not given.flags.writeable:
        raise UsageError(f"out is {given.dtype} {given.shape}; give float32 {shape}, contiguous")
    return given
