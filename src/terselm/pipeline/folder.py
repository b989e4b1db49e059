"""The folder of a search: what lies where, and who may write in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from terselm.errors import UsageError
from terselm.files import write_bytes
from terselm.pipeline.front import ANSWERS
from terselm.pipeline.measurement import Candidate
from terselm.pipeline.workbench import trained_file, training_ends

STUDY = "search.sqlite3"
RESULTS = "results.json"
LOCK = "search.lock"
PLACES = ("chosen", *(name for name, _ in ANSWERS))
"""Folders of the models that are handed over."""
MODEL, CARD, COPY = "model.safetensors", "README.md", ".model"


def study_url(folder: Path) -> str:
    """Return the address of the study in the folder."""
    return f"sqlite:///{(folder / STUDY).resolve()}"


@contextmanager
def locked(folder: Path, *, resume: bool) -> Iterator[None]:
    """Hold the folder for one search, making it where it is not there.

    Raises
    ------
    UsageError
        If the folder cannot be made, another search works in it, or it holds the results of an
        earlier one and is not to be resumed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot make this folder: {error.strerror}") from None
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"--out {folder}: another search is at work there; give another folder"
        ) from None
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot write there: {error.strerror}") from None
    try:
        check_unused(f"--out {folder}", used=(folder / RESULTS).exists(), resume=resume)
        yield
    finally:
        lock.release()


def check_unused(where: str, *, used: bool, resume: bool) -> None:
    """Refuse to begin a search where there is one.

    Parameters
    ----------
    where : str
        The option, and what it was given.
    used : bool
        Whether there is an earlier search.
    resume : bool
        Whether that is to go on.

    Raises
    ------
    UsageError
    """
    if used and not resume:
        option = where.split()[0]
        raise UsageError(
            f"{where} holds an earlier search; go on with --resume, or give another {option}"
        )


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write results.json, and the recipe of every candidate as a file of its own."""
    recipes = folder / "recipes"
    recipes.mkdir(exist_ok=True)
    for candidate in results["candidates"]:
        text = yaml.safe_dump(candidate["recipe"], sort_keys=False, width=100)
        write_bytes(recipes / f"{candidate['number']}.yaml", text.encode())
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(folder / RESULTS, (text + "\n").encode())


def place_models(folder: Path, picked: Mapping[str, Candidate], cards: Mapping[str, str]) -> None:
    """Put picked models and their cards into folders of their names; empty those of earlier picks.

    Parameters
    ----------
    folder : Path
        Of the search.
    picked : mapping of str to Candidate
        By name of the folder, one of `PLACES`.
    cards : mapping of str to str
        The model cards, by the same names.
    """
    for name, candidate in picked.items():
        place = folder / name
        place.mkdir(exist_ok=True)
        shutil.copyfile(folder / candidate.file, place / COPY)
        (place / COPY).replace(place / MODEL)
        write_bytes(place / CARD, cards[name].encode())
    for name in PLACES:
        if name not in picked:
            _empty(folder / name)


def _empty(place: Path) -> None:
    """Remove what `place_models` wrote, and the folder unless something else lies in it."""
    for name in (COPY, MODEL, CARD):
        (place / name).unlink(missing_ok=True)
    with suppress(OSError):
        place.rmdir()


def tidy(folder: Path, seed: int, kept: Sequence[Candidate], others: Iterable[Candidate]) -> None:
    """Remove the model files of candidates that are not kept, and what only they were made from."""
    numbers = {candidate.number for candidate in kept}
    for candidate in others:
        if candidate.number not in numbers:
            (folder / candidate.file).unlink(missing_ok=True)
    needed = {
        trained_file(folder, seed, candidate.recipe[:end])
        for candidate in kept
        for end in training_ends(candidate.recipe, 0)
    }
    for path in (folder / "trained").glob("*.safetensors"):
        if path not in needed:
            path.unlink()
