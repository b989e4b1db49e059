"""Which files of a folder are the splits of a corpus."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from terselm.errors import TerselmError

TEXT_SUFFIXES = (".txt", ".tokens", ".raw", ".text")
SPELLINGS = {"train": ("train",), "valid": ("valid", "validation", "dev", "val"), "test": ("test",)}


def find_split_files(folder: Path, splits: Sequence[str]) -> Path | dict[str, Path]:
    """Find the text files of a corpus.

    A file belongs to a split if its name without the suffix is the name of the split, or ends
    with it after a dot, hyphen or underscore.

    Parameters
    ----------
    folder : Path
    splits : sequence of str
        Names out of train, valid and test.

    Returns
    -------
    Path or dict of str to Path
        The file of each split, or the only text file of the folder where it is named after no
        split.

    Raises
    ------
    TerselmError
        If a split has no file or two, or the folder cannot be read.
    """
    try:
        files = sorted(
            path
            for path in folder.iterdir()
            if path.suffix in TEXT_SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise TerselmError(f"cannot read {folder}: {error.strerror}") from None
    found = {split: [path for path in files if _is_of(path, split)] for split in splits}
    if len(files) == 1 and not any(found.values()):
        return files[0]
    for split, candidates in found.items():
        if len(candidates) > 1:
            names = " and ".join(path.name for path in candidates)
            raise TerselmError(f"{folder} has several files for {split}: {names}; keep one")
    for split, candidates in found.items():
        if not candidates:
            looked = ", ".join(f"{word}.txt, *.{word}.txt" for word in SPELLINGS[split])
            there = ", ".join(path.name for path in files[:5]) or "no text file"
            raise TerselmError(
                f"{folder} has no {split} split: looked for {looked} "
                f"(also {', '.join(TEXT_SUFFIXES[1:])}), there is {there}; "
                "to have one text cut in three, give that file alone"
            )
    return {split: candidates[0] for split, candidates in found.items()}


def _is_of(path: Path, split: str) -> bool:
    spellings = "|".join(SPELLINGS[split])
    return re.fullmatch(rf"(?:.*[._-])?(?:{spellings})", path.stem, re.IGNORECASE) is not None
