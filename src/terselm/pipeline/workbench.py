"""Where candidates are made and measured."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.recipe import Recipe
from terselm.compress.statistics import Statistics, collect
from terselm.errors import TerselmError
from terselm.evaluate.evaluation import bounded_perplexity, interval, unstatable
from terselm.evaluate.native import nats_of
from terselm.evaluate.perplexity import perplexity
from terselm.files import atomic_write
from terselm.models.checkpoint import load, save
from terselm.models.language_model import LanguageModel
from terselm.pipeline.device import DeviceProfile
from terselm.pipeline.families import RANKS
from terselm.pipeline.measurement import Measurement
from terselm.pipeline.recovery import make_recovery
from terselm.runtime.timing import QuickTiming, measure_quickly
from terselm.text.corpus import open_corpus
from terselm.text.token_cache import TokenizedSplit, tokenize

CALIBRATION_TOKENS = 16_384
"""From the start of the training text."""
SHORT_TOKENS = 16_384
"""From the start of the validation text, for what is tried quickly."""
TIMING, TIMING_SHARE = 2.0, 2.0
"""Seconds that a file is timed at most, and that as a multiple of the time to read its text."""
RECOVERY = "recover"


@dataclass(frozen=True)
class Setting:
    """What all candidates of a search have in common.

    Attributes
    ----------
    model : Path
        The source model's file.
    data : str
        A corpus, as `terselm.text.corpus.open_corpus` takes it.
    folder : Path
        Of the search.
    seed : int
    kernels : str or None
        Of the C library.
    profile : DeviceProfile or None
        Where times are those of another device.
    """

    model: Path
    data: str
    folder: Path
    seed: int = 0
    kernels: str | None = None
    profile: DeviceProfile | None = None


@dataclass(frozen=True)
class Texts:
    """The text of a search in the tokens of the source model."""

    train: TokenizedSplit
    valid: TokenizedSplit


def trained_file(folder: Path, seed: int, steps: Sequence[Mapping[str, Any]]) -> Path:
    """Return where the model lies that these steps, the last of which trains, made."""
    text = json.dumps([seed, list(steps)], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:20]
    return folder / "trained" / f"{name}.safetensors"


class Workbench:
    """Makes and measures candidates.

    Parameters
    ----------
    setting : Setting
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @cached_property
    def source(self) -> LanguageModel:
        """The model that candidates are made from."""
        return load(self.setting.model)

    @cached_property
    def texts(self) -> Texts:
        """Training and validation text."""
        corpus = open_corpus(self.setting.data)
        words = self.source.vocabulary
        return Texts(tokenize(corpus, "train", words), tokenize(corpus, "valid", words))

    @cached_property
    def calibration(self) -> npt.NDArray[np.integer[Any]]:
        """The beginning of the training text."""
        return np.asarray(self.texts.train.ids[:CALIBRATION_TOKENS])

    @cached_property
    def statistics(self) -> Statistics:
        """What the source model's matrices are multiplied with on the calibration text."""
        return collect(self.source, self.calibration)

    def make(self, recipe: Sequence[Mapping[str, Any]], path: Path) -> None:
        """Write the model that a recipe makes of the source.

        What training made is kept in the folder of the search, so that recipes that begin alike
        train once.

        Parameters
        ----------
        recipe : sequence of mapping
            As a recipe file has it.
        path : Path
            Where the model file goes.

        Raises
        ------
        UsageError
            If the recipe does not fit the model.
        """
        model, done = self._longest_prefix(recipe)
        ends = training_ends(recipe, done)
        for end in dict.fromkeys([*ends, len(recipe)]):
            if end > done:
                model = self._apply(model, recipe[done:end], first=done == 0)
                done = end
                if end in ends:
                    self._keep(model, recipe[:end])
        save(model, path)

    def measure(self, path: Path, *, whole_text: bool) -> Measurement:
        """Measure a model file on validation text and by the clock.

        Parameters
        ----------
        path : Path
        whole_text : bool
            Whether all of the text is read; otherwise the first `SHORT_TOKENS`, and the
            perplexity is the source's on all of the text times the ratio on those.

        Raises
        ------
        TerselmError
            If the model gives NaN, or probability zero to what is in the text.
        """
        ids = self.texts.valid.ids
        tokens = len(ids) if whole_text else min(len(ids), SHORT_TOKENS)
        nats = nats_of(path, ids[:tokens], kernels=self.setting.kernels)
        return self._measured(path, nats)

    def measure_source(self) -> Measurement:
        """Measure the source model on all of the validation text."""
        return self._measured(self.setting.model, self.source_nats)

    @cached_property
    def source_nats(self) -> npt.NDArray[np.float64]:
        """What every token of the validation text costs the source, in nats; kept in a file."""
        path = self.setting.folder / "source-nats.npy"
        if path.exists():
            found = np.load(path, allow_pickle=False)
            if found.shape == self.texts.valid.ids.shape:
                return np.asarray(found, dtype=np.float64)
        nats = nats_of(self.setting.model, self.texts.valid.ids, kernels=self.setting.kernels)
        with atomic_write(path) as file:
            np.save(file, nats)
        return nats

    def _measured(self, path: Path, nats: npt.NDArray[np.float64]) -> Measurement:
        whole = len(self.texts.valid)
        if len(nats) < whole:
            nats = nats + (self.source_nats.mean() - self.source_nats[: len(nats)].mean())
        mean = float(nats.mean())
        if not math.isfinite(mean):
            raise TerselmError(f"{path}: {unstatable(mean)}")
        with FileLock(self.setting.folder / "timing.lock"):
            timing = self._timing(path, len(nats))
        measured = Measurement(
            bytes=path.stat().st_size,
            perplexity=bounded_perplexity(mean),
            ci95=interval(nats),
            tokens=len(nats),
            whole_text=len(nats) == whole,
            microseconds=timing.token,
            step_microseconds=timing.step,
            memory=timing.memory,
        )
        if self.setting.profile is None:
            return measured
        return self.setting.profile.applied_to(measured, load(path))

    def _timing(self, path: Path, tokens: int) -> QuickTiming:
        """Time a file, the longer the longer its text takes, but for seconds at most."""
        first = measure_quickly(path, kernels=self.setting.kernels)
        seconds = min(TIMING, TIMING_SHARE * first.token * 1e-6 * tokens)
        second = measure_quickly(path, kernels=self.setting.kernels, seconds=seconds)
        return min(first, second, key=lambda each: each.token)

    def training_seconds(self, recipe: Sequence[Mapping[str, Any]], share: float) -> float:
        """Return the seconds that training on a share of the text takes after a recipe.

        With the source as the teacher, which takes longest.

        Parameters
        ----------
        recipe : sequence of mapping
            Steps that do not train, the last of them as the first to be trained after.
        share : float
            Of the training text, below 1; all of it is really read.
        """
        model = self._apply(self.source, recipe, first=True) if recipe else self.source.clone()
        step = {"method": "recover", "epochs": share, "distill": True}
        recover = make_recovery(
            lambda words: self.texts.train.ids, lambda model: 0.0, self.setting.seed
        )
        context = Context(recover=recover, source=self.source)
        started = time.perf_counter()
        compress(model, Recipe.from_list([step]), context)
        return time.perf_counter() - started

    def _apply(
        self, model: LanguageModel, steps: Sequence[Mapping[str, Any]], *, first: bool
    ) -> LanguageModel:
        recipe = Recipe.from_list(steps)
        context = Context(
            source=self.source,
            calibration=self.calibration,
            recover=make_recovery(
                lambda words: self.texts.train.ids, self._quick_perplexity, self.setting.seed
            ),
        )
        if first:
            context = replace(context, statistics=self.statistics)
        return compress(model, recipe, context).model

    def _quick_perplexity(self, model: LanguageModel) -> float:
        return perplexity(model, self.texts.valid.ids, limit=SHORT_TOKENS)

    def _longest_prefix(self, recipe: Sequence[Mapping[str, Any]]) -> tuple[LanguageModel, int]:
        for end in reversed(training_ends(recipe, 0)):
            path = self._kept(recipe[:end])
            if path.exists():
                return load(path), end
        return self.source, 0

    def _keep(self, model: LanguageModel, steps: Sequence[Mapping[str, Any]]) -> None:
        path = self._kept(steps)
        path.parent.mkdir(exist_ok=True)
        save(model, path)

    def _kept(self, steps: Sequence[Mapping[str, Any]]) -> Path:
        return trained_file(self.setting.folder, self.setting.seed, steps)


def training_ends(recipe: Sequence[Mapping[str, Any]], start: int) -> list[int]:
    """Return the numbers of steps after which a training step has just been done.

    Only as long as no codes were made: those cannot be trained on from their file as they can
    within one recipe.
    """
    ends = []
    for number, step in enumerate(recipe):
        if step["method"] not in (*RANKS, RECOVERY):
            break
        if step["method"] == RECOVERY and number >= start:
            ends.append(number + 1)
    return ends
