"""Training for the few candidates that are worth it: successive halving."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from terselm.compress.methods.recover import Recover
from terselm.pipeline.budget import Limits
from terselm.pipeline.families import CODES
from terselm.pipeline.front import front_of
from terselm.pipeline.job import Job
from terselm.pipeline.measurement import Candidate

PARENTS = 3
WINS = 1.10
"""By what factor training may better a perplexity, for choosing whom to train."""
FIRST_RUNG = 6
"""Trainings that a round begins with, see `first_rung` and `others_of_rung`."""
SECOND, SECOND_MANY = 3, 2
"""How many times as long the next trainings are, and how many of the best are trained so."""
SCALES = 3
"""The same of the training of the best one's scales; it is done once more after the last."""
LAST = 12
"""The same of the last training, of the best one alone."""
NEAR = 1.5
"""Up to what times the perplexity of the best a single method is trained."""
LEAST = 0.02
MOST_EPOCHS = 4.0
"""Of the first training of a round."""
TRAINED = ", trained "
RATE, TAUGHT_RATE, SCALES_RATE = 0.0005, 0.0001, 0.0003
MOST_TAUGHT = 0.0003
"""The rate up to which that of a training by the source alone doubles as it gets longer."""


@dataclass(frozen=True)
class Training:
    """How a candidate is trained.

    Attributes
    ----------
    epochs : float
    learning_rate : float
    dropout : float
    distillation : float
        Share of the source model's predictions in the loss; 0: the source does not teach.
    """

    epochs: float
    learning_rate: float
    dropout: float
    distillation: float = 0.0

    def step(self) -> dict[str, Any]:
        """Return the step of a recipe."""
        step: dict[str, Any] = {
            "method": "recover",
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "dropout": self.dropout,
        }
        if self.distillation:
            step |= {"distill": True, "distill_weight": self.distillation}
        return step

    def teachers(self) -> str:
        """Return who teaches, for a label; nothing for text alone."""
        if not self.distillation:
            return ""
        return " by the source" if self.distillation == 1.0 else " by text and source"


def whole_or_part(epochs: float) -> float:
    """Return a number of epochs that `recover` can do, below one or whole, and not much more."""
    if epochs >= 1:
        return float(int(epochs + 0.25))
    return min(1.0, max(LEAST, round(epochs, 2)))


def first_epochs(seconds: float, epoch_seconds: float, trial_seconds: float) -> float:
    """Return how long the first trainings of a round may be, in epochs; 0 if there is no time.

    Parameters
    ----------
    seconds : float
        For the whole round.
    epoch_seconds : float
        Of an epoch of training.
    trial_seconds : float
        Of what a trial takes beside its training.
    """
    # The scales are a trial of their own once; after the last training they belong to its trial.
    trials = FIRST_RUNG + SECOND_MANY + 2
    units = FIRST_RUNG + SECOND * SECOND_MANY + SCALES + LAST + SCALES
    return max(0.0, seconds - trials * trial_seconds) / (units * epoch_seconds)


def dropout_for(hidden: int) -> float:
    """Return a dropout for a compressed model: 0.2 at 200 hidden units, 0.4 from 500 on."""
    return round(min(0.4, max(0.1, 0.2 + (hidden - 200) * 0.2 / 300)), 2)


def parents_of(
    candidates: Sequence[Candidate], limits: Limits, *, many: int = PARENTS
) -> list[Candidate]:
    """Return untrained candidates that training may make the answer, the most likely first.

    Of those that keep the limits on size, time and memory. With a limit on perplexity the
    smallest of which training may bring within it; otherwise the best; without any limit some of
    the front, from its small end on. No two that are stored alike in kind.
    """
    untrained = [each for each in candidates if not each.trained and each.origin != "single"]
    able = [each for each in untrained if limits.cost_excess(each.measured) <= 1]
    if not math.isinf(limits.perplexity):
        hopeful = [each for each in able if each.measured.perplexity <= WINS * limits.perplexity]
        able = sorted(hopeful or able, key=lambda each: each.measured.bytes)
    elif limits.costs:
        able = sorted(able, key=lambda each: each.measured.perplexity)
    else:
        able = _spread(front_of(able), many)
    chosen: list[Candidate] = []
    for candidate in able:
        if len(chosen) < many and kind_of(candidate) not in map(kind_of, chosen):
            chosen.append(candidate)
    rest = [each for each in able if each not in chosen]
    return [*chosen, *rest][:many]


def ways(epochs: float, dropout: float) -> list[Training]:
    """Return how a candidate may be trained.

    From text alone, from text and source, and from the source alone. A source that is not trained
    out is bettered by text. One that is loses by a short training on text, which it knows, and
    what was lost to it comes back soonest where nothing but its predictions counts, without
    dropout and at a low rate.
    """
    return [
        Training(epochs, RATE, dropout),
        Training(epochs, RATE, dropout, distillation=0.5),
        Training(epochs, TAUGHT_RATE, 0.0, distillation=1.0),
    ]


def first_rung(parents: Sequence[Candidate], epochs: float, dropout: float) -> list[Job]:
    """Return the first trainings of a round: the first parent in all ways."""
    return [trained_job(parent, way) for parent in parents[:1] for way in ways(epochs, dropout)]


def others_of_rung(
    parents: Sequence[Candidate],
    trained: Sequence[Candidate],
    limits: Limits,
    single: Candidate | None,
) -> list[Job]:
    """Return trainings of the other parents in the way that did best for the first one.

    A single method that comes near it is trained so, too.
    """
    if not trained:
        return []
    (best,) = leading(trained, limits, 1)
    others = list(parents[1:])
    if single is not None and single.measured.perplexity <= NEAR * best.measured.perplexity:
        others.append(single)
    return [trained_job(each, _last_training(best.recipe)) for each in others]


def leading(trained: Sequence[Candidate], limits: Limits, many: int) -> list[Candidate]:
    """Return the best of those that were trained, the best first."""
    return sorted(trained, key=lambda each: _rank(each, limits))[:many]


def next_rung(best: Sequence[Candidate], epochs: float) -> list[Job]:
    """Return longer trainings, going on from there.

    Those by the source alone at a higher rate, which a longer training bears and a short one not.
    """
    jobs = []
    for each in best:
        training = replace(_last_training(each.recipe), epochs=epochs)
        if training.distillation == 1.0:
            rate = min(MOST_TAUGHT, 2 * training.learning_rate)
            training = replace(training, learning_rate=rate)
        jobs.append(trained_job(each, training))
    return jobs


def scales_rung(best: Sequence[Candidate], epochs: float) -> list[Job]:
    """Return trainings of what codes leave open: their scales, and the biases.

    By the source alone, whatever a candidate was trained by before: little can change, so that a
    short training wins back much of what the codes lost.
    """
    scales = Training(epochs, SCALES_RATE, 0.0, distillation=1.0)
    coded = [each for each in best if each.recipe[-1]["method"] in CODES]
    return [_job(each, [*each.recipe, scales.step()]) for each in coded]


def trained_job(parent: Candidate, training: Training) -> Job:
    """Return the parent's recipe with a training before its codes."""
    return _job(parent, with_training(parent.recipe, training.step()))


def _job(parent: Candidate, recipe: list[Mapping[str, Any]]) -> Job:
    """Return a job whose label says how long it trains, by what, and its scales."""
    first = _first_codes(recipe)
    before, after = (
        [step["epochs"] for step in steps if step["method"] == "recover"]
        for steps in (recipe[:first], recipe[first:])
    )
    label = parent.label.partition(TRAINED)[0]
    label += TRAINED + " + ".join(f"{epochs:g}" for epochs in before)
    label += _last_training(recipe).teachers()
    label += "".join(f", scales {epochs:g}" for epochs in after)
    return Job("recovered", label, recipe, parent=parent.number, whole_text=True)


def with_training(
    recipe: Sequence[Mapping[str, Any]], step: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Return a recipe with a step put before the first that makes codes.

    Training wins back most of what low rank loses and little of what few bits lose, and codes
    made of trained numbers are better than trained codes.
    """
    number = _first_codes(recipe)
    return [*recipe[:number], step, *recipe[number:]]


def kind_of(candidate: Candidate) -> tuple[Any, ...]:
    """Return which methods a candidate uses, on what, and its fewest bits."""
    found = []
    fewest = min((step.get("bits", 32) for step in candidate.recipe), default=32)
    for step in candidate.recipe:
        if step["method"] not in CODES:
            where = str(step.get("weights", "*"))
            found.append((step["method"], "cells" in where, "embedding" in where))
    return (*found, fewest)


def _first_codes(recipe: Sequence[Mapping[str, Any]]) -> int:
    return next((at for at, each in enumerate(recipe) if each["method"] in CODES), len(recipe))


def _last_training(recipe: Sequence[Mapping[str, Any]]) -> Training:
    """Return the last training before the codes."""
    before = recipe[: _first_codes(recipe)]
    last = [step for step in before if step["method"] == "recover"][-1]
    share = last.get("distill_weight", Recover.distill_weight) if last.get("distill") else 0.0
    return Training(last["epochs"], last["learning_rate"], last["dropout"], share)


def _rank(candidate: Candidate, limits: Limits) -> tuple[float, float, float]:
    measured = candidate.measured
    if math.isinf(limits.perplexity):
        return max(1.0, limits.cost_excess(measured)), measured.perplexity, measured.bytes
    return max(1.0, limits.excess(measured)), measured.bytes, measured.perplexity


def _spread(front: Sequence[Candidate], many: int) -> list[Candidate]:
    """Return some of a front, evenly, from its second smallest on."""
    if len(front) <= many:
        return list(front)
    step = (len(front) - 1) / many
    return [front[min(len(front) - 1, 1 + int(step * number))] for number in range(many)]
