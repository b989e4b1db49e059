"""The search: from a model and a budget to the recipe that keeps it best."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna

from terselm.errors import TerselmError
from terselm.pipeline.budget import Budget, Limits
from terselm.pipeline.feasibility import space_for
from terselm.pipeline.front import front_of, possible_answers
from terselm.pipeline.job import Job
from terselm.pipeline.jobs import check_jobs, planned_jobs, preset_jobs, single_jobs
from terselm.pipeline.measurement import Candidate, Measurement, merged, timed_alike
from terselm.pipeline.promote import (
    LAST,
    LEAST,
    MOST_EPOCHS,
    SCALES,
    SECOND,
    SECOND_MANY,
    dropout_for,
    first_epochs,
    first_rung,
    leading,
    next_rung,
    others_of_rung,
    parents_of,
    scales_rung,
    whole_or_part,
)
from terselm.pipeline.queue import Queue, Watcher
from terselm.pipeline.sensitivity import Sensitivity, probe
from terselm.pipeline.space import Space
from terselm.pipeline.study import Study
from terselm.pipeline.work import Runner, sampled_job
from terselm.pipeline.workbench import Workbench

EXPLORING = 0.3
"""Share of the time that goes to candidates that are not trained."""
FINISHING = 0.06
"""Share of the time that is kept for measuring the front on all of the text."""
SAMPLED = 40
"""Trials that the sampler chooses in a round."""
TEST_SHARES = (0.01, 0.03)
"""Of the training text, read to see how long training takes beyond its beginning."""
FIRST = 2
"""Plans that are tried before the presets and the single methods."""


@dataclass(frozen=True)
class Request:
    """What is wanted.

    Attributes
    ----------
    budget : Budget or None
        None: three answers of different closeness.
    time_limit : float
        Seconds; what has begun is ended, so that it may take somewhat longer.
    rounds : int or None
        Rounds of exploring and training at most; None: as many as there is time for, or one
        without a limit.
    """

    budget: Budget | None
    time_limit: float = math.inf
    rounds: int | None = None


class Search:
    """Runs a search.

    Parameters
    ----------
    bench : Workbench
    study : Study
    runner : Runner
    request : Request
    watcher : Watcher
    """

    def __init__(
        self, bench: Workbench, study: Study, runner: Runner, request: Request, watcher: Watcher
    ) -> None:
        self.bench = bench
        self.study = study
        self.slots = runner.slots
        self.queue = Queue(study, runner, watcher)
        self.request = request
        self.watcher = watcher
        self._started = time.monotonic()
        self.source = self._measured_source()
        budget = request.budget
        self.limits = Limits() if budget is None else budget.limits(self.source)
        self.sensitivity: Sensitivity
        self.space: Space

    def run(self) -> list[Candidate]:
        """Search until the time or the rounds are over; return all candidates.

        Raises
        ------
        TerselmError
            If the budget cannot be met, as soon as that is known; the message has the nearest.
        """
        try:
            return self._run()
        except TerselmError:
            self.study.note("state", "done")  # or other hosts' workers would wait for more
            raise

    def _run(self) -> list[Candidate]:
        self.study.note("state", "fixed")
        self.sensitivity = self._sensitivity()
        self.space = space_for(
            self.bench.source, self.source, self.limits, self.sensitivity, self._one
        )
        self.study.note("space", self.space.as_dict())
        rounds = 0
        while self._goes_on(rounds):
            self._explore(rounds)
            self._train(rounds)
            rounds += 1
        self._finish_presets()
        self._read_whole_text()
        self.study.note("state", "done")
        return self.candidates()

    def candidates(self) -> list[Candidate]:
        """Return all candidates; of those measured twice, the measurement on more text."""
        return timed_alike(merged(self.study.candidates()))

    def elapsed(self) -> float:
        """Return the seconds since the search began, or went on."""
        return time.monotonic() - self._started

    def _measured_source(self) -> Measurement:
        noted = self.study.noted("source")
        if noted is None:
            self.watcher.phase("measuring the source model")
            noted = self.bench.measure_source().as_dict()
            self.study.note("source", noted)
        return Measurement.from_dict(noted)

    def _sensitivity(self) -> Sensitivity:
        noted = self.study.noted("sensitivity")
        if noted is None:
            self.watcher.phase("measuring how each matrix feels fewer ranks and fewer bits")
            bench = self.bench
            noted = probe(bench.source, bench.calibration, bench.statistics).as_dict()
            self.study.note("sensitivity", noted)
        return Sensitivity.from_dict(noted)

    def _one(self, job: Job) -> Candidate | None:
        found = self.queue.run([job])
        return found[0] if found else None

    def _goes_on(self, rounds: int) -> bool:
        if rounds == 0:
            return True
        if self.request.rounds is not None:
            return rounds < self.request.rounds
        return math.isfinite(self.request.time_limit) and self._left() > 0

    def _left(self) -> float:
        """Return the seconds that are left for trying and training."""
        return (1 - FINISHING) * self.request.time_limit - self.elapsed()

    def _deadline(self, share: float = 1.0) -> float | None:
        """Return when, by `time.monotonic`, a share of the time that is left is over."""
        left = self._left()
        return None if math.isinf(left) else time.monotonic() + share * max(0.0, left)

    def _explore(self, rounds: int) -> None:
        deadline = self._deadline(EXPLORING)
        if rounds == 0:
            self.watcher.phase("trying plans at this size, the presets, and each method alone")
            limit = self.space.size if math.isfinite(self.space.size) else None
            first = planned_jobs(self.sensitivity, self.space)
            singles = single_jobs(limit, self.source.bytes)
            some = [*first[:FIRST], *singles, *preset_jobs(trained=False)]
            self.queue.run([*some, *first[FIRST:]], deadline)
        self.watcher.phase("sampling plans")
        self.study.note("state", "sampling")
        self.queue.sample(self._sampled, (rounds + 1) * SAMPLED, deadline)
        self.study.note("state", "fixed")
        if rounds == 0:
            best = [each for each in parents_of(self.candidates(), self.limits) if each.knobs]
            if best:
                self.watcher.phase("checking what each stage is worth")
                self.queue.run(check_jobs(best[0], self.sensitivity, self.space), self._deadline())

    def _sampled(self, trial: optuna.Trial) -> Job | None:
        return sampled_job(trial, self.study, self.sensitivity, self.space)

    def _train(self, rounds: int) -> None:
        parents = parents_of(self.candidates(), self.limits)
        if not parents:
            return
        epochs = self._epochs(parents[0], rounds)
        if epochs is None:
            return
        self.watcher.phase(f"training candidates, {epochs:g} of the training text at first")
        dropout = dropout_for(max(self.bench.source.config.hidden))
        single = self._best_single() if rounds == 0 else None
        deadline = self._deadline()
        trained = self._trained(first_rung(parents, epochs, dropout), deadline)
        others = others_of_rung(parents, trained, self.limits, single)
        trained = [*trained, *self._trained(others, deadline)]
        if rounds > 0:
            trained = [each for each in self.candidates() if each.origin == "recovered"]
        rungs: list[tuple[Callable[[list[Candidate], float], list[Job]], int, int]] = [
            (next_rung, SECOND, SECOND_MANY),
            (scales_rung, SCALES, 1),
            (next_rung, LAST, 1),
            (scales_rung, SCALES, 1),
        ]
        for make, factor, many in rungs:
            able = [each for each in trained if self.limits.cost_excess(each.measured) <= 1]
            best = leading(able or trained, self.limits, many)
            jobs = make(best, whole_or_part(factor * epochs))
            trained = [*self._trained(jobs, deadline), *trained]

    def _trained(self, jobs: Sequence[Job], deadline: float | None) -> list[Candidate]:
        """Do the jobs; return what came of them, in the time of their untrained parents."""
        numbers = {each.number for each in self.queue.run(jobs, deadline)}
        timed = timed_alike(self.study.candidates())
        return [each for each in timed if each.number in numbers]

    def _epochs(self, parent: Candidate, rounds: int) -> float | None:
        """Return how long the first trainings of a round are; None if there is no time."""
        if math.isinf(self.request.time_limit):
            return whole_or_part(min(MOST_EPOCHS, 2.0**rounds / 4))
        noted = self.study.noted("epoch_seconds")
        if noted is None:
            ranks = [step for step in parent.recipe if step["method"] == "low_rank"]
            try:
                short, longer = (self.bench.training_seconds(ranks, share) for share in TEST_SHARES)
            except TerselmError as error:
                if rounds == 0:
                    self.watcher.phase(f"training is left out: {error}")
                return None
            # The first steps are slow; a machine that is busy may even make them slower than all.
            noted = max(longer - short, 0.2 * longer) / (TEST_SHARES[1] - TEST_SHARES[0])
            self.study.note("epoch_seconds", noted)
        # What is trained is read by all of the text, its parent was read by the beginning.
        reading = self.source.tokens * parent.measured.microseconds * 1e-6
        epochs = first_epochs(self.slots * self._left(), noted, parent.seconds + reading)
        if epochs >= LEAST:
            return whole_or_part(min(MOST_EPOCHS, epochs))
        if rounds == 0:
            self.watcher.phase("there is no time for training; give a longer --time-limit")
        return None

    def _best_single(self) -> Candidate | None:
        """Return the single method that does best within the limits."""
        singles = [each for each in self.candidates() if each.origin == "single"]
        able = [each for each in singles if self.limits.cost_excess(each.measured) <= 1]
        return min(able, key=lambda each: each.measured.perplexity) if able else None

    def _finish_presets(self) -> None:
        """Do the presets that train, if there is time: the front is to be no worse than theirs."""
        if self._left() > 0:
            self.watcher.phase("the presets that train")
            self.queue.run(preset_jobs(trained=True), self._deadline())

    def _read_whole_text(self) -> None:
        """Measure on all of the text what may be the answer, or is on the front."""
        found = self.candidates()
        near = _quick(possible_answers(found, self.limits))
        rest = [each for each in _quick(front_of(found)) if each not in near]
        if near or rest:
            self.watcher.phase("reading all of the validation text with the front")
        self.queue.run([_whole(each) for each in near])
        limit = self.request.time_limit
        deadline = None if math.isinf(limit) else time.monotonic() + FINISHING * limit
        self.queue.run([_whole(each) for each in rest], deadline)


def _quick(candidates: list[Candidate]) -> list[Candidate]:
    return [each for each in candidates if not each.measured.whole_text]


def _whole(candidate: Candidate) -> Job:
    return Job(
        candidate.origin,
        candidate.label,
        candidate.recipe,
        parent=candidate.parent,
        knobs=candidate.knobs,
        whole_text=True,
        same_as=candidate.number,
    )


def fits(source: Measurement, limits: Limits) -> bool:
    """Return whether a model keeps all limits as it is."""
    return limits.excess(source) <= 1
