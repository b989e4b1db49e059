"""What teachers said of every token of a text, kept from the first epoch for those after it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from terselm.errors import TerselmError

LEAST_WORDS_OF_WIDE_IDS = 2**16


def take_shared(shared: Path, path: Path) -> bool:
    """Put what another run left (see `SampleFile.share`) in the place of a file.

    Returns
    -------
    bool
        Whether there was something.
    """
    try:
        path.unlink(missing_ok=True)
        os.link(shared, path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise TerselmError(f"{path}: cannot be written: {error.strerror}") from None
    return True


class SampleFile:
    """Samples [steps, streams, samples] in a file, written once from the first step on.

    Two bytes a sample, four where there are more than 65,536 words.

    Parameters
    ----------
    path : Path or None
        None: a temporary file.
    streams, samples : int
    words : int
        In the vocabulary.
    known : int
        Steps that an earlier process wrote; the file is made anew where that is 0.

    Attributes
    ----------
    samples : int
        Of a token.
    known : int
        Steps written so far.

    Raises
    ------
    TerselmError
        If the file cannot be used, or has fewer steps than are said to be known.
    """

    def __init__(
        self, path: Path | None, streams: int, samples: int, words: int, known: int = 0
    ) -> None:
        self._path = path
        self._shape = (streams, samples)
        self._words = words
        self._type = np.dtype("<u2" if words <= LEAST_WORDS_OF_WIDE_IDS else "<u4")
        self._step_bytes = streams * samples * self._type.itemsize
        self._name = "the samples of the teachers" if path is None else str(path)
        self.samples = samples
        self.known = known
        try:
            if path is not None and not known:
                # Not emptied: another run may share what is there.
                path.unlink(missing_ok=True)
            self._file: IO[bytes] = (
                tempfile.TemporaryFile()  # noqa: SIM115
                if path is None
                else path.open("r+b" if known else "w+b", buffering=0)
            )
            there = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise TerselmError(f"{self._name}: cannot be used: {error.strerror}") from None
        if there < known * self._step_bytes:
            self._file.close()
            raise TerselmError(
                f"{self._name}: is shorter than its run remembers; delete the folder, and lessons/ "
                "where runs share them, and train anew"
            )

    def read(self, start: int, steps: int) -> npt.NDArray[np.int64]:
        """Return known samples int64 [steps, streams, samples].

        Raises
        ------
        TerselmError
            If they cannot be read, or are no words.
        """
        size = steps * self._step_bytes
        try:
            data = os.pread(self._file.fileno(), size, start * self._step_bytes)
        except OSError as error:
            raise TerselmError(f"{self._name}: cannot be read: {error.strerror}") from None
        if len(data) == size:
            found = np.frombuffer(data, self._type)
            if found.max() < self._words:
                return found.reshape(steps, *self._shape).astype(np.int64)
        raise TerselmError(
            f"{self._name}: is damaged; delete the folder, and lessons/ where runs share them, and "
            "train anew"
        )

    def append(self, samples: npt.NDArray[np.int64]) -> None:
        """Write the next steps' samples [steps, streams, samples].

        Raises
        ------
        TerselmError
            If they cannot be written.
        """
        data = memoryview(samples.astype(self._type).tobytes())
        place = self.known * self._step_bytes
        try:
            while data:
                written = os.pwrite(self._file.fileno(), data, place)
                data, place = data[written:], place + written
        except OSError as error:
            raise TerselmError(f"{self._name}: cannot be written: {error.strerror}") from None
        self.known += len(samples)

    def flush(self) -> None:
        """Make sure that what is known outlives a loss of power.

        Raises
        ------
        TerselmError
            If the disk reports an error.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise TerselmError(f"{self._name}: cannot be written: {error.strerror}") from None

    def share(self, shared: Path) -> None:
        """Leave the file to other runs, where it has a name and none is left there already.

        Raises
        ------
        TerselmError
            If it cannot be left there.
        """
        if self._path is None or shared.exists():
            return
        self.flush()
        try:
            shared.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # another run was quicker
                os.link(self._path, shared)
        except OSError as error:
            raise TerselmError(f"{shared}: cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Close the file; a temporary one is gone with that."""
        self._file.close()
