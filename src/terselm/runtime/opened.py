"""An opened model file of the C library."""

from __future__ import annotations

import ctypes
import os

from terselm.errors import UsageError
from terselm.runtime.library import check, library
from terselm.runtime.refusal import refusal

MESSAGE_BYTES = 512


class Opened:
    """A model file in memory. Everything that reads it holds this, and it closes after the last.

    Parameters
    ----------
    path : str or path-like
    trusted : bool
        Do not compare the checksum.

    Raises
    ------
    TerselmError
        If the file is not a whole, sound model file.
    """

    def __init__(self, path: str | os.PathLike[str], trusted: bool) -> None:
        self.handle = ctypes.c_void_p()
        if b"\0" in os.fsencode(path):
            raise UsageError(f"{path!r} is no path: it holds a NUL")
        message = ctypes.create_string_buffer(MESSAGE_BYTES)
        calls = library()
        open_file = calls.tlm_open_trusted_file if trusted else calls.tlm_open_file
        status = open_file(os.fsencode(path), ctypes.byref(self.handle), message, MESSAGE_BYTES)
        if status != 0:
            raise refusal(path, status, message.value.decode(errors="replace"))
        self.state_size: int = calls.tlm_state_size(self.handle)
        # What a stored state begins with, the digest of the weights in it.
        saved = ctypes.create_string_buffer(calls.tlm_state_saved_size(self.handle))
        check(calls.tlm_state_save(self.handle, bytes(self.state_size), saved), "state")
        self._mark = saved.raw[: len(saved) - self.state_size]

    def shares_states_with(self, other: Opened) -> bool:
        """Return whether both are the same file, opened once or twice."""
        if self is other:
            return True
        return (self._mark, self.state_size) == (other._mark, other.state_size)

    def __del__(self) -> None:
        if self.handle:
            library().tlm_close(self.handle)

    def __reduce__(self) -> str:
        raise TypeError("an opened file stays in its process and has no copy")
