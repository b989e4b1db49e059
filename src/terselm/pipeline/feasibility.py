"""What a budget leaves to choose from, and whether it can be met at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from terselm.errors import TerselmError
from terselm.evaluate.cost import inspect
from terselm.models.language_model import LanguageModel
from terselm.pipeline.budget import Limits
from terselm.pipeline.job import Job
from terselm.pipeline.jobs import single_jobs
from terselm.pipeline.measurement import Candidate, Measurement
from terselm.pipeline.plan import GROUPS, Knobs, Plan, quantized_bytes, smallest_possible
from terselm.pipeline.sensitivity import Sensitivity
from terselm.pipeline.space import Space, fitting_plan, planned_job

HEADER = 3_000
HEADER_PER_MATRIX = 700
"""Bytes that descriptions and the recipe are expected to add to the header."""
LONGER_RECIPE = 256
"""Bytes that another recipe may take more than a measured one."""
LARGEST = 1 / 3.5
"""Of the source: without a limit on what it costs nobody wants more than 8 bits take."""
SMALLEST = 1 / 60
MARGIN = 0.97
"""Of the time that bytes are expected to take, since times are not exact."""
AIMS, NEAR = 3, 0.9
"""How often a plan at the limit of time is tried at most, and what share of it is near enough."""


def space_for(
    model: LanguageModel,
    source: Measurement,
    limits: Limits,
    sensitivity: Sensitivity,
    measure: Callable[[Job], Candidate | None],
) -> Space:
    """Return the sizes that are worth a look.

    Parameters
    ----------
    model : LanguageModel
        The source.
    source : Measurement
    limits : Limits
    sensitivity : Sensitivity
    measure : callable
        Makes and measures a job, to learn what a byte costs in time; None if that failed.

    Raises
    ------
    TerselmError
        If no plan meets the limits on size, memory or time; the message has the nearest.
    """
    parts = inspect(model)
    fixed = parts.bytes - sum(part.bytes for part in parts.weights)
    fixed += HEADER + HEADER_PER_MATRIX * len(sensitivity.matrices)
    smallest = smallest_possible(sensitivity, fixed)
    beside = source.memory - source.bytes
    size = min(limits.size, limits.memory - beside)
    if size < smallest:
        # What was expected is generous, and for small models most of the file: look at a real one.
        fixed = _fixed_in_truth(
            sensitivity, Space("file", smallest, smallest, True, size, fixed), measure
        )
        smallest = smallest_possible(sensitivity, fixed)
    if size < smallest:
        raise TerselmError(_too_small(limits, smallest, smallest + beside))
    high = min(max(source.bytes * LARGEST, smallest), size)
    low = max(smallest, min(max(1.2 * smallest, source.bytes * SMALLEST), high / 2))
    space = Space("file", low, high, size < source.bytes, size, fixed)
    if math.isinf(limits.latency):
        return space
    return _with_latency(space, limits.latency, sensitivity, measure)


def _with_latency(
    space: Space,
    latency: float,
    sensitivity: Sensitivity,
    measure: Callable[[Job], Candidate | None],
) -> Space:
    """Return the space of bytes that can be read in time, as first candidates read them."""
    plan, found = _tried(_small_plan(sensitivity, space), measure)
    fastest = smallest_possible(sensitivity, 0, "read") * _rate(plan, found)
    if MARGIN * latency < fastest:
        raise TerselmError(
            f"the budget cannot be met: {latency:.4g} µs a token are asked for, and the fastest "
            f"that this model can become takes about {fastest:.3g} µs on this device; "
            f"the nearest budget is --max-latency {math.ceil(fastest / MARGIN)}us"
        )
    space = replace(space, paces=_paces(sensitivity, measure))
    least = smallest_possible(sensitivity, 0, "read", space.paces)
    for _ in range(AIMS):
        most = max(least, MARGIN * latency / _rate(plan, found))
        space = replace(space, unit="read", low=max(least, most / 3), high=most, at_limit=True)
        # What a small plan takes for a byte is not quite what one at the limit takes.
        knobs = Knobs(bytes=int(most), unit="read")
        plan, found = _tried(fitting_plan(sensitivity, knobs, space) or plan, measure)
        if NEAR * latency <= found.measured.microseconds <= latency:
            break
    return space


def _tried(plan: Plan | None, measure: Callable[[Job], Candidate | None]) -> tuple[Plan, Candidate]:
    found = None if plan is None else measure(planned_job(plan, "planned"))
    if plan is None or found is None:
        raise TerselmError("not even a first candidate can be made of this model")
    return plan, found


def _rate(plan: Plan, found: Candidate) -> float:
    """Return microseconds a byte."""
    return found.measured.microseconds / plan.read


def _paces(
    sensitivity: Sensitivity, measure: Callable[[Job], Candidate | None]
) -> dict[int, float]:
    """Return how long a byte of each width takes next to one of the quickest, as measured here."""
    rates = {}
    for job in single_jobs(None, 0):
        step = job.recipe[0]
        if step["method"] != "quantize":
            continue
        found = measure(job)
        if found is not None and not found.measured.estimated_latency:
            bits, group = step["bits"], step.get("group", "row")
            read = sum(
                quantized_bytes(*each.shape, bits, group)
                for each in sensitivity.matrices
                if not each.looked_up
            )
            rates[bits] = found.measured.microseconds / read
    return {bits: round(rate / min(rates.values()), 3) for bits, rate in rates.items()}


def _fixed_in_truth(
    sensitivity: Sensitivity, space: Space, measure: Callable[[Job], Candidate | None]
) -> int:
    """Return the bytes beside the matrices in a small file that is made for it."""
    plan = _small_plan(sensitivity, space)
    found = None if plan is None else measure(planned_job(plan, "planned"))
    if plan is None or found is None:
        return space.fixed_bytes
    return min(space.fixed_bytes, found.measured.bytes - plan.bytes + LONGER_RECIPE)


def _small_plan(sensitivity: Sensitivity, space: Space) -> Plan | None:
    """Return a plan of the space's smallest file, with fewer scales where there is no room."""
    free = replace(space, size=math.inf)
    for group in (Knobs.group, *GROUPS):
        knobs = Knobs(bytes=int(space.low), group=group, rank_price=0.3)
        plan = fitting_plan(sensitivity, knobs, free)
        if plan is not None:
            return plan
    return None


def _too_small(limits: Limits, smallest: int, memory: int) -> str:
    if limits.size < smallest:
        return (
            f"the budget cannot be met: a file of {limits.size:,.0f} bytes is asked for, and the "
            f"smallest that this model can become has about {smallest:,}; the nearest budget is "
            f"--max-size {smallest}"
        )
    return (
        f"the budget cannot be met: {limits.memory:,.0f} bytes of memory are asked for, and this "
        f"model needs at least about {memory:,}; the nearest budget is --max-memory {memory}"
    )
