"""What two processes, or two runs, of one search must have in common."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from terselm.errors import UsageError
from terselm.pipeline.study import Study
from terselm.pipeline.workbench import Workbench

WHAT = {"model": "model file", "text": "text", "seed": "seed", "version": "version of terselm"}
VERSION = 1


def fingerprint(bench: Workbench) -> dict[str, Any]:
    """Return what tells one search from another."""
    digest = hashlib.sha256(bench.texts.train.ids.tobytes())
    digest.update(bench.texts.valid.ids.tobytes())
    return {
        "model": digest_of(bench.setting.model),
        "text": digest.hexdigest()[:16],
        "seed": bench.setting.seed,
        "version": VERSION,
    }


def check_fingerprint(study: Study, bench: Workbench) -> None:
    """Give a new study its fingerprint, or compare with that of an old one.

    Raises
    ------
    UsageError
        If the model, the text or the seed is another one.
    """
    ours, theirs = fingerprint(bench), study.noted("fingerprint")
    if theirs is None:
        study.note("fingerprint", ours)
        return
    for key, what in WHAT.items():
        if ours[key] != theirs[key]:
            raise UsageError(
                f"the search in this study has another {what}; give another --out or --study"
            )


def digest_of(path: Path) -> str:
    """Return the beginning of the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
