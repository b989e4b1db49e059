"""What is to be tried, before it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Job:
    """A recipe to be made and measured.

    Attributes
    ----------
    origin, label, recipe, parent, knobs
        As of the `Candidate` that it becomes.
    whole_text : bool
        Whether all of the validation text is read.
    same_as : int or None
        The candidate that this recipe made before, if only the measurement is to be repeated.
    """

    origin: str
    label: str
    recipe: Sequence[Mapping[str, Any]]
    parent: int | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    whole_text: bool = False
    same_as: int | None = None

    @property
    def key(self) -> str:
        """What tells it from other jobs: equal recipes measured alike are the same job."""
        text = json.dumps([list(self.recipe), self.whole_text], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "origin": self.origin,
            "label": self.label,
            "recipe": [dict(step) for step in self.recipe],
            "parent": self.parent,
            "knobs": dict(self.knobs),
            "whole_text": self.whole_text,
            "same_as": self.same_as,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Job:
        """Return what `as_dict` gave the values of."""
        return cls(**values)
