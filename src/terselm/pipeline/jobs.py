"""What is tried in any case: the presets, each method alone, and plans at the sizes in question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terselm.compress.recipe import load_recipe, presets
from terselm.pipeline.families import TRAINING
from terselm.pipeline.job import Job
from terselm.pipeline.measurement import Candidate
from terselm.pipeline.plan import Knobs, code_steps, is_words, rank_steps
from terselm.pipeline.sensitivity import Sensitivity
from terselm.pipeline.space import Space, fitting_plan, planned

SINGLE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("8 bits", {"method": "quantize", "bits": 8}),
    ("4 bits", {"method": "quantize", "bits": 4, "group": 32}),
    ("3 bits", {"method": "quantize", "bits": 3, "group": 32}),
    ("2 bits", {"method": "quantize", "bits": 2, "group": 16}),
    ("k-means 3 bits", {"method": "kmeans", "bits": 3}),
    ("k-means 2 bits", {"method": "kmeans", "bits": 2}),
    ("pruned 0.9", {"method": "magnitude", "sparsity": 0.9}),
    ("pruned 0.95", {"method": "magnitude", "sparsity": 0.95}),
)
SINGLE_SHARES = (0.5, 0.25)
FIRST_PRICES = (1.0, 0.3, 0.1)
FIRST_GROUPS = (32, 16)
COARSE_GROUPS = (64, "row")
FIRST_SIZES = 4
PRUNED = 0.5
PRUNED_BITS = 4


def preset_jobs(*, trained: bool) -> list[Job]:
    """Return the presets that train, or those that do not."""
    jobs = []
    for name in presets():
        recipe = load_recipe(name).as_list()
        if any(step["method"] in TRAINING for step in recipe) == trained:
            jobs.append(Job("preset", f"preset {name}", recipe, whole_text=True))
    return jobs


def single_jobs(limit: float | None, source_bytes: int) -> list[Job]:
    """Return each method alone, at the limit where it can be set there."""
    jobs = [Job("single", label, [step]) for label, step in SINGLE]
    if limit is not None and limit < source_bytes:
        step = {"method": "rank_budget", "bytes": int(limit)}
        return [*jobs, Job("single", "low rank alone", [step])]
    for share in SINGLE_SHARES:
        step = {"method": "rank_budget", "share": share}
        jobs.append(Job("single", f"low rank {share} alone", [step]))
    return jobs


def planned_jobs(sensitivity: Sensitivity, space: Space) -> list[Job]:
    """Return plans at the sizes in question, by what a loss by low rank is taken to weigh."""
    groups = FIRST_GROUPS if space.at_limit else FIRST_GROUPS[:1]
    # The smallest sizes have room for few scales only.
    return _plans(sensitivity, space, groups) or _plans(sensitivity, space, COARSE_GROUPS)


def check_jobs(best: Candidate, sensitivity: Sensitivity, space: Space) -> list[Job]:
    """Return what the best plan is to be compared with: itself without one of its stages.

    Without factors in the recurrent layers, without them in embedding and output, with one width
    of codes, and with half of the recurrent weights pruned; each at the same size, but for the
    last.
    """
    if not best.knobs:
        return []
    knobs = Knobs.from_dict(best.knobs)
    values = best.knobs
    variants: list[dict[str, Any]] = [
        {"recurrent_rank": False},
        {"words_rank": False},
        {"widths": [4]},
        {"widths": [3]},
    ]
    jobs = []
    for changes in variants:
        other = Knobs.from_dict({**values, **changes})
        job = planned(sensitivity, other, space, "check", best.number)
        if job is not None:
            jobs.append(job)
    pruned = _pruned(sensitivity, knobs, space)
    if pruned is not None:
        jobs.append(Job("check", "half of the cells pruned", pruned, parent=best.number))
    return [job for job in jobs if list(job.recipe) != list(best.recipe)]


def _plans(sensitivity: Sensitivity, space: Space, groups: Sequence[int | str]) -> list[Job]:
    jobs = {}
    for size in space.sizes(FIRST_SIZES):
        for group in groups:
            for price in FIRST_PRICES:
                knobs = Knobs(bytes=int(size), unit=space.unit, group=group, rank_price=price)
                job = planned(sensitivity, knobs, space, "planned")
                if job is not None:
                    jobs[job.key] = job
    return list(jobs.values())


def _pruned(sensitivity: Sensitivity, knobs: Knobs, space: Space) -> list[Mapping[str, Any]] | None:
    """Return the plan's recipe with pruned recurrent weights, which are then not factored."""
    plan = fitting_plan(sensitivity, knobs, space)
    if plan is None:
        return None
    cells = " ".join(name for name in plan.storage if not is_words(name))
    words = [name for name in plan.storage if is_words(name)]
    return [
        *rank_steps(plan, words),
        {"method": "wanda", "weights": cells, "sparsity": PRUNED},
        {"method": "quantize", "weights": cells, "bits": PRUNED_BITS},
        *code_steps(plan, words),
    ]
