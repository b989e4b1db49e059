"""What a model file holds."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from terselm.runtime.library import CDescription, check, library


@dataclass(frozen=True)
class Description:
    """What a model is; sizes are counts of numbers.

    `file_bytes` are bytes of the file, `read_bytes` those of them that a token reads.
    """

    format: int
    cell: str
    output: str
    vocabulary_kind: str
    vocabulary_size: int
    embedding: int
    hidden: tuple[int, ...]
    projection: int | None
    matrices: int
    tied: bool
    file_bytes: int
    read_bytes: int


def read_description(model: ctypes.c_void_p) -> Description:
    """Return what an open model is."""
    found = CDescription()
    check(library().tlm_describe(model, ctypes.byref(found)), "model")
    return Description(
        format=found.format,
        cell=found.cell.decode(),
        output=found.output.decode(),
        vocabulary_kind=found.vocabulary_kind.decode(),
        vocabulary_size=found.vocabulary_size,
        embedding=found.embedding,
        hidden=tuple(found.hidden[: found.layers]),
        projection=found.projection or None,
        matrices=found.matrices,
        tied=found.tied,
        file_bytes=found.file_bytes,
        read_bytes=found.read_bytes,
    )
