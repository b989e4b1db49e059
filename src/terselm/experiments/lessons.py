"""What teachers wrote and said, shared by the runs of a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from terselm.evaluate.stream import ready
from terselm.experiments.experiment import Experiment
from terselm.files import atomic_write
from terselm.models.checkpoint import load
from terselm.models.language_model import LanguageModel
from terselm.pipeline.fingerprint import digest_of
from terselm.train.generation import generate


def lessons_folder(folder: Path) -> Path:
    """Return where the runs of a folder share what their teachers wrote and said."""
    return folder / "lessons"


def forget(folder: Path) -> None:
    """Remove that: it is large, and nothing in the folder is left to be taught."""
    shutil.rmtree(lessons_folder(folder), ignore_errors=True)


class Teaching:
    """The teachers of a run, and what they write.

    Parameters
    ----------
    experiment : Experiment
    seed : int
    files : sequence of Path
        The teachers' models.
    folder, work : Path
        Of all runs, and of this one.
    device : str

    Attributes
    ----------
    teachers : list of LanguageModel
    shared : Path
        Where runs share what was written and said.
    """

    def __init__(
        self,
        experiment: Experiment,
        seed: int,
        files: Sequence[Path],
        folder: Path,
        work: Path,
        device: str,
    ) -> None:
        # Compressed ones teach too: unpacked once, not in every step.
        self.teachers: list[LanguageModel] = [ready(load(path, device)) for path in files]
        self.shared = lessons_folder(folder)
        self._tokens = experiment.generated
        self._seed = seed if experiment.generated_seed is None else experiment.generated_seed
        self._path = work / "generated.npy"
        if experiment.generated_seed is not None:
            made_from = [[digest_of(path) for path in files], self._tokens, self._seed]
            key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
            self._path = self.shared / f"text-{key}.npy"

    def text(self) -> npt.NDArray[np.int32] | None:
        """Return the text [tokens] that the teachers wrote, or None if none is wanted.

        It is kept: a run that goes on must read what it read before.
        """
        if self._tokens is None:
            return None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Another run of the folder may need the same at the same time.
        with FileLock(f"{self._path}.lock"):
            if not self._path.exists():
                with atomic_write(self._path) as file:
                    np.save(file, generate(self.teachers, self._tokens, self._seed))
        written: npt.NDArray[np.int32] = np.load(self._path, allow_pickle=False)
        return written
