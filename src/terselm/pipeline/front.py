"""Which candidates are worth having."""

from __future__ import annotations

from collections.abc import Sequence

from terselm.pipeline.budget import Limits
from terselm.pipeline.measurement import Candidate

ANSWERS = (("closest", 1.005), ("balanced", 1.03), ("smallest", 1.10))
"""What is offered without a budget: the smallest file whose perplexity is at most so many times
that of the source model."""
NEARLY = 1.02
"""A candidate that is this near to the limits may turn out to keep them."""
BEST = 3


def front_of(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates whose perplexity no smaller or equally small file reaches.

    Sorted by bytes, smallest first.
    """
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda each: (each.measured.bytes, _loss(each))):
        if not front or _loss(candidate) < _loss(front[-1]):
            front.append(candidate)
    return front


def choose(candidates: Sequence[Candidate], limits: Limits) -> Candidate | None:
    """Return the best candidate that keeps all limits.

    With a limit on perplexity that is the smallest file, without one the least perplexity. None
    if there is none.
    """
    kept = [each for each in candidates if limits.excess(each.measured) <= 1]
    if not kept:
        return None
    if limits.as_dict()["perplexity"] is not None:
        return min(kept, key=lambda each: (each.measured.bytes, _loss(each)))
    return min(kept, key=lambda each: (_loss(each), each.measured.bytes))


def nearest(candidates: Sequence[Candidate], limits: Limits) -> Candidate:
    """Return the candidate that misses the limits least."""
    return min(candidates, key=lambda each: (limits.excess(each.measured), _loss(each)))


def possible_answers(candidates: Sequence[Candidate], limits: Limits) -> list[Candidate]:
    """Return the candidates, of those within the limits or nearly so, that may be the answer.

    Their own front, and the best of them: what is fast enough may be larger and worse than
    something that is too slow.
    """
    near = [each for each in candidates if limits.excess(each.measured) <= NEARLY]
    best = sorted(near, key=_loss)[:BEST]
    return list({each.number: each for each in [*front_of(near), *best]}.values())


def answers(candidates: Sequence[Candidate], source_perplexity: float) -> dict[str, Candidate]:
    """Return the three answers to no budget at all, as far as there are any; see `ANSWERS`."""
    found = {}
    for name, factor in ANSWERS:
        best = choose(candidates, Limits(perplexity=factor * source_perplexity))
        if best is not None:
            found[name] = best
    return found


def _loss(candidate: Candidate) -> float:
    return candidate.measured.perplexity
