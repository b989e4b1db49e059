"""What an exporter is, and exporting a model file."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terselm.errors import TerselmError, UsageError
from terselm.registry import Registry, suggest
from terselm.runtime.memory import MemoryNeeds, memory_needs
from terselm.runtime.model import Model

EXPORTERS: Registry[type[Exporter]] = Registry("target", "terselm.exporters")

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
TAKEN = re.compile(r"tlm(_.*)?|terselm", re.IGNORECASE)
"""What names in the C library begin with, and the guard of its header."""


@dataclass(frozen=True)
class Source:
    """A sound model file.

    Attributes
    ----------
    file_name : str
        Without its folder.
    content : bytes
        All of it.
    document : dict
        Its description: config, vocabulary, provenance.
    needs : MemoryNeeds
        What the C library takes for it.
    """

    file_name: str
    content: bytes
    document: dict[str, Any]
    needs: MemoryNeeds

    @property
    def perplexities(self) -> dict[str, float]:
        """By split, as the provenance has them; empty where it has none."""
        provenance = self.document.get("provenance")
        stated = provenance.get("perplexity") if isinstance(provenance, dict) else None
        if not isinstance(stated, dict):
            return {}
        return {
            str(split): float(value)
            for split, value in stated.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }


@dataclass(frozen=True)
class Exported:
    """What was written: the C name, the bytes of the model file, and what they take in memory."""

    name: str
    flash: int
    needs: MemoryNeeds


class Exporter(ABC):
    """Writes a model for one target. Has no state."""

    @classmethod
    @abstractmethod
    def write(cls, source: Source, out: Path, name: str) -> None:
        """Write `out`, at once or not at all; `name` begins the names in it."""


def export_model(
    model: str | Path, out: str | Path, *, target: str, name: str | None = None
) -> Exported:
    """Write a model file for a target.

    Parameters
    ----------
    model : str or Path
        A model file.
    out : str or Path
        Where to write; its folder must exist.
    target : str
        A registered exporter, with hyphens: "c-array".
    name : str, optional
        What names in the result begin with; from `out` if left out.

    Raises
    ------
    UsageError
        If there is no such target, or the name cannot begin names in C.
    TerselmError
        If the file is no sound model, or `out` cannot be written.
    """
    targets = {known.replace("_", "-"): known for known in EXPORTERS}
    if target not in targets:
        raise UsageError(f"unknown target {target!r}; {suggest(target, targets)}")
    name = _name_from(Path(out)) if name is None else name
    if not _is_free(name):
        raise UsageError(
            f"name is {name!r}; use letters, digits and underscores, a letter first, and not "
            "'tlm', 'tlm_...' or 'terselm', which are the C library's"
        )
    source = _read(Path(model))
    EXPORTERS.get(targets[target]).write(source, Path(out), name)
    return Exported(name, len(source.content), source.needs)


def _name_from(out: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_]", "_", out.stem)
    return name if _is_free(name) else f"model_{name}"


def _is_free(name: str) -> bool:
    return bool(NAME.fullmatch(name)) and not TAKEN.fullmatch(name)


def _read(path: Path) -> Source:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}; give a model file that terselm wrote"
        ) from None
    try:
        needs = memory_needs(content)
    except TerselmError as error:
        Model(path)  # which says what to do, too
        raise TerselmError(f"{path}: {error}") from None
    # The library has checked both of these.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    document = json.loads(header["__metadata__"]["terselm"])
    return Source(path.name, content, document, needs)
