"""Writing files so that a reader sees the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from terselm.errors import TerselmError


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its place when the block ends well.

    Parameters
    ----------
    path : str or Path
        Where the finished file shall be. Its folder must exist. A symbolic link stays one: the
        file that it names is replaced.

    Yields
    ------
    BinaryIO
        The temporary file, open for writing bytes.

    Raises
    ------
    TerselmError
        If the folder cannot be written to, the disk is full, or a device or pipe stands at
        `path`. The temporary file is removed and whatever stood at `path` is as it was.
    """
    path = Path(path).resolve()
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise TerselmError(f"cannot write {path}: it is a device, not a file; give another name")
    handle, temporary = _make_temporary(path)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _give_usual_permissions(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise TerselmError(
            f"cannot write {path}: {error.strerror}; nothing was changed there"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Fail where `atomic_write` could not even begin; whatever stands at `path` stays as it is.

    Raises
    ------
    TerselmError
        If the folder cannot be written to.
    """
    handle, temporary = _make_temporary(Path(path).resolve())
    os.close(handle)
    temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` at once or not at all (see `atomic_write`)."""
    with atomic_write(path) as file:
        file.write(data)


def _make_temporary(path: Path) -> tuple[int, Path]:
    try:
        # Shortened, for a file system may allow no more than 255 bytes for a name.
        short = os.fsdecode(os.fsencode(path.name)[:100])
        handle, name = tempfile.mkstemp(prefix=f".{short}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise TerselmError(
            f"cannot write {path}: {error.strerror}; choose another folder"
        ) from None
    return handle, Path(name)


def _give_usual_permissions(path: Path) -> None:
    # mkstemp makes files only their owner can read; a model is shared like any other file.
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
