"""What two processes, or two runs, of one search must have in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from terselm.errors import UsageError
from terselm.files import write_bytes
from terselm.pipeline.study import Study
from terselm.pipeline.workbench import Workbench

WHAT = {
    "model": "model file",
    "text": "text",
    "seed": "seed",
    "profile": "device profile",
    "version": "version of terselm",
    "study": "study",
    "identity": "study of this name",
}
VERSION = 1
MARK = "search.json"
"""Says in the folder of a search which one it is: models and times there are of no other."""


def fingerprint(bench: Workbench) -> dict[str, Any]:
    """Return what tells one search from another."""
    digest = hashlib.sha256(bench.texts.train.ids.tobytes())
    digest.update(bench.texts.valid.ids.tobytes())
    profile = bench.setting.profile
    return {
        "model": digest_of(bench.setting.model),
        "text": digest.hexdigest()[:16],
        "seed": bench.setting.seed,
        "profile": None if profile is None else asdict(profile),
        "version": VERSION,
    }


def check_fingerprint(study: Study, bench: Workbench) -> None:
    """Give a new study its fingerprint, or compare with that of an old one.

    Raises
    ------
    UsageError
        If the model, the text, the seed or the device profile is another one.
    """
    ours, theirs = fingerprint(bench), study.noted("fingerprint")
    if theirs is None:
        study.note("fingerprint", {**ours, "identity": uuid4().hex})
        return
    what = _difference(ours, theirs)
    if what is not None:
        raise UsageError(
            f"the search in this study has another {what}; give the same, or another --out or "
            "--study"
        )


def check_folder(bench: Workbench, study: str) -> None:
    """Refuse a folder that holds files of another search, before the study is opened.

    Parameters
    ----------
    bench : Workbench
    study : str
        Name of the study.

    Raises
    ------
    UsageError
    """
    _check_mark(bench.setting.folder, {**fingerprint(bench), "study": study})


def mark_folder(bench: Workbench, study: Study) -> None:
    """Write into the folder which search its files are of, with a fingerprint that was checked.

    Raises
    ------
    UsageError
        If they are of another, though one of the same name.
    """
    folder = bench.setting.folder
    mark = {**study.noted("fingerprint"), "study": study.name}
    _check_mark(folder, mark)
    text = json.dumps(mark, indent=1, ensure_ascii=False)
    write_bytes(folder / MARK, (text + "\n").encode())


def digest_of(path: Path) -> str:
    """Return the beginning of the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _check_mark(folder: Path, ours: Mapping[str, Any]) -> None:
    path = folder / MARK
    if not path.exists():
        return
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UsageError(f"--out {folder}: {MARK} is damaged; give another folder") from None
    what = _difference(ours, theirs)
    if what is not None:
        raise UsageError(
            f"--out {folder} holds files of another search, of another {what}; give another folder"
        )


def _difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """Return in words what is another; what an older version did not write down was not there."""
    keys = (key for key in WHAT if key in ours and ours[key] != theirs.get(key))
    return next((WHAT[key] for key in keys), None)
