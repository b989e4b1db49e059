"""Result files that a benchmark goes on with, if what it would add belongs beside what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def kept(path: Path, setting: dict[str, Any]) -> dict[str, Any]:
    """Return the report in a result file, an empty one where there is none.

    Ends the program if the file says of one of the settings that it was another; a setting that it
    does not name is taken to be the same.

    Parameters
    ----------
    path : Path
    setting : dict
        What all rows of a file have in common, as the report has it; a dict is compared value by
        value.
    """
    if not path.exists():
        return {}
    report: dict[str, Any] = json.loads(path.read_text())
    for name, ours in _flat(setting).items():
        theirs = _flat(report).get(name, ours)
        if theirs != ours:
            raise SystemExit(f"{path}: {name} is {theirs} there, here {ours}; give another --out")
    return report


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = value
    return found
