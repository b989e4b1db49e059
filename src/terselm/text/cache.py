"""The folder in which terselm keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path

from terselm.errors import TerselmError


def cache_folder() -> Path:
    """Return the cache folder of this user; it need not exist.

    It is `TERSELM_CACHE`, else `terselm` in `XDG_CACHE_HOME`, else `~/.cache/terselm`.

    Raises
    ------
    TerselmError
        If none of these is known.
    """
    named = os.environ.get("TERSELM_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if Path(base).is_absolute():  # the XDG standard says to ignore relative paths
        return Path(base) / "terselm"
    try:
        return Path.home() / ".cache" / "terselm"
    except RuntimeError:
        raise TerselmError("no home folder for the cache; set TERSELM_CACHE to a folder") from None


def make_folder(folder: Path) -> Path:
    """Make `folder` where it is missing and return it.

    Raises
    ------
    TerselmError
        If it cannot be made or written to; the message names it and `TERSELM_CACHE`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TerselmError(
            f"cannot make the cache folder {folder}: {error.strerror}; "
            "set TERSELM_CACHE to a folder you can write to"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TerselmError(
            f"cannot write to the cache folder {folder}; "
            "set TERSELM_CACHE to a folder you can write to"
        )
    return folder
