"""An experiment: how a model is made, in a file, and what others published of such a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from terselm.compress.recipe import Recipe
from terselm.errors import TerselmError, UsageError
from terselm.experiments.training import check_further, make_settings
from terselm.models.config import first_problem

Positive = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]

USUAL_DATA = "ptb"
"""The corpus that `terselm reproduce` reads if it is told nothing else."""
UNHASHED = ("title", "published", "note", "seeds", "budget")
"""Fields that say something about a model and nothing about how it is made."""
ADDED = (
    *("start_seed", "start_weights", "start_member"),
    *("teacher_seed", "generated", "generated_seed"),
)
"""Fields that count for a key only where they are set."""


class Published(BaseModel):
    """What somebody printed of such a model.

    Attributes
    ----------
    where : str
        Table or section.
    row : int
        In that table, for its order.
    megabytes : float or None
        10^6 bytes, as printed.
    parameters : float or None
    perplexity : float or None
        On test text.
    milliseconds : float or None
        Of a step, on the device that they used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    where: str
    row: int = 0
    megabytes: Positive | None = None
    parameters: Positive | None = None
    perplexity: Positive | None = None
    milliseconds: Positive | None = None


class Budget(BaseModel):
    """What a model of the frontier is to keep.

    Attributes
    ----------
    megabytes : float
        10^6 bytes of the file.
    mark, stretch : float
        Test perplexities to reach.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    megabytes: Positive
    mark: Positive
    stretch: Positive | None = None


class Experiment(BaseModel):
    """How a model is made: trained, from random weights or another experiment's; then compressed.

    Attributes
    ----------
    title : str
    train : dict or None
        Settings of `terselm train`; with `start`, those of training alone. None: not trained.
    start : str, list of str, or None
        The experiment whose model is taken, in the place of random weights; several are merged
        into one, see `models.merging.merge`. "NAME-seed-N" is that run of it alone.
    start_seed : int or None
        Which of their runs, for all seeds, where it is not said there; None: those of the same
        seed.
    start_weights : list of float or None
        Of the models that are merged, in their order; None: those that fit validation text best.
    start_member : int or None
        Of a model that was merged, that one alone of those that it was merged of, from 0.
    teacher : str, list of str, or None
        The experiment whose model teaches, in `train` and in steps that distil; several teach
        together, by the mean of their distributions. "NAME-seed-N" is that run of it alone.
    teacher_seed : int or None
        Which of their runs, for all seeds, where it is not said there; None: those of the same
        seed.
    generated : int or None
        Tokens of text that the teachers write, read in training, and in `recover` steps, after
        the real text; see `terselm.train.generation`.
    generated_seed : int or None
        Of that text, the same one for all seeds; None: each run has its own.
    compress : list of dict
        Steps of a recipe.
    data : str or None
        The corpus, where it is always the same; None: what `--data` says.
    seeds : list of int
        One run each.
    published : Published or None
    budget : Budget or None
    note : str or None
        What a reader of the table must know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    train: dict[str, Any] | None = None
    start: str | Annotated[list[str], Field(min_length=2)] | None = None
    start_seed: Seed | None = None
    start_weights: list[float] | None = None
    start_member: Annotated[int, Field(ge=0)] | None = None
    teacher: str | Annotated[list[str], Field(min_length=1)] | None = None
    teacher_seed: Seed | None = None
    generated: Annotated[int, Field(gt=0)] | None = None
    generated_seed: Seed | None = None
    compress: list[dict[str, Any]] = []
    data: str | None = None
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    published: Published | None = None
    budget: Budget | None = None
    note: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        if self.train is None and self.start is None:
            raise ValueError("give train, or start, or both")
        taken_as_it_is = isinstance(self.start, str) and self.start_member is None
        if self.train is None and not self.compress and taken_as_it_is:
            raise ValueError("start without train or compress makes nothing new")
        several = len(self.starts()) if isinstance(self.start, list) else 0
        if self.start_weights is not None and len(self.start_weights) != several:
            raise ValueError("start_weights needs as many experiments in start, two or more")
        if self.start_member is not None and not isinstance(self.start, str):
            raise ValueError("start_member needs one experiment in start")
        if self.start_seed is not None and self.start is None:
            raise ValueError("start_seed without start says nothing")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is there twice")
        if self.teacher_seed is not None and self.teacher is None:
            raise ValueError("teacher_seed without a teacher says nothing")
        if self.generated is not None and self.teacher is None:
            raise ValueError("generated needs a teacher, who writes it")
        if self.generated_seed is not None and self.generated is None:
            raise ValueError("generated_seed without generated says nothing")
        if self.train is not None and "seed" in self.train:
            raise ValueError("the seed of train comes from seeds")
        return self

    def needs(self) -> list[str]:
        """Return the experiments that must be run before this one."""
        return [name for name, _ in self.needed_runs(0)]

    def teachers(self) -> list[str]:
        """Return the experiments whose models teach, or runs of them."""
        return _listed(self.teacher)

    def teacher_runs(self, seed: int) -> list[tuple[str, int]]:
        """Return name and seed of the runs whose models teach this one."""
        return _runs(self.teachers(), seed if self.teacher_seed is None else self.teacher_seed)

    def starts(self) -> list[str]:
        """Return the experiments whose models are taken, or runs of them."""
        return _listed(self.start)

    def start_runs(self, seed: int) -> list[tuple[str, int]]:
        """Return name and seed of the runs whose models this one goes on from."""
        return _runs(self.starts(), seed if self.start_seed is None else self.start_seed)

    def needed_runs(self, seed: int) -> list[tuple[str, int]]:
        """Return name and seed of the runs whose models this one takes."""
        return [*self.start_runs(seed), *self.teacher_runs(seed)]

    def content(self) -> dict[str, Any]:
        """Return what the model depends on, as JSON values."""
        values = self.model_dump(mode="json")
        # Experiments from before there were these fields keep their keys.
        unset = [name for name in ADDED if values[name] is None]
        return {n: value for n, value in values.items() if n not in (*UNHASHED, *unset)}


def _listed(names: str | list[str] | None) -> list[str]:
    if names is None:
        return []
    return [names] if isinstance(names, str) else names


def _runs(labels: list[str], seed: int) -> list[tuple[str, int]]:
    """Return name and seed of each run, `seed` where the label names none."""
    return [named_run(label) or (label, seed) for label in labels]


def named_run(label: str) -> tuple[str, int] | None:
    """Return name and seed of what "NAME-seed-N" stands for; None where it is no such label."""
    name, there, number = label.rpartition("-seed-")
    return (name, int(number)) if there and number.isdecimal() else None


def load_experiment(path: Path) -> Experiment:
    """Read an experiment file (YAML).

    Raises
    ------
    UsageError
        If it cannot be read or a field is wrong; the message names file and field.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not text (UTF-8)") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected fields, one `name: value` a line")
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{path}: {first_problem(error)}") from None
    try:
        if experiment.compress:
            Recipe.from_list(experiment.compress)
    except TerselmError as error:
        raise UsageError(f"{path}: compress: {error}") from None
    try:
        if experiment.train is not None:
            make_settings(experiment.train)
            if experiment.start is not None:
                check_further(experiment.train)
    except TerselmError as error:
        raise UsageError(f"{path}: train: {error}") from None
    return experiment


def key_of(name: str, seed: int, suite: Mapping[str, Experiment], data: str = USUAL_DATA) -> str:
    """Return 16 hex digits that change with anything the run's model depends on.

    Titles, published figures and notes are not among it.

    Parameters
    ----------
    name : str
    seed : int
    suite : mapping of str to Experiment
    data : str
        The corpus of experiments that name none.
    """
    experiment = suite[name]
    needed = [key_of(*run, suite, data) for run in experiment.needed_runs(seed)]
    # Keys from before the corpus was among it stay.
    corpus = [] if experiment.data or data == USUAL_DATA else [data]
    text = json.dumps([experiment.content(), seed, needed, *corpus], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
