"""The state of a training run and how a step changes it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from terselm.cells.base import State
from terselm.errors import TerselmError
from terselm.linear.dense import Dense
from terselm.models.language_model import LanguageModel
from terselm.train.averaging import make_average
from terselm.train.checkpoint import RunFolder, save_checkpoint
from terselm.train.config import TrainingConfig
from terselm.train.distillation import Distillation, Place
from terselm.train.distributed import Workers
from terselm.train.interruption import StopRequest
from terselm.train.metrics import EpochRecord, Meter, MetricsFile, Observer, RunInfo, Stopped
from terselm.train.objective import Objective, make_noise
from terselm.train.optimizers import ScheduledOptimizer
from terselm.train.reporting import Position, Reporter
from terselm.train.windows import Windows

NOTHING, SAVE, TIME, INTERRUPT = range(4)


@dataclass(frozen=True)
class Best:
    """The best model so far, copied to the CPU: its weights and what its forms need beside them."""

    epoch: int
    perplexity: float
    weights: Mapping[str, Tensor]
    forms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Run:
    """Everything that changes while a model is trained, and the file that holds it.

    Parameters
    ----------
    model : LanguageModel
        On the device of `workers`; trained in place.
    ids : np.ndarray
        The training text.
    config : TrainingConfig
    workers : Workers
    distillation : Distillation or None
    folder : RunFolder
    fingerprint : Mapping
        What a checkpoint must have in common with a run that resumes it.
    stored : Mapping or None
        The checkpoint to go on from.
    observer : Observer or None
    """

    def __init__(
        self,
        model: LanguageModel,
        ids: np.ndarray,
        config: TrainingConfig,
        *,
        workers: Workers,
        distillation: Distillation | None,
        folder: RunFolder,
        fingerprint: Mapping[str, Any],
        stored: Mapping[str, Any] | None,
        observer: Observer | None,
    ) -> None:
        self.model = model
        self.config = config
        self.parameters = trainable_parameters(model)
        self._trained = list(self.parameters.values())
        self.optimizer = ScheduledOptimizer(self._trained, config, hidden_matrices(model))
        self.average = make_average(self._trained, config)
        self.history: list[EpochRecord] = []
        self._workers = workers
        self._distillation = distillation
        self._folder = folder
        self._fingerprint = fingerprint
        self._windows = Windows(ids, model.vocabulary.start_id, config, workers.rank, workers.world)
        self._position = Position()
        self._meter = Meter(workers.device)
        self._state: list[State] = []
        self._best: Best | None = None
        self._norm: Tensor | None = None
        length, taught = (0, None) if stored is None else self._load(stored)
        if distillation is not None:
            path, shared = folder.samples_of(fingerprint, workers.rank)
            place = Place(path, self._windows.streams, self._windows.steps, shared)
            distillation.open(place, taught)
        noise = make_noise(config, ids, len(model.vocabulary))
        self._objective = workers.prepare(Objective(model, config, distillation, noise))
        self._tokens_per_epoch = len(ids)
        workers.on_main(lambda: folder.clear(stored))
        metrics = MetricsFile(folder.metrics if workers.is_main else None, length)
        self._reporter = Reporter(self._meter, metrics, observer)
        self._now = self._saved = time.monotonic()

    @property
    def epochs_done(self) -> int:
        """Epochs that are trained and validated."""
        return self._position.epoch - 1

    @property
    def best_epoch(self) -> int:
        """The epoch of the best model; 0 before there is one."""
        return 0 if self._best is None else self._best.epoch

    @property
    def keeps_best(self) -> bool:
        """Whether training ends with the best model, and there is one."""
        return self.config.keep == "best" and self._best is not None

    @property
    def has_unjudged_steps(self) -> bool:
        """Whether the model was trained since it was last validated, or never was."""
        return self._position.step > 0 or not self.history

    def tokens_per_second(self) -> float:
        """Return tokens trained on a second of training."""
        return self._position.tokens_per_second

    def start(self) -> None:
        """Tell the observer."""
        if self._reporter.observer is not None:
            self._reporter.observer.on_start(
                RunInfo(
                    epochs=self.config.epochs,
                    epoch=min(self._position.epoch, self.config.epochs),
                    tokens_per_epoch=self._tokens_per_epoch,
                    device=str(self._workers.device),
                    processes=self._workers.world,
                )
            )

    def end(self, stopped: Stopped | None) -> None:
        """Tell the observer."""
        if self._reporter.observer is not None:
            self._reporter.observer.on_end(stopped)

    def train_epoch(self, stop: StopRequest) -> Stopped | None:
        """Train the rest of the current epoch.

        Returns
        -------
        "time" or "interrupted" or None
            What cut the epoch short; None where it is done.

        Raises
        ------
        TerselmError
            If the loss is not finite.
        """
        position = self._position
        windows = self._windows.epoch(position.epoch)
        steps = len(windows)
        if position.step == 0:
            self._state = self.model.initial_state(self._windows.streams)
            if self._distillation is not None:
                self._distillation.start_text()
            self._meter.reset()
        self.model.train()
        self._tick(training=False)
        agreed = self._workers.agree(self._wish(stop), position.step, last=True)
        if agreed in (TIME, INTERRUPT) and position.step < steps:
            return "interrupted" if agreed == INTERRUPT else "time"
        while position.step < steps:
            self._step(*windows[position.step], position.step / steps)
            self._tick(training=True)
            last = position.step == steps
            self._reporter.after_step(position, steps, self.optimizer.rate, self._norm)
            agreed = self._workers.agree(self._wish(stop), position.step, last)
            if agreed == INTERRUPT:
                return "interrupted"
            # A limit that is reached on the last step still lets the epoch be judged.
            if agreed == TIME and not last:
                return "time"
            if agreed == SAVE:
                self.save()
        return None

    def end_epoch(self, perplexity: float | None, complete: bool) -> None:
        """Judge the weights that the model holds now (averaged ones, where so) as an epoch's.

        Parameters
        ----------
        perplexity : float or None
            On validation text.
        complete : bool
            Whether the epoch was trained to its end; if not, only the best model and the
            history take note of it.
        """
        self._tick(training=False)
        position = self._position
        improved = (
            perplexity is not None
            and not math.isnan(perplexity)
            and (self._best is None or perplexity < self._best.perplexity)
        )
        if improved and perplexity is not None:
            weights = {name: value.detach().cpu().clone() for name, value in self._named()}
            forms = {name: op.kept_state() for name, op in self.model.leaves().items()}
            self._best = Best(position.epoch, perplexity, weights, forms)
        record = self._reporter.after_epoch(
            position, self.optimizer.rate, perplexity, improved, complete
        )
        self.history.append(record)
        if complete:
            self.optimizer.end_epoch(position.epoch, improved or perplexity is None)
            self.average.end_epoch(perplexity)
            position.epoch += 1
            position.step = 0

    def put_in_kept_weights(self) -> float | None:
        """Put the weights to keep into the model: the best, or the last ones, averaged.

        Returns
        -------
        float or None
            Their validation perplexity, where it is known.
        """
        if self._best is None or not self.keeps_best:
            self.average.put_in()
            return None if self.has_unjudged_steps else self.history[-1].valid_perplexity
        for name, parameter in self._named():
            parameter.copy_(self._best.weights[name])
        for name, op in self.model.leaves().items():
            if self._best.forms.get(name):
                op.load_training_state(self._best.forms[name])
        return self._best.perplexity

    def save(self, finished: Stopped | None = None) -> None:
        """Write the checkpoint; with several processes, all of them call this together."""
        self._tick(training=False)
        path = self._folder.checkpoint
        if path is None:
            return
        # A checkpoint from which nothing can go on must not take the place of a good one.
        self._reporter.check(self._position, self.optimizer.rate, self._trained)
        ranks = self._workers.gather(self._rank_state())
        self._workers.on_main(lambda: save_checkpoint(path, self._snapshot(ranks, finished)))
        self._tick(training=False)
        self._saved = self._now

    def _step(self, inputs: Tensor, targets: Tensor, done: float) -> None:
        position, config, workers = self._position, self.config, self._workers
        inputs = inputs.to(workers.device, non_blocking=True)
        targets = targets.to(workers.device, non_blocking=True)
        self.optimizer.zero_grad()
        loss, nll, self._state = self._objective(inputs, targets, self._state)
        workers.backward(loss)
        if config.clip is not None:
            self._norm = workers.clip(self._trained, config.clip)
        scale = len(inputs) / config.window if config.random_window else 1.0
        limit = config.time_limit
        used = 0.0 if limit is None else position.seconds / limit
        self.optimizer.step(position.epoch, done, scale, used)
        self.average.update()
        self._meter.add(nll, targets.numel())
        position.step += 1
        position.total_steps += 1
        position.tokens += targets.numel() * workers.world

    def _wish(self, stop: StopRequest) -> int:
        if stop.requested:
            return INTERRUPT
        if self._workers.is_main:
            limit = self.config.time_limit
            if limit is not None and self._position.seconds >= limit:
                return TIME
            if self._now - self._saved >= self.config.checkpoint_every:
                return SAVE
        return NOTHING

    def _tick(self, training: bool) -> None:
        now = time.monotonic()
        self._position.seconds += now - self._now
        if training:
            self._position.training_seconds += now - self._now
        self._now = now

    def _named(self) -> Sequence[tuple[str, nn.Parameter]]:
        return list(self.parameters.items())

    def _snapshot(self, ranks: list[dict[str, Any]], finished: Stopped | None) -> dict[str, Any]:
        """Return what a checkpoint holds; `_load` takes it up."""
        best = self._best
        return {
            "fingerprint": dict(self._fingerprint),
            "finished": finished,
            "position": asdict(self._position),
            "parameters": {name: value.detach() for name, value in self._named()},
            "forms": {name: op.training_state() for name, op in self.model.leaves().items()},
            "optimizer": self.optimizer.state(),
            "average": self.average.state(),
            # Not asdict, which would copy the weights.
            "best": None if best is None else dict(vars(best)),
            "history": [asdict(record) for record in self.history],
            "ranks": ranks,
            "metrics_bytes": self._reporter.metrics.length(),
        }

    def _rank_state(self) -> dict[str, Any]:
        """Return what differs between processes: carried state, random state, own loss."""
        cuda = self._workers.device.type == "cuda"
        taught = None if self._distillation is None else self._distillation.training_state()
        return {
            "state": self._state,
            "taught": taught,
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self._workers.device) if cuda else None,
            "meter": self._meter.state(),
        }

    def _load(self, stored: Mapping[str, Any]) -> tuple[int, Mapping[str, Any] | None]:
        """Take up a checkpoint.

        Returns
        -------
        int
            Bytes of metrics that belong to it.
        mapping or None
            What `Distillation.training_state` returned.
        """
        device = self._workers.device
        try:
            self._position = Position(**stored["position"])
            with torch.no_grad():
                for name, parameter in self._named():
                    parameter.copy_(stored["parameters"][name])
            for name, op in self.model.leaves().items():
                op.load_training_state(stored["forms"][name])
            self.optimizer.load_state(stored["optimizer"])
            self.average.load_state(stored["average"])
            self._best = None if stored["best"] is None else Best(**stored["best"])
            self.history = [EpochRecord(**record) for record in stored["history"]]
            mine = stored["ranks"][self._workers.rank]
            self._state = _moved(mine["state"], device)
            torch.set_rng_state(mine["random"])
            if mine["cuda_random"] is not None and device.type == "cuda":
                torch.cuda.set_rng_state(mine["cuda_random"], device)
            self._meter.load_state(mine["meter"])
            taught = mine["taught"]
            if taught is not None and taught["states"] is not None:
                states = [_moved(state, device) for state in taught["states"]]
                taught = {**taught, "states": states}
            return int(stored["metrics_bytes"]), taught
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise TerselmError(
                f"{self._folder.checkpoint} does not hold this run ({error}); train anew"
            ) from None


def trainable_parameters(model: LanguageModel) -> dict[str, nn.Parameter]:
    """Return the float parameters that require gradients by name, a tied one once."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.is_floating_point()
    }


def hidden_matrices(model: LanguageModel) -> list[nn.Parameter]:
    """Return the trained matrices [rows, columns] that stand between two hidden vectors."""
    return [
        leaf.weight
        for name, leaf in model.leaves().items()
        if isinstance(leaf, Dense) and name.startswith(("cells.", "output_projection"))
        if leaf.weight.requires_grad
    ]


def _moved(state: Sequence[Sequence[Tensor]], device: torch.device) -> list[State]:
    return [tuple(part.to(device) for part in layer) for layer in state]
