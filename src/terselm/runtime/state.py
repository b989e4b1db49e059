"""Where a text is."""

from __future__ import annotations

import ctypes
from typing import Any

from terselm.errors import UsageError
from terselm.runtime.library import check, library
from terselm.runtime.opened import Opened


class State:
    """The state of a model after what it has read: plain bytes, made by `Model.state`.

    Two states are equal where all of their bytes are. A state goes with every `Model` of the same
    file, and may outlive them: it keeps the file in memory.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._bytes = ctypes.create_string_buffer(opened.state_size)

    def address_in(self, opened: Opened) -> int:
        """Return where the bytes are, for calls of the C library with this file.

        Raises
        ------
        UsageError
            If it is a state of another model file: its size and meaning are others.
        """
        if not opened.shares_states_with(self._opened):
            raise UsageError("this is a state of another model")
        return ctypes.addressof(self._bytes)

    def copy(self) -> State:
        """Return an independent copy."""
        other = State(self._opened)
        other.assign(self)
        return other

    def __copy__(self) -> State:
        return self.copy()

    def __deepcopy__(self, _: dict[int, Any]) -> State:
        return self.copy()

    def assign(self, other: State) -> None:
        """Become equal to `other`.

        Raises
        ------
        UsageError
            If that is a state of another model file.
        """
        other.address_in(self._opened)
        self._bytes.raw = other._bytes.raw

    def clear(self) -> None:
        """Become the state before anything was read, the start of a text included."""
        status = library().tlm_state_init(self._opened.handle, self.address_in(self._opened))
        check(status, "state")

    def save(self) -> bytes:
        """Return bytes for storage; they say which model file they belong to."""
        handle = self._opened.handle
        saved = ctypes.create_string_buffer(library().tlm_state_saved_size(handle))
        check(library().tlm_state_save(handle, self.address_in(self._opened), saved), "state")
        return saved.raw

    def restore(self, saved: bytes) -> None:
        """Take the place of what `save` returned.

        Raises
        ------
        TerselmError
            If these are no bytes of a state of this model file.
        """
        address = self.address_in(self._opened)
        status = library().tlm_state_restore(self._opened.handle, saved, len(saved), address)
        check(status, "saved state")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self._bytes.raw == other._bytes.raw

    def __hash__(self) -> int:
        return hash(self._bytes.raw)
