"""One run of an experiment: train, compress, measure, write the result."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from terselm import __version__
from terselm.compress.apply import compress
from terselm.compress.base import CALIBRATION_TOKENS, Context
from terselm.compress.recipe import Recipe
from terselm.evaluate.mixture import fit_weights
from terselm.evaluate.native import evaluate_file
from terselm.evaluate.perplexity import validation_perplexity
from terselm.experiments.experiment import Experiment
from terselm.experiments.lessons import Teaching
from terselm.experiments.store import (
    Clock,
    begin_work,
    digests_of,
    end_work,
    label_of,
    model_file,
    publish,
    stored_result,
    work_folder,
    write_result,
)
from terselm.experiments.training import Trainer, make_further_settings, make_settings
from terselm.models.checkpoint import load, save
from terselm.models.language_model import LanguageModel
from terselm.models.merging import merge
from terselm.models.sampling import count_tokens
from terselm.models.splitting import member
from terselm.pipeline.finish import machine
from terselm.pipeline.recovery import make_recovery
from terselm.runtime.timing import measure_quickly
from terselm.text.base import Vocabulary
from terselm.text.corpus import Corpus, open_corpus
from terselm.text.token_cache import tokenize
from terselm.train.progress import ProgressObserver


@dataclass(frozen=True)
class Order:
    """A run to be done.

    Attributes
    ----------
    name : str
        Of the experiment.
    experiment : Experiment
    seed : int
    key : str
        What the run's model depends on; see `experiment.key_of`.
    folder : Path
        Of all runs.
    data : str
    device : str
    threads : int
    starts, teachers : tuple of Path
        Model files of the experiments that this one needs.
    splits : tuple of str
        What the model is measured on.
    """

    name: str
    experiment: Experiment
    seed: int
    key: str
    folder: Path
    data: str
    device: str = "cpu"
    threads: int = 1
    starts: tuple[Path, ...] = ()
    teachers: tuple[Path, ...] = ()
    splits: tuple[str, ...] = ("valid", "test")

    @property
    def label(self) -> str:
        """The name of this run's files."""
        return label_of(self.name, self.seed)


def lock_of(order: Order) -> FileLock:
    """Return what the process holds that is at work on a run; it is free when that is gone."""
    return FileLock(_work_folder(order) / "lock")


def perform(order: Order) -> dict[str, Any]:
    """Do a run, going on from where an earlier one stopped, and write model and result.

    If another process is at work on it in the same folder, its result is waited for.

    Returns
    -------
    dict
        The result, JSON values.

    Raises
    ------
    TerselmError
        If a setting or a step does not fit.
    KeyboardInterrupt
        If training was interrupted; its checkpoint is kept.
    """
    corpus = open_corpus(order.data)
    text = corpus.digest()
    work = _work_folder(order)
    work.mkdir(parents=True, exist_ok=True)
    with lock_of(order):
        result = stored_result(order.folder, order.label, order.key, text)
        if result is None:
            made_from = digests_of([*order.starts, *order.teachers])
            begin_work(work, text, made_from)
            result = _perform(order, corpus, text, made_from, work)
            end_work(work)
        elif unread := [split for split in order.splits if split not in result]:
            # It was a step when it was made, and has a budget now.
            path = model_file(order.folder, order.label)
            result |= {split: _measured_on(path, corpus, split) for split in unread}
            write_result(order.folder, order.label, result)
        return result


def _work_folder(order: Order) -> Path:
    return work_folder(order.folder, order.label, order.key)


def _perform(
    order: Order, corpus: Corpus, text: str, made_from: dict[str, str], work: Path
) -> dict[str, Any]:
    torch.set_num_threads(order.threads)
    clock = Clock(work / "seconds.json")
    with clock:
        model = _started(order, corpus, work)
        if order.experiment.compress:
            model = _compressed(order, corpus, work, model)
        path = work / "model.safetensors"
        save(model, path)
    result = {
        "name": order.name,
        "seed": order.seed,
        "key": order.key,
        "experiment": order.experiment.model_dump(mode="json", exclude_none=True),
        "data": corpus.name,
        "text": text,
        "made_from": made_from,
        "terselm": __version__,
        "commit": _commit(),
        "machine": machine(path, None),
        "device": order.device,
        "threads": order.threads,
        "seconds": round(clock.seconds, 1),
        "parameters": model.parameter_count(),
        **measured(path, corpus, order.splits),
    }
    publish(order.folder, order.label, path, result)
    return result


def measured(path: Path, corpus: Corpus, splits: Sequence[str]) -> dict[str, Any]:
    """Return what the C library says of a model file.

    Returns
    -------
    dict
        `bytes`, each of the splits (see `terselm.evaluate.evaluation.Evaluation`),
        `microseconds_per_token` and `memory` in bytes.
    """
    timing = measure_quickly(path)
    return {
        "bytes": path.stat().st_size,
        **{split: _measured_on(path, corpus, split) for split in splits},
        "microseconds_per_token": timing.token,
        "memory": timing.memory,
    }


def _measured_on(path: Path, corpus: Corpus, split: str) -> dict[str, Any]:
    return evaluate_file(path, corpus, split).as_dict()


def _commit() -> str | None:
    """Return the commit of the checkout that this runs from, marked where files differ from it.

    None where this file belongs to no repository, such as in an environment inside another one's.
    """
    here = Path(__file__)
    if _git(here, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git(here, "describe", "--always", "--dirty", "--abbrev=12") or None


def _git(file: Path, *arguments: str) -> str | None:
    """Return what a git command says in the folder of a file, None if it fails."""
    try:
        run = subprocess.run(
            ["git", *arguments], cwd=file.parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return run.stdout.strip() if run.returncode == 0 else None


def _started(order: Order, corpus: Corpus, work: Path) -> LanguageModel:
    """Return the model before compression: trained here, that of other experiments, or both."""
    start = _taken(order, corpus, work)
    if start is not None and order.experiment.train is None:
        return start
    done = work / "trained.safetensors"
    if done.exists():
        return load(done, order.device)
    teaching = _teaching(order, work)
    teachers = teaching.teachers
    values = {**(order.experiment.train or {}), "seed": order.seed}
    if start is None:
        words = teachers[0].vocabulary if teachers else None
        trainer = Trainer(make_settings(values), corpus, words)
    else:
        trainer = Trainer(make_further_settings(values, start), corpus, start=start)
    result = trainer.train(
        work / "training",
        resume=True,
        device=order.device,
        teacher=teachers or None,
        lessons=teaching.shared,
        more_text=teaching.text(),
        observer=ProgressObserver(order.label),
    )
    if result.stopped == "interrupted":
        raise KeyboardInterrupt
    save(result.model, done)
    return result.model


def _taken(order: Order, corpus: Corpus, work: Path) -> LanguageModel | None:
    """Return the model of another experiment, a member of it, or those of several merged.

    None where there is no other experiment.
    """
    if not order.starts:
        return None
    merged = work / "merged.safetensors"
    if merged.exists():
        return load(merged, order.device)
    models = [load(path, order.device) for path in order.starts]
    if order.experiment.start_member is not None:
        return member(models[0], order.experiment.start_member)
    if len(models) == 1:
        return models[0]
    weights = order.experiment.start_weights
    if weights is None:
        weights = fit_weights(models, tokenize(corpus, "valid", models[0].vocabulary).ids)
    model = merge(models, weights)
    save(model, merged)
    return model


def _compressed(order: Order, corpus: Corpus, work: Path, model: LanguageModel) -> LanguageModel:
    def text(split: str) -> Callable[[Vocabulary], Any]:
        return lambda words: tokenize(corpus, split, words).ids

    teaching = _teaching(order, work)
    teachers, more = teaching.teachers, teaching.text()

    def to_learn(words: Vocabulary) -> Any:
        ids = text("train")(words)
        if more is None:
            return ids
        teachers[0].vocabulary.check_same(
            words, "generated text is in the teachers' words; recover before they change"
        )
        return np.concatenate([ids, more])

    number = itertools.count(1)
    recover = make_recovery(
        to_learn,
        lambda candidate: validation_perplexity(candidate, text("valid")(candidate.vocabulary)),
        order.seed,
        observer=lambda: ProgressObserver(f"{order.label}: recover"),
        folder=lambda: work / f"recovery-{next(number)}",
        lessons=teaching.shared,
        validation_text=text("valid"),
    )
    calibration = text("train")(model.vocabulary)[:CALIBRATION_TOKENS]
    context = Context(
        source=teachers or None,
        recover=recover,
        calibration=calibration,
        count_tokens=lambda words: count_tokens(text("train")(words), len(words)),
    )
    return compress(model, Recipe.from_list(order.experiment.compress), context).model


def _teaching(order: Order, work: Path) -> Teaching:
    experiment, files = order.experiment, order.teachers
    return Teaching(experiment, order.seed, files, order.folder, work, order.device)
