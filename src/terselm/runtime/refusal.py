"""Why a file was not opened, in a line that says what to do."""

from __future__ import annotations

import os
from pathlib import Path

from terselm.errors import TerselmError
from terselm.runtime.library import library

READ, NOT_A_MODEL, DAMAGED, CHECKSUM, VERSION = 3, 4, 5, 6, 7
LENGTH_BYTES = 8
"""Of the number that a safetensors file begins with; its header, JSON, follows."""
ARCHIVES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files of `torch.save` begin, and other pickles."""


def refusal(path: str | os.PathLike[str], status: int, message: str) -> TerselmError:
    """Return the error for a file that the C library did not open.

    Parameters
    ----------
    path : str or path-like
    status : int
        What the C library returned.
    message : str
        What it said.
    """
    name = os.fsdecode(path)
    if status in (CHECKSUM, VERSION):  # says what to do
        return TerselmError(f"{name}: {message}")
    if status == READ:  # says the path itself
        return TerselmError(f"{message}; give a model file that terselm wrote")
    if status in (NOT_A_MODEL, DAMAGED):
        begin = _begin(path)
        if begin.startswith(ARCHIVES):
            return TerselmError(
                f"{name} is a pickle, not a safetensors file; import it: terselm import {name}"
            )
        if begin[LENGTH_BYTES:] != b"{":
            return TerselmError(
                f"{name} is no terselm model file; give a model file that terselm wrote"
            )
    if status == NOT_A_MODEL:
        return TerselmError(
            f"{name} is not a terselm model; to import a state dict: terselm import {name}"
        )
    what = library().tlm_error_text(status).decode()
    return TerselmError(f"{name}: {message} ({what}); give a whole model file that terselm wrote")


def _begin(path: str | os.PathLike[str]) -> bytes:
    """Return the length of the header and the first byte of it, or as much as there is."""
    try:
        with Path(os.fsdecode(path)).open("rb") as file:
            return file.read(LENGTH_BYTES + 1)
    except OSError:
        return b""
