"""Opening models and text for the verbs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from terselm.cli.text import corpus_with
from terselm.errors import UsageError
from terselm.files import check_writable
from terselm.models.checkpoint import load
from terselm.models.language_model import LanguageModel
from terselm.text.corpus import open_corpus
from terselm.text.token_cache import TokenizedSplit, tokenize
from terselm.text.vocabulary import Vocabulary


def choose_device(name: str) -> str:
    """Return "cpu" or "cuda" for auto, cpu or cuda.

    Raises
    ------
    UsageError
        If the name is another one, or there is no CUDA device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise UsageError(f"--device is {name!r}; use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here; use cpu")
    return name


def open_model(path: Path, device: str) -> LanguageModel:
    """Return the model in `path`, on the device."""
    return load(path, choose_device(device))


def split_of(data: str, split: str, vocabulary: Vocabulary) -> TokenizedSplit:
    """Return one split of a corpus as token ids."""
    return tokenize(corpus_with(data, split), split, vocabulary)


def prepare_output(
    out: Path, reads: Mapping[str, str | Path | None] | None = None, text: str | None = None
) -> None:
    """Fail early where a result could not be written at the end, or would replace its source.

    Parameters
    ----------
    out : Path
    reads : mapping, optional
        What is read, by what it is called: {"the model": path}. A path of None is none.
    text : str, optional
        A corpus that is read, none of whose files `out` may be.

    Raises
    ------
    UsageError
        If the folder does not exist, or `out` is a folder, a device or one of what is read.
    TerselmError
        If the folder cannot be written to.
    """
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; give a file name in it")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist; make it first")
    if out.exists() and not out.is_file():
        raise UsageError(f"--out {out} is a device, not a file; give another name")
    read = [(what, Path(path)) for what, path in (reads or {}).items() if path is not None]
    if text is not None and out.exists():
        ranges = open_corpus(text).ranges.values()
        read += [("the text", path) for path in dict.fromkeys(each.path for each in ranges)]
    for what, path in read:
        if path.exists() and path.resolve() == out.resolve():
            raise UsageError(f"--out {out} is {what} itself; give another name")
    check_writable(out)


def prepare_folder(out: Path) -> None:
    """Make the folder `out`.

    Raises
    ------
    UsageError
        If there is a file of this name, or the folder cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot make this folder: {error.strerror}") from None
    check_writable(out / "terselm")
