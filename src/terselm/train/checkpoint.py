"""The state of a run on disk, so that a killed run goes on as if nothing had happened."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from terselm.errors import TerselmError, UsageError
from terselm.files import atomic_write
from terselm.models.language_model import LanguageModel
from terselm.models.teacher import Teacher, teachers_of
from terselm.train.config import CHANGEABLE, TrainingConfig

FORMAT = 1
CHECKPOINT_NAME = "checkpoint.pt"
METRICS_NAME = "metrics.jsonl"
LOCK_NAME = "lock"
CHUNK = 1 << 20
DIGEST_BYTES = 32
LESSON_SETTINGS = ("batch", "precision", "distillation_samples", "distillation_temperature")
"""What samples depend on, beside teachers, text and processes."""


class RunFolder:
    """Where a run keeps its checkpoint and its metrics.

    Parameters
    ----------
    folder : Path or None
        Made where it is missing. None keeps nothing.
    lessons : Path or None
        Where runs share what teachers said; see `train.loop.fit`.
    """

    def __init__(self, folder: Path | None, lessons: Path | None = None) -> None:
        self.folder = folder
        self.lessons = lessons
        self._lock: FileLock | None = None

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint file."""
        return None if self.folder is None else self.folder / CHECKPOINT_NAME

    @property
    def metrics(self) -> Path | None:
        """The file of metrics lines."""
        return None if self.folder is None else self.folder / METRICS_NAME

    def samples_of(
        self, fingerprint: Mapping[str, Any], rank: int
    ) -> tuple[Path | None, Path | None]:
        """Return where a process keeps what teachers said, and where runs share that."""
        if self.folder is None:
            return None, None
        path = self.folder / f"samples-{rank}"
        if self.lessons is None:
            return path, None
        training = {name: fingerprint["training"][name] for name in LESSON_SETTINGS}
        alike = [training, *(fingerprint[n] for n in ("teacher", "training text", "processes"))]
        key = hashlib.sha256(json.dumps(alike).encode()).hexdigest()[:16]
        return path, self.lessons / f"samples-{key}-{rank}"

    def open(self, fingerprint: Mapping[str, Any], resume: bool) -> dict[str, Any] | None:
        """Look into the folder of a run, and keep it from other processes until `close`.

        Parameters
        ----------
        fingerprint : Mapping
            What this run is (see `fingerprint_of`).
        resume : bool

        Returns
        -------
        dict or None
            The state to go on from; None where the run begins.

        Raises
        ------
        UsageError
            If the folder holds an unfinished run that is not to be resumed, or a run of
            something else that is, or another process is at work in it.
        TerselmError
            If the folder cannot be written to or the checkpoint is damaged.
        """
        if self.folder is None:
            if resume:
                raise UsageError("resume needs the folder of the run")
            return None
        self._hold(self.folder)
        return self._stored(self.folder, fingerprint, resume)

    def clear(self, stored: Mapping[str, Any] | None) -> None:
        """Clear away what a killed run or a finished one left, once nothing more can be refused.

        Parameters
        ----------
        stored : Mapping or None
            What `open` returned.

        Raises
        ------
        TerselmError
            If a file cannot be removed.
        """
        if self.folder is None:
            return
        try:
            for leftover in self.folder.glob(f".{CHECKPOINT_NAME}.*.tmp"):
                leftover.unlink(missing_ok=True)
            if stored is None:
                (self.folder / CHECKPOINT_NAME).unlink(missing_ok=True)
        except OSError as error:
            raise TerselmError(f"cannot use the folder {self.folder}: {error.strerror}") from None

    def close(self) -> None:
        """Let other processes into the folder."""
        if self._lock is not None:
            self._lock.release()

    def _hold(self, folder: Path) -> None:
        lock = FileLock(folder / LOCK_NAME)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"another process is training in {folder}; wait for it or use another --out"
            ) from None
        except OSError as error:
            raise TerselmError(f"cannot use the folder {folder}: {error.strerror}") from None
        self._lock = lock

    def _stored(
        self, folder: Path, fingerprint: Mapping[str, Any], resume: bool
    ) -> dict[str, Any] | None:
        path = folder / CHECKPOINT_NAME
        if not path.exists():
            return None
        stored = load_checkpoint(path)
        if resume:
            check_same_run(stored["fingerprint"], fingerprint, folder)
            return stored
        if stored["finished"] is None:
            raise UsageError(f"{folder} holds an unfinished run; use --resume or another --out")
        return None


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a run, whole or not at all, with its SHA-256 at the end.

    Raises
    ------
    TerselmError
        If the file cannot be written; the checkpoint before it stays.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    data = buffer.getbuffer()
    with atomic_write(path) as file:
        file.write(data)
        file.write(hashlib.sha256(data).digest())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, with tensors on the CPU. Nothing in it runs as code.

    Raises
    ------
    TerselmError
        If the file cannot be read, is damaged, or is of another version.
    """
    try:
        content = memoryview(path.read_bytes())
    except OSError as error:
        raise TerselmError(f"cannot read {path}: {error.strerror}") from None
    data, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    # torch itself reads through flipped bits.
    if hashlib.sha256(data).digest() != digest:
        raise TerselmError(
            f"{path} is damaged and cannot be resumed; delete its folder and train anew"
        )
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        state = None  # it is whole, so something else wrote it
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise TerselmError(f"{path} is no checkpoint of this version of terselm; train anew")
    return state


def fingerprint_of(
    config: TrainingConfig,
    model: LanguageModel,
    ids: np.ndarray,
    validation_ids: np.ndarray | None,
    teacher: Teacher | None,
    processes: int,
) -> dict[str, Any]:
    """Return what must be the same for a run to go on: settings, model, texts, processes."""
    return {
        "training": config.model_dump(mode="json"),
        "model": model.config.model_dump(mode="json"),
        "weights": {
            name: json.dumps(op.spec(), sort_keys=True) for name, op in model.weights().items()
        },
        "integer codes": digest_of(buffer for _, buffer in model.named_buffers()),
        "vocabulary size": len(model.vocabulary),
        "training text": _digest_of_ids(ids),
        "validation text": None if validation_ids is None else _digest_of_ids(validation_ids),
        "teacher": digest_of(values) if (values := _weights(teacher)) else None,
        "processes": processes,
    }


def check_same_run(stored: Any, wanted: Mapping[str, Any], folder: Path) -> None:
    """Compare two fingerprints.

    Raises
    ------
    UsageError
        If they differ; the message names the first field that does.
    """
    old, new = _flat(stored), _flat(wanted)
    for name in [*new, *old]:
        if name.removeprefix("training.") in CHANGEABLE or old.get(name) == new.get(name):
            continue
        what = name.removeprefix("training.")
        raise UsageError(
            f"{folder} holds a run of other settings: {what} is {_short(old.get(name))} there, "
            f"here {_short(new.get(name))}; resume with the same {what} or use another --out"
        )


def digest_of(tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 of the tensors' bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _weights(teacher: Teacher | None) -> list[Tensor]:
    return [value for each in teachers_of(teacher) for value in each.state_dict().values()]


def _digest_of_ids(ids: np.ndarray) -> str:
    digest = hashlib.sha256(str(len(ids)).encode())
    for start in range(0, len(ids), CHUNK):
        digest.update(np.ascontiguousarray(ids[start : start + CHUNK], dtype="<u4").data)
    return f"{len(ids)} tokens, {digest.hexdigest()[:16]}"


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, Mapping):
        return {prefix.removesuffix("."): values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
