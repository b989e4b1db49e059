"""How much memory the C library takes for a model where there is no malloc."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from terselm.errors import TerselmError
from terselm.runtime.library import check, library

STEP = 64
"""Where the parts begin, in bytes: a context needs it."""

MESSAGE_BYTES = 512


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes beside the file itself; a batch of one, one thread.

    Attributes
    ----------
    opening : int
        What `tlm_open_in` takes while it runs.
    model : int
        What of this the model keeps.
    context, state : int
        Working memory, and where one text is.
    """

    opening: int
    model: int
    context: int
    state: int

    @property
    def total(self) -> int:
        """One block that is enough: the context lies where opening needs memory no more."""
        return max(self.opening, -(-self.model // STEP) * STEP + self.context + self.state)


def memory_needs(file: bytes) -> MemoryNeeds:
    """Open a model file as a microcontroller does, and return what the library says it takes.

    Pointers have the size of this machine's: on one with smaller pointers it is less.

    Raises
    ------
    TerselmError
        If the bytes are not a sound model file; the message is the library's.
    """
    calls = library()
    size, context = ctypes.c_size_t(), ctypes.c_size_t()
    model = ctypes.c_void_p()
    message = ctypes.create_string_buffer(MESSAGE_BYTES)
    held, address = _aligned(len(file))
    ctypes.memmove(address, file, len(file))
    status = calls.tlm_open_size(address, len(file), ctypes.byref(size), message, MESSAGE_BYTES)
    if status == 0:
        memory, place = _aligned(size.value)
        status = calls.tlm_open_in(
            address, len(file), place, size, ctypes.byref(model), message, MESSAGE_BYTES
        )
    if status != 0:
        raise TerselmError(message.value.decode(errors="replace"))
    check(calls.tlm_context_size(model, None, ctypes.byref(context)), "context")
    needs = MemoryNeeds(
        opening=calls.tlm_opening_bytes(model),
        model=calls.tlm_model_bytes(model),
        context=context.value,
        state=calls.tlm_state_size(model),
    )
    del memory, held  # the model lies in them
    return needs


def _aligned(size: int) -> tuple[object, int]:
    """Return what holds `size` bytes, and the address of the first at a multiple of `STEP`."""
    block = (ctypes.c_char * (size + STEP))()
    return block, -(-ctypes.addressof(block) // STEP) * STEP
