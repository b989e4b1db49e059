"""What each stage of the pipeline was worth, by the candidates that do without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from terselm.pipeline.budget import Limits
from terselm.pipeline.families import CODES, PRUNING, RANKS
from terselm.pipeline.measurement import Candidate
from terselm.report.sizes import human_number

if TYPE_CHECKING:
    from terselm.pipeline.results import Picked

ROOM = 1.02
"""Candidates count as equally large, or equally fast, up to here."""

Test = Callable[[Mapping[str, Any]], bool]


def stage_verdicts(
    candidates: Sequence[Candidate], limits: Limits, picked: Picked
) -> list[dict[str, Any]]:
    """Return for every stage whether it is in the answer, and what speaks for or against it.

    The best candidate with the stage is compared with the best one without it, among those that
    were not trained and are no larger and no slower than the answer before its training; for the
    training itself, the answer with what it was trained from.
    """
    answer = picked.chosen or next(iter(picked.answers.values()), None) or picked.nearest
    if answer is None:
        return []
    by_number = {each.number: each for each in candidates}
    before = _untrained(answer, by_number)
    alike = [each for each in candidates if not each.trained and _as_cheap(each, before)]
    verdicts = [_verdict(name, test, answer, alike) for name, test in STAGES]
    verdicts.append(_training_verdict(answer, before))
    return verdicts


def _cells(step: Mapping[str, Any]) -> bool:
    where = str(step.get("weights", "*"))
    return "cells" in where or where == "*"


def _words(step: Mapping[str, Any]) -> bool:
    where = str(step.get("weights", "*"))
    return "embedding" in where or "output" in where or where == "*"


STAGES: tuple[tuple[str, Test], ...] = (
    (
        "low rank in the recurrent layers",
        lambda step: step["method"] in RANKS and _cells(step),
    ),
    (
        "low rank in embedding and output layer",
        lambda step: step["method"] in RANKS and _words(step),
    ),
    ("pruning", lambda step: step["method"] in PRUNING),
    ("quantization", lambda step: step["method"] in CODES),
)


def _has(candidate: Candidate, test: Test) -> bool:
    return any(test(step) for step in candidate.recipe)


def _verdict(
    name: str, test: Test, answer: Candidate, alike: Sequence[Candidate]
) -> dict[str, Any]:
    kept = _has(answer, test)
    best_with = _best([each for each in alike if _has(each, test)])
    best_without = _best([each for each in alike if not _has(each, test)])
    if best_with is None and best_without is None:
        why = "nothing of this size was tried to compare it with"
    elif best_without is None:
        assert best_with is not None
        why = (
            "nothing without it is as small and as fast; with it the perplexity before training "
            f"is {human_number(best_with.measured.perplexity)}"
        )
    elif best_with is None:
        why = (
            "nothing with it is as small and as fast; without it the perplexity before training "
            f"is {human_number(best_without.measured.perplexity)}"
        )
    else:
        one, other = best_with.measured.perplexity, best_without.measured.perplexity
        better = "better" if one < other else "no better"
        why = (
            f"at no more bytes and no more time it is {better} before training: perplexity "
            f"{human_number(one)} with it, {human_number(other)} without it"
        )
    return {
        "name": name,
        "kept": kept,
        "why": why,
        "with": None if best_with is None else best_with.number,
        "without": None if best_without is None else best_without.number,
    }


def _training_verdict(answer: Candidate, before: Candidate) -> dict[str, Any]:
    if not answer.trained:
        why = "the answer was not trained: nothing that was trained is better within the budget"
    elif before is answer:
        why = "the answer comes from a recipe that trains; it was not tried without"
    else:
        start = human_number(before.measured.perplexity)
        after = human_number(answer.measured.perplexity)
        why = f"perplexity {start} before it, {after} after it, at the same bytes"
    return {
        "name": "training after compression",
        "kept": answer.trained,
        "why": why,
        "with": answer.number if answer.trained else None,
        "without": before.number if before is not answer else None,
    }


def _untrained(candidate: Candidate, by_number: Mapping[int, Candidate]) -> Candidate:
    """Return the candidate that the training of another began with; itself if it had none."""
    while candidate.trained and candidate.parent is not None:
        candidate = by_number[candidate.parent]
    return candidate


def _as_cheap(candidate: Candidate, other: Candidate) -> bool:
    a, b = candidate.measured, other.measured
    return a.bytes <= ROOM * b.bytes and a.microseconds <= ROOM * b.microseconds


def _best(candidates: Sequence[Candidate]) -> Candidate | None:
    return min(candidates, key=lambda each: each.measured.perplexity, default=None)
