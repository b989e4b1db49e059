"""Sizes that a limit on time leaves, on devices whose times are known exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from terselm.errors import TerselmError
from terselm.pipeline.feasibility import MARGIN, NEAR, _with_latency
from terselm.pipeline.job import Job
from terselm.pipeline.measurement import Candidate
from terselm.pipeline.plan import Knobs, quantized_bytes
from terselm.pipeline.space import Space, fitting_plan, planned_job
from tests.pipeline.test_front import candidate
from tests.pipeline.test_plan import SMALL

SPACE = Space("file", 12_000, 60_000, False, float("inf"), 2_000)


class Device:
    """Takes a time for every byte of a width, and one for a token.

    Parameters
    ----------
    constant : float
        Microseconds.
    rates : mapping of int to float
        Microseconds a byte, by the width.
    """

    def __init__(self, constant: float, rates: Mapping[int, float]) -> None:
        self.constant = constant
        self.rates = rates
        self.measured: list[Job] = []

    def measure(self, job: Job) -> Candidate:
        self.measured.append(job)
        found = candidate(len(self.measured), 10, 20.0, self.time(job))
        return replace(found, recipe=job.recipe)

    def time(self, job: Job) -> float:
        total = self.constant
        ranks = {}
        for step in job.recipe:
            ranks |= step.get("ranks", {})
        for matrix in SMALL.matrices:
            steps = [step for step in job.recipe if "bits" in step]
            (step,) = [s for s in steps if matrix.name in s.get("weights", "*").split() + all_(s)]
            bits, group = step["bits"], step.get("group", "row")
            rows, columns = matrix.shape
            if matrix.name in ranks:
                parts = [(rows, ranks[matrix.name]), (ranks[matrix.name], columns)]
            else:
                parts = [(rows, columns)]
            for number, shape in enumerate(parts):
                size = quantized_bytes(*shape, bits, group)
                first_is_looked_up = matrix.looked_up and number == 0
                total += self.rates[bits] * (size // rows if first_is_looked_up else size)
        return total


def all_(step: Mapping[str, object]) -> list[str]:
    return [each.name for each in SMALL.matrices] if step.get("weights", "*") == "*" else []


@pytest.mark.parametrize("constant", [0.0, 4.0])
@pytest.mark.parametrize("slow", [1.0, 2.5])
def test_the_first_plan_at_the_limit_takes_nearly_all_of_the_time(constant: float, slow: float):
    device = Device(constant, {8: 1e-3, 4: 1e-3, 3: slow * 1e-3, 2: 1e-3})
    space = _with_latency(SPACE, 16.0, SMALL, device.measure)
    assert space.unit == "read" and space.at_limit
    assert min(space.paces.values()) == 1.0
    assert space.paces[3] / space.paces[4] == pytest.approx(slow, rel=0.1 if constant else 0.02)
    plan = fitting_plan(SMALL, Knobs(int(space.high), "read"), space)
    assert plan is not None
    assert NEAR * MARGIN * 16.0 <= device.time(planned_job(plan, "planned")) <= 16.0
    assert Space.from_dict(space.as_dict()) == space


def test_a_time_that_no_plan_takes_is_refused_with_the_nearest():
    device = Device(0.0, dict.fromkeys((8, 4, 3, 2), 1e-3))
    with pytest.raises(TerselmError, match=r"nearest budget is --max-latency \d+us"):
        _with_latency(SPACE, 0.5, SMALL, device.measure)


def test_a_device_of_which_times_are_estimated_has_no_paces():
    device = Device(0.0, {8: 1e-3, 4: 1e-3, 3: 9e-3, 2: 1e-3})

    def measure(job: Job) -> Candidate:
        found = device.measure(job)
        return replace(found, measured=replace(found.measured, estimated_latency=True))

    assert _with_latency(SPACE, 16.0, SMALL, measure).paces == {}
