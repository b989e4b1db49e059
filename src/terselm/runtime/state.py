"""Where a text is."""

from __future__ import annotations

import ctypes

from terselm.runtime.library import check, library


class State:
    """The state of a model after what it has read: plain bytes, made by `Model.state`.

    Two states are equal where all of their bytes are.
    """

    def __init__(self, model: ctypes.c_void_p) -> None:
        self._model = model
        self._bytes = ctypes.create_string_buffer(library().tlm_state_size(model))

    @property
    def address(self) -> int:
        """Where the bytes are, for calls of the C library."""
        return ctypes.addressof(self._bytes)

    def copy(self) -> State:
        """Return an independent copy."""
        other = State(self._model)
        other.assign(self)
        return other

    def assign(self, other: State) -> None:
        """Become equal to `other`, a state of the same model."""
        self._bytes.raw = other._bytes.raw

    def clear(self) -> None:
        """Become the state before anything was read, the start of a text included."""
        check(library().tlm_state_init(self._model, self.address), "state")

    def save(self) -> bytes:
        """Return bytes for storage; they say which model file they belong to."""
        size = library().tlm_state_saved_size(self._model)
        saved = ctypes.create_string_buffer(size)
        check(library().tlm_state_save(self._model, self.address, saved), "state")
        return saved.raw

    def restore(self, saved: bytes) -> None:
        """Take the place of what `save` returned.

        Raises
        ------
        TerselmError
            If these are no bytes of a state of this model file.
        """
        status = library().tlm_state_restore(self._model, saved, len(saved), self.address)
        check(status, "saved state")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self._bytes.raw == other._bytes.raw

    def __hash__(self) -> int:
        return hash(self._bytes.raw)
