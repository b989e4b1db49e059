"""Where corpora and token ids are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

from terselm.errors import TerselmError


def cache_folder() -> Path:
    """Return terselm's cache: TERSELM_CACHE, else a folder of the user's cache."""
    named = os.environ.get("TERSELM_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "terselm"


def make_folder(folder: Path) -> Path:
    """Make a folder inside the cache and return it.

    Raises
    ------
    TerselmError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TerselmError(
            f"cannot make the cache folder {folder}: {error.strerror}; set TERSELM_CACHE"
        ) from None
    return folder
