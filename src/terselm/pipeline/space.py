"""What Optuna chooses from: the knobs of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import optuna

from terselm.pipeline.job import Job
from terselm.pipeline.plan import GROUPS, Knobs, Plan, make_plan, plan_label, plan_recipe
from terselm.pipeline.sensitivity import Sensitivity

WIDTHS = ("8 4 3 2", "8 4 3", "8 4", "4 3", "3 2", "4", "3")
SHARES = (1.0, 0.97, 0.9, 0.8, 0.6)
"""Of the limit, where there is one: the last bytes of it are rarely wasted."""
SMALLER = 0.97
TRIES = 8


@dataclass(frozen=True)
class Space:
    """Which sizes are looked at.

    Attributes
    ----------
    unit : {"file", "read"}
        As of `Knobs`.
    low, high : float
        Bytes in that unit.
    at_limit : bool
        Whether `high` is a limit, near which the answer lies.
    size : float
        The most bytes of the file.
    fixed_bytes : int
        Bytes of the file that are no matrices.
    paces : dict of int to float
        How many times as long a byte of a width takes; see `make_plan`.
    """

    unit: str
    low: float
    high: float
    at_limit: bool
    size: float
    fixed_bytes: int
    paces: dict[int, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "paces": {str(bits): pace for bits, pace in self.paces.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Space:
        """Return what `as_dict` gave the values of."""
        paces = {int(bits): pace for bits, pace in values.get("paces", {}).items()}
        return cls(**{**values, "paces": paces})

    def sizes(self, count: int) -> list[float]:
        """Return sizes for a first look: the limit, or `count` of them evenly on a log scale."""
        if self.at_limit or count < 2:
            return [self.high]
        step = (self.high / self.low) ** (1 / (count - 1))
        return [self.low * step**number for number in range(count)]


def suggest_knobs(trial: optuna.Trial, space: Space) -> Knobs:
    """Return the knobs that the sampler chooses."""
    if space.at_limit:
        size = space.high * trial.suggest_categorical("share", SHARES)
    else:
        size = trial.suggest_float("bytes", space.low, space.high, log=True)
    widths = trial.suggest_categorical("widths", WIDTHS)
    return Knobs(
        bytes=int(size),
        unit=space.unit,
        group=GROUPS[trial.suggest_categorical("group", range(len(GROUPS)))],
        widths=tuple(int(width) for width in widths.split()),
        rank_price=trial.suggest_float("rank_price", 0.03, 2.0, log=True),
        words_price=trial.suggest_float("words_price", 0.3, 3.0, log=True),
        recurrent_rank=trial.suggest_categorical("recurrent_rank", (True, False)),
        words_rank=trial.suggest_categorical("words_rank", (True, False)),
    )


def planned(
    sensitivity: Sensitivity, knobs: Knobs, space: Space, origin: str, parent: int | None = None
) -> Job | None:
    """Return the job of the plan that fits the knobs and the space; None if there is none."""
    plan = fitting_plan(sensitivity, knobs, space)
    return None if plan is None else planned_job(plan, origin, parent)


def planned_job(plan: Plan, origin: str, parent: int | None = None) -> Job:
    """Return the job of a plan."""
    recipe = plan_recipe(plan)
    return Job(origin, plan_label(plan), recipe, parent=parent, knobs=plan.knobs.as_dict())


def fitting_plan(sensitivity: Sensitivity, knobs: Knobs, space: Space) -> Plan | None:
    """Return the plan, smaller than asked for where the file would be too large otherwise."""
    for _ in range(TRIES):
        plan = make_plan(sensitivity, knobs, space.fixed_bytes, space.paces)
        if plan is None:
            return None
        excess = (plan.bytes + space.fixed_bytes) / space.size
        if excess <= 1:
            return plan
        knobs = replace(knobs, bytes=int(knobs.bytes / excess * SMALLER))
    return None
