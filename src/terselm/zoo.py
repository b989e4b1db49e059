"""The models that come with terselm, each with the experiment that made it."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terselm.errors import TerselmError, UsageError
from terselm.files import atomic_write
from terselm.registry import suggest

PREFIX = "zoo:"
"""Before a name where a model file is asked for."""
MODEL, RESULT, CARD = "model.safetensors", "result.json", "README.md"


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    Attributes
    ----------
    name : str
    folder : Path
        With the model, its card and its result.
    result : mapping
        What `terselm reproduce` measured; see `terselm.experiments.work.perform`.
    """

    name: str
    folder: Path
    result: Mapping[str, Any]

    @property
    def model(self) -> Path:
        """The model file."""
        return self.folder / MODEL

    @property
    def bytes(self) -> int:
        """Of the model file."""
        return self.model.stat().st_size

    @property
    def tokens(self) -> str:
        """What its tokens are: "words", "characters" or "bpe", as the header of the file says.

        Raises
        ------
        TerselmError
            If it does not say so.
        """
        try:
            with self.model.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            return str(json.loads(header["__metadata__"]["terselm"])["vocabulary"]["kind"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError):
            raise TerselmError(f"{self.model} is no terselm model; install terselm anew") from None

    def as_dict(self) -> dict[str, Any]:
        """Return what a list shows, as JSON values."""
        return {
            "name": self.name,
            "title": self.result["experiment"]["title"],
            "bytes": self.bytes,
            "data": self.result["data"],
            "test_perplexity": self.result["test"]["perplexity"],
            "microseconds_per_token": self.result["microseconds_per_token"],
        }


def zoo_root() -> Path:
    """Return the folder of the zoo: in the installed package, or in a checkout.

    Raises
    ------
    TerselmError
        If there is none.
    """
    package = Path(__file__).parent
    for root in (package / "zoo", package.parents[1] / "zoo"):
        if root.is_dir():
            return root
    raise TerselmError("this installation has no zoo; install the wheel, or use a checkout")


def entries(root: Path | None = None) -> list[Entry]:
    """Return the models of a zoo, the smallest first.

    Parameters
    ----------
    root : Path, optional
        The one that came along if not given.

    Raises
    ------
    TerselmError
        If there is no zoo, or a result cannot be read.
    """
    found = []
    for folder in sorted((root or zoo_root()).iterdir()):
        if not (folder / MODEL).is_file():
            continue
        try:
            result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TerselmError(f"{folder / RESULT}: cannot be read: {error}") from None
        found.append(Entry(folder.name, folder, result))
    return sorted(found, key=lambda entry: entry.bytes)


def find(name: str, root: Path | None = None) -> Entry:
    """Return a model of the zoo.

    Raises
    ------
    UsageError
        If there is none of this name.
    """
    known = {entry.name: entry for entry in entries(root)}
    if name not in known:
        raise UsageError(f"no model {name!r} in the zoo; {suggest(name, known)}")
    return known[name]


def usual(root: Path | None = None) -> Entry:
    """Return the model that is taken where none is named: the smallest one of words.

    The smallest of all where none is of words.

    Raises
    ------
    TerselmError
        If the zoo is empty.
    """
    found = entries(root)
    if not found:
        raise TerselmError("the zoo is empty; name a model file")
    return next((entry for entry in found if entry.tokens == "words"), found[0])


def model_path(where: str) -> Path:
    """Return the file of a model that is given as a path, or as `zoo:NAME`."""
    if not where.startswith(PREFIX):
        return Path(where)
    name = where.removeprefix(PREFIX)
    return find(name).model if name else usual().model


def copy_model(entry: Entry, out: Path) -> list[Path]:
    """Copy a model, and its card beside it where it has one, and return what was written.

    Raises
    ------
    UsageError
        If the card would take the place of the model, or of another text.
    TerselmError
        If a file cannot be written; whatever stood there is as it was.
    """
    targets = {entry.model: out}
    card, beside = entry.folder / CARD, out.with_suffix(".md")
    if card.is_file():
        if beside == out:
            raise UsageError(f"--out {out}: its card has that name; give one in .safetensors")
        if beside.exists() and not _same(card, beside):
            raise UsageError(f"--out {out}: the card would replace {beside}; give another name")
        targets[card] = beside
    for source, target in targets.items():
        with source.open("rb") as read, atomic_write(target) as write:
            shutil.copyfileobj(read, write)
    return list(targets.values())


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other, shallow=False)
