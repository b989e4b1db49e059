"""What is known of a candidate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from terselm.pipeline.families import TRAINING

HEADERS_DIFFER = 2_048
"""Bytes by which files of equal forms may differ, as their headers have their recipes."""


@dataclass(frozen=True)
class Measurement:
    """What was measured on a candidate's file.

    Attributes
    ----------
    bytes : int
        Of the file.
    perplexity : float
        On validation text, by the C library. Where only the beginning of the text was read, the
        source model's perplexity on all of it, times the ratio of the two on that beginning.
    ci95 : (float, float) or None
        95 % interval of the perplexity over such text.
    tokens : int
        How many tokens were read.
    whole_text : bool
        Whether that was all of the text.
    microseconds : float
        Time of a token with the log-probabilities of all tokens, one thread: the least of the
        medians of several series, and of files that differ in nothing but their training.
    step_microseconds : float
        Of that, the embedding and the recurrent layers.
    memory : int
        Bytes that a program needs to run it: the file, the working memory and one state.
    estimated_latency : bool
        Whether the times come from a device profile and not from a clock.
    """

    bytes: int
    perplexity: float
    ci95: tuple[float, float] | None
    tokens: int
    whole_text: bool
    microseconds: float
    step_microseconds: float
    memory: int
    estimated_latency: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        values = asdict(self)
        values["ci95"] = None if self.ci95 is None else list(self.ci95)
        values["microseconds_per_token"] = values.pop("microseconds")
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurement:
        """Return the measurement of which `as_dict` gave the values."""
        found = dict(values)
        found["microseconds"] = found.pop("microseconds_per_token")
        found["ci95"] = None if found["ci95"] is None else tuple(found["ci95"])
        return cls(**found)


@dataclass(frozen=True)
class Candidate:
    """A recipe that was tried.

    Attributes
    ----------
    number : int
        Of its trial.
    origin : str
        Why it was tried: "preset", "single", "planned", "sampled", "check" or "recovered".
    label : str
        A few words for tables.
    recipe : list of dict
        As a recipe file has it.
    measured : Measurement
    file : str
        Name of the model file in the folder of the search.
    seconds : float
        What making and measuring it took.
    parent : int or None
        The candidate that it was trained from or is compared with.
    knobs : mapping
        What the plan it came from was asked for; empty for fixed recipes.
    key : str
        Of its job.
    digest : str
        Of the file that was measured; empty in studies from before it was kept.
    """

    number: int
    origin: str
    label: str
    recipe: Sequence[Mapping[str, Any]]
    measured: Measurement
    file: str
    seconds: float
    parent: int | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    digest: str = ""

    @property
    def trained(self) -> bool:
        """Whether a step of its recipe trains."""
        return any(step["method"] in TRAINING for step in self.recipe)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; the measurement's keys stand beside the others."""
        return {
            "number": self.number,
            "origin": self.origin,
            "label": self.label,
            **self.measured.as_dict(),
            "trained": self.trained,
            "file": self.file,
            "seconds": self.seconds,
            "parent": self.parent,
            "recipe": [dict(step) for step in self.recipe],
        }


def merged(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates, those that were measured again on more text once, by their first number.

    The order is that of their first numbers.
    """
    found: dict[str, Candidate] = {}
    for candidate in sorted(candidates, key=lambda each: each.number):
        key = json.dumps([dict(step) for step in candidate.recipe], sort_keys=True)
        first = found.setdefault(key, candidate)
        if candidate.measured.tokens > first.measured.tokens:
            found[key] = replace(
                first,
                measured=candidate.measured,
                file=candidate.file,
                digest=candidate.digest,
            )
    return list(found.values())


def timed_alike(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates, each with the least time of those that differ from it by training alone.

    Training changes numbers and not how they are stored, so a token takes as long as before; what
    one measurement has more than another was the machine.
    """
    alike: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        alike.setdefault(_untrained(candidate), []).append(candidate)
    return [_timed_as(each, alike[_untrained(each)]) for each in candidates]


def _untrained(candidate: Candidate) -> str:
    steps = [dict(step) for step in candidate.recipe if step["method"] != "recover"]
    return json.dumps(steps, sort_keys=True)


def _timed_as(candidate: Candidate, others: Sequence[Candidate]) -> Candidate:
    own = candidate.measured
    # Ranks that were chosen by the numbers may be others after training.
    near = [
        each.measured
        for each in others
        if abs(each.measured.bytes - own.bytes) <= HEADERS_DIFFER
        and each.measured.estimated_latency == own.estimated_latency
    ]
    least = min(near, key=lambda each: each.microseconds)
    measured = replace(
        own, microseconds=least.microseconds, step_microseconds=least.step_microseconds
    )
    return replace(candidate, measured=measured)
