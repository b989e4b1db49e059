"""The document that a search leaves: results.json."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terselm.evaluate.cost import Part, inspect
from terselm.models.checkpoint import load
from terselm.pipeline.budget import Budget, Limits
from terselm.pipeline.front import answers, choose, front_of, nearest
from terselm.pipeline.measurement import Candidate, Measurement
from terselm.pipeline.parts import parts_by_time
from terselm.pipeline.sensitivity import Sensitivity
from terselm.pipeline.stages import stage_verdicts

FORMAT = 1


@dataclass(frozen=True)
class Picked:
    """What a search ends with.

    Attributes
    ----------
    chosen : Candidate or None
        With a budget, the best that keeps it.
    nearest : Candidate or None
        With a budget that nothing keeps, what misses it least.
    answers : mapping of str to Candidate
        Without a budget, by name.
    """

    chosen: Candidate | None
    nearest: Candidate | None
    answers: Mapping[str, Candidate]

    @property
    def all(self) -> dict[str, Candidate]:
        """The models that are handed over, by the name of their folder."""
        return {**self.answers, **({"chosen": self.chosen} if self.chosen else {})}


def pick(
    candidates: Sequence[Candidate], limits: Limits, source: Measurement, budget: Budget | None
) -> Picked:
    """Return what is handed over; only what was measured on all of the text may be."""
    sure = [each for each in candidates if each.measured.whole_text]
    if budget is None:
        return Picked(None, None, answers(sure, source.perplexity))
    chosen = choose(sure, limits)
    if chosen is not None or not candidates:
        return Picked(chosen, None, {})
    return Picked(None, nearest(sure or candidates, limits), {})


def message_of(picked: Picked, limits: Limits, source: Measurement, measured: int) -> str:
    """Return what came of the search, which measured so many candidates, in a line."""
    if picked.chosen is not None:
        found = picked.chosen.measured
        return (
            f"the budget is met: {found.bytes:,} bytes ({_times(source.bytes, found.bytes)}), "
            f"perplexity {found.perplexity:.2f} "
            f"({_percent(found.perplexity, source.perplexity)}), "
            f"{found.microseconds:.1f} µs a token"
        )
    if picked.nearest is not None:
        missed = "; ".join(limits.missed(picked.nearest.measured))
        return (
            f"nothing keeps the budget; the nearest is candidate {picked.nearest.number}: {missed}"
        )
    if picked.answers:
        return f"{len(picked.answers)} answers: " + ", ".join(picked.answers)
    if not measured:
        return "nothing was measured in this time; give a longer --time-limit"
    return "no candidate comes within ten percent of the source's perplexity; give it more time"


def parts_of(path: Path, measured: Measurement) -> dict[str, Any]:
    """Return where the bytes and the time of a model file go.

    The time of the embedding with the recurrent layers and that of the output layer are measured;
    within each it is shared out by the bytes that are read.
    """
    parts = inspect(load(path))
    rows = []
    recurrent, output = parts_by_time(parts)
    for group, time in (
        (recurrent, measured.step_microseconds),
        (output, measured.microseconds - measured.step_microseconds),
    ):
        read = sum(part.bytes_read for part in group)
        for part in group:
            share = part.bytes_read / read if read else 0.0
            rows.append(_row(part, max(0.0, time) * share))
    rows += [_row(part, 0.0) for part in parts.parts if not part.bytes_read]
    return {"bytes": parts.bytes, "microseconds": measured.microseconds, "parts": rows}


def document(
    *,
    header: Mapping[str, Any],
    budget: Budget | None,
    limits: Limits,
    source: Measurement,
    source_file: str,
    candidates: Sequence[Candidate],
    picked: Picked,
    sensitivity: Sensitivity,
    parts: Mapping[str, Any],
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """Return results.json.

    Parameters
    ----------
    header : mapping
        What does not come of the search: versions, machine, data, seed, seconds.
    budget, limits, source, candidates, picked, sensitivity
        Of the search.
    source_file : str
        Name of the source model's file.
    parts : mapping
        "before" and "after", see `parts_of`.
    measured : mapping
        "test", "agreement" and "kenlm", each None where it was not measured.
    """
    front = front_of(candidates)

    def described(candidate: Candidate) -> dict[str, Any]:
        command = (
            *("terselm", "compress", source_file, "--recipe", f"recipes/{candidate.number}.yaml"),
            *("--data", header["data"], "--calibration-tokens", header["calibration_tokens"]),
            *("--seed", header["seed"], "--out", f"{candidate.number}.safetensors"),
        )
        return {**candidate.as_dict(), "command": shlex.join(map(str, command))}

    return {
        "format": FORMAT,
        **header,
        "budget": None if budget is None else budget.as_dict(),
        "limits": limits.as_dict(),
        "met": picked.chosen is not None or (budget is None and bool(picked.answers)),
        "message": message_of(picked, limits, source, len(candidates)),
        "source": {**source.as_dict(), "file": source_file, "label": "source"},
        "chosen": picked.chosen.number if picked.chosen else None,
        "nearest": picked.nearest.number if picked.nearest else None,
        "answers": {name: each.number for name, each in picked.answers.items()},
        **measured,
        "candidates": [described(each) for each in candidates],
        "front": [described(each) for each in front],
        "sensitivity": sensitivity.report(),
        "stages": stage_verdicts(candidates, limits, picked),
        "parts": dict(parts),
    }


def _row(part: Part, microseconds: float) -> dict[str, Any]:
    return {
        "name": part.name,
        "kind": part.kind,
        "bytes": part.bytes,
        "microseconds": round(microseconds, 3),
    }


def _times(before: int, after: int) -> str:
    if after > before:
        return f"{after / before:.1f} times larger"
    return f"{before / after:.1f} times smaller"


def _percent(value: float, source: float) -> str:
    change = 100 * (value / source - 1)
    return f"{change:+.1f} %" if math.isfinite(change) else "not a number"
