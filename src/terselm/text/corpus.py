"""Text in three splits, read line by line."""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from terselm.errors import TerselmError, UsageError
from terselm.registry import suggest
from terselm.text.cache import cache_folder
from terselm.text.download import DATASETS
from terselm.text.python_docs import python_docs_file
from terselm.text.split_files import find_split_files

SPLITS = ("train", "valid", "test")
PYTHON_DOCS = "python-docs"
SNIFFED_BYTES = 1 << 16
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class TextRange:
    """Some lines of a file.

    Attributes
    ----------
    path : Path
    start, stop : int
        Byte offsets of the first line and of the end of the last one.
    """

    path: Path
    start: int
    stop: int


class Corpus:
    """Text in the splits train, valid and test. Nothing is held in memory.

    Parameters
    ----------
    name : str
        What people call it.
    ranges : mapping of str to TextRange
        Where the lines of each split are.
    """

    def __init__(self, name: str, ranges: Mapping[str, TextRange]) -> None:
        self.name = name
        self.ranges = dict(ranges)

    def __repr__(self) -> str:
        return f"<Corpus {self.name}: {', '.join(self.splits)}>"

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.ranges)

    def range_of(self, split: str) -> TextRange:
        """Return where a split is.

        Raises
        ------
        UsageError
            If there is no such split.
        """
        if split not in self.ranges:
            raise UsageError(f"{self.name} has no split {split!r}; {suggest(split, self.ranges)}")
        return self.ranges[split]

    def lines(self, split: str) -> Iterator[str]:
        """Return an iterator over the lines of a split, without their ends.

        A line ends with a newline, or a carriage return and a newline; a byte order mark at
        the start of a file is left out.

        Raises
        ------
        UsageError
            If there is no such split.
        TerselmError
            While reading: if the file cannot be read, is binary or not UTF-8. The message
            has file, line and byte offset.
        """
        return _read_lines(self.range_of(split))

    def characters(self, split: str) -> int:
        """Return how many characters a split has, one for each line end included.

        Raises
        ------
        UsageError
            If there is no such split.
        TerselmError
            If the file cannot be read, is binary or not UTF-8.
        """
        return sum(len(line) + 1 for line in self.lines(split))

    def digest(self) -> str:
        """Return 16 hex digits that change with any line of any split.

        Raises
        ------
        TerselmError
            If a file cannot be read, is binary or not UTF-8.
        """
        digest = hashlib.sha256()
        for split in self.splits:
            digest.update(f"{split}\n\n".encode())
            for line in self.lines(split):
                digest.update(line.encode() + b"\n")
        return digest.hexdigest()[:16]


def open_corpus(where: str | Path) -> Corpus:
    """Open a corpus by name or place.

    Parameters
    ----------
    where : str or Path
        One of

        * a folder with a text file for each split, such as `train.txt`, `ptb.valid.txt`,
          `wiki.test.tokens`;
        * a text file, or a folder with exactly one: the last 10 % become test, the 10 %
          before it valid, both beginning at the start of a line;
        * the name `ptb` or `tinyshakespeare` (as str), looked for in the folder
          `TERSELM_DATA`, then where `terselm data get` puts it;
        * the name `python-docs`: the docstrings of Python's standard library.

    Raises
    ------
    UsageError
        If there is nothing of this name.
    TerselmError
        If a split is missing, or a file is empty, binary or cannot be read.
    """
    if not str(where):
        raise UsageError("no corpus named; give a folder, a text file or a name such as ptb")
    if where == PYTHON_DOCS:
        return Corpus(PYTHON_DOCS, _split_file(python_docs_file()))
    if isinstance(where, str) and where in DATASETS:
        return _open_path(_dataset_folder(where), where)
    path = Path(where).expanduser()
    if not path.exists():
        hint = suggest(str(where), (*DATASETS, PYTHON_DOCS)).removesuffix("?")
        raise UsageError(f"no file or folder {where}; give a folder, a text file or a name; {hint}")
    return _open_path(path, path.resolve().name)


def _dataset_folder(name: str) -> Path:
    places = [cache_folder() / "data" / name]
    if os.environ.get("TERSELM_DATA"):
        places.insert(0, Path(os.environ["TERSELM_DATA"]).expanduser() / name)
    for place in places:
        if place.is_dir():
            return place
    looked = " or ".join(map(str, places))
    here = f" (for the one in this folder: ./{name})" if Path(name).exists() else ""
    raise TerselmError(f"{name} is not in {looked}; get it: terselm data get {name}{here}")


def _open_path(path: Path, name: str) -> Corpus:
    if not path.is_dir():
        return Corpus(name, _split_file(path))
    files = find_split_files(path, SPLITS)
    if isinstance(files, Path):
        return Corpus(name, _split_file(files))
    return Corpus(
        name, {split: TextRange(file, 0, _size_of_text(file)) for split, file in files.items()}
    )


def _split_file(path: Path) -> dict[str, TextRange]:
    """Cut a file at the first line that starts at 80 % of its bytes or later, and at 90 %."""
    size = _size_of_text(path)
    cuts = [0]
    try:
        with path.open("rb") as file:
            for tenths in (8, 9):
                # From one byte earlier, so that a line that starts exactly here stays whole.
                file.seek(max(size * tenths // 10 - 1, 0))
                file.readline()
                cuts.append(file.tell())
    except OSError as error:
        raise _unreadable(path, error) from None
    cuts.append(size)
    if len(set(cuts)) < len(cuts):
        raise TerselmError(
            f"{path} has too few lines to be cut into train, valid and test; "
            "give a longer text or a folder with train.txt, valid.txt and test.txt"
        )
    return {
        split: TextRange(path, start, stop)
        for split, start, stop in zip(SPLITS, cuts, cuts[1:], strict=False)
    }


def _size_of_text(path: Path) -> int:
    """Return the bytes of a file that looks like text."""
    if not path.is_file():
        raise TerselmError(f"{path} is not a regular file; give a text file")
    try:
        with path.open("rb") as file:
            head = file.read(SNIFFED_BYTES)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise _unreadable(path, error) from None
    if not size:
        raise TerselmError(f"{path} is empty; give a file with text")
    if b"\0" in head:
        raise _binary(path, head.index(b"\0"))
    return size


def _read_lines(where: TextRange) -> Iterator[str]:
    path, position = where.path, where.start
    try:
        with path.open("rb") as file:
            file.seek(position)
            while position < where.stop:
                raw = file.readline(where.stop - position)
                if not raw:
                    raise TerselmError(f"{path} became shorter while it was read; start again")
                yield _decode(raw, path, position)
                position += len(raw)
    except OSError as error:
        raise _unreadable(path, error) from None


def _decode(raw: bytes, path: Path, position: int) -> str:
    if b"\0" in raw:
        raise _binary(path, position + raw.index(b"\0"))
    line = raw.removesuffix(b"\n").removesuffix(b"\r")
    if position == 0:
        line = line.removeprefix(codecs.BOM_UTF8)
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        offset = position + error.start + (raw.startswith(codecs.BOM_UTF8) and not position) * 3
        raise TerselmError(
            f"{path} is not UTF-8 in line {_line_number(path, offset)}, byte {offset}; "
            "convert it to UTF-8"
        ) from None


def _line_number(path: Path, offset: int) -> int:
    """Return the number, from 1, of the line that holds a byte."""
    number, rest = 1, offset
    with path.open("rb") as file:
        while rest > 0 and (chunk := file.read(min(rest, CHUNK_BYTES))):
            number += chunk.count(b"\n")
            rest -= len(chunk)
    return number


def _binary(path: Path, offset: int) -> TerselmError:
    return TerselmError(
        f"{path} is not text: a zero byte in line {_line_number(path, offset)}, byte {offset}; "
        "give plain text in UTF-8"
    )


def _unreadable(path: Path, error: OSError) -> TerselmError:
    return TerselmError(f"cannot read {path}: {error.strerror}; check its permissions")
