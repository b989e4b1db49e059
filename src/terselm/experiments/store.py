"""Where the runs of a folder keep what they make, and what of it still holds."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from terselm.files import atomic_write, write_bytes
from terselm.pipeline.fingerprint import digest_of

KEPT = ("lock", "metrics.jsonl")
"""Of the work on a run, once it is done. Its seconds are in its result: a run anew begins at 0."""
TEXT_NAME = "text"
SECONDS_BETWEEN_TICKS = 60.0


def label_of(name: str, seed: int) -> str:
    """Return the name of the files of a run."""
    return name if seed == 0 else f"{name}-seed-{seed}"


def model_file(folder: Path, label: str) -> Path:
    """Return where the model of a run lies."""
    return folder / "models" / f"{label}.safetensors"


def result_file(folder: Path, label: str) -> Path:
    """Return where the result of a run lies."""
    return folder / "results" / f"{label}.json"


def work_folder(folder: Path, label: str, key: str) -> Path:
    """Return where a run keeps what it goes on from after an interruption."""
    return folder / "work" / f"{label}-{key}"


def stored_result(
    folder: Path, label: str, key: str, text: str | None = None
) -> dict[str, Any] | None:
    """Return the result of a run, or None if there is none that holds.

    It holds if it was made from what the key stands for and from this text, and is that of the
    model beside it. Models that it was made from may be gone, but not be others.

    Parameters
    ----------
    folder : Path
        Of all runs.
    label : str
    key : str
        See `experiment.key_of`.
    text : str or None
        Digest of the corpus; None: whatever it was.
    """
    try:
        result = json.loads(result_file(folder, label).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(result, dict) or result.get("key") != key:
        return None
    # Results from before these two were kept say nothing of them.
    if text is not None and result.get("text", text) != text:
        return None
    model = model_file(folder, label)
    if not model.is_file() or result.get("model", digest := digest_of(model)) != digest:
        return None
    made_from = result.get("made_from", {})
    return None if any(_is_another(folder, *pair) for pair in made_from.items()) else result


def digests_of(models: Iterable[Path]) -> dict[str, str]:
    """Return the digests of model files by their names in the folder of models."""
    return {path.name: digest_of(path) for path in models}


def _is_another(folder: Path, name: str, digest: str) -> bool:
    path = folder / "models" / name
    return path.is_file() and digest_of(path) != digest


def publish(folder: Path, label: str, model: Path, result: dict[str, Any]) -> None:
    """Put a model and its result in their places.

    Parameters
    ----------
    folder : Path
    label : str
    model : Path
        Moved.
    result : dict
        JSON values; "model" is added, the digest of the file.
    """
    target = model_file(folder, label)
    target.parent.mkdir(exist_ok=True)
    result_file(folder, label).parent.mkdir(exist_ok=True)
    result["model"] = digest_of(model)
    # Another experiment file's run of this label may end at the same time.
    with FileLock(folder / "work" / f"{label}.lock"):
        model.replace(target)
        write_result(folder, label, result)


def write_result(folder: Path, label: str, result: dict[str, Any]) -> None:
    """Put a result in its place."""
    text = json.dumps(result, indent=1) + "\n"
    write_bytes(result_file(folder, label), text.encode())


def begin_work(work: Path, text: str, made_from: Mapping[str, str] | None = None) -> None:
    """Make a work folder ready: what is there of another text, or other models, is removed.

    Parameters
    ----------
    work : Path
    text : str
        Digest of the corpus.
    made_from : mapping of str to str, optional
        Digests of the models that the run is made from, by name.
    """
    mark = work / TEXT_NAME
    sources = "".join(f"\n{name} {digest}" for name, digest in sorted((made_from or {}).items()))
    if mark.exists() and mark.read_text(encoding="utf-8") != text + sources:
        _remove(work, but=("lock",))
    write_bytes(mark, (text + sources).encode())


def end_work(work: Path) -> None:
    """Remove what nobody needs of a run that is done: checkpoints can be a gigabyte."""
    _remove(work, but=KEPT)


def _remove(folder: Path, but: tuple[str, ...]) -> None:
    for path in folder.iterdir():
        if path.name in but:
            continue
        if not path.is_dir():
            path.unlink()
            continue
        _remove(path, but)
        if not any(path.iterdir()):
            path.rmdir()


class Clock:
    """Seconds of work on a run, those before an interruption included.

    Parameters
    ----------
    path : Path
        Where they are kept: every minute, so that a process that is killed loses no more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started = 0.0
        self._over = threading.Event()
        self._before: float = json.loads(path.read_text()) if path.exists() else 0.0
        self.seconds = self._before

    def __enter__(self) -> None:
        self._started = time.monotonic()
        self._ticking = threading.Thread(target=self._tick, daemon=True)
        self._ticking.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._ticking.join()
        self._keep()

    def _tick(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN_TICKS):
            self._keep()

    def _keep(self) -> None:
        self.seconds = self._before + time.monotonic() - self._started
        with atomic_write(self._path) as file:
            file.write(json.dumps(self.seconds).encode())
