"""The settings of `terselm train`, from a file and from flags, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from terselm.cli.text import read_small_file
from terselm.errors import UsageError
from terselm.experiments.experiment import Experiment
from terselm.experiments.training import (
    MODEL_SETTINGS,
    TEXT_SETTINGS,
    Settings,
    make_further_settings,
    make_settings,
)
from terselm.models.language_model import LanguageModel
from terselm.registry import suggest
from terselm.train.config import TrainingConfig

KNOWN = (*MODEL_SETTINGS, *TEXT_SETTINGS, *TrainingConfig.model_fields)
FLAGS = {"output": "--output-layer"}
"""Where the flag is not called as the setting."""
ELSEWHERE = ("start", "teacher", "generated")
"""How fields begin that say what else than text a training goes on from."""


def read_settings(
    config: Path | None, flags: Mapping[str, Any], start: LanguageModel | None = None
) -> Settings:
    """Return the checked settings of a file, or of the `train` of an experiment file, and of flags.

    Parameters
    ----------
    config : Path or None
        A YAML file.
    flags : mapping
        Settings that win over the file's, by name.
    start : LanguageModel or None
        The model to train further, which has its own sizes and words.

    Raises
    ------
    UsageError
        If the file cannot be read, a setting is unknown or a value is impossible; the message
        names the flag, or the file and the setting.
    """
    values = {} if config is None else _read(config)
    for name in values:
        if name not in KNOWN:
            raise UsageError(f"--config {config}: unknown setting {name!r}; {suggest(name, KNOWN)}")
    values |= flags
    try:
        return make_settings(values) if start is None else make_further_settings(values, start)
    except UsageError as error:
        raise UsageError(_with_place(str(error), config, flags)) from None


def _read(config: Path) -> dict[str, Any]:
    text = read_small_file(config, "--config", "a YAML file of settings")
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UsageError(
            f"--config {config}: not valid YAML: {' '.join(str(error).split())}"
        ) from None
    if isinstance(values, dict) and isinstance(values.get("train"), dict):
        _check_beside(values, config)
        values = values["train"]
    if not isinstance(values, dict):
        raise UsageError(f"--config {config}: expected settings, one `name: value` a line")
    return {str(name): value for name, value in values.items()}


def _check_beside(values: Mapping[Any, Any], config: Path) -> None:
    """Check that the `train` of an experiment file is all that its training depends on."""
    for name in map(str, values):
        if name.startswith(ELSEWHERE):
            raise UsageError(
                f"--config {config}: {name} is for `terselm reproduce`, which takes whole "
                "experiments; give a file without it, or the settings of train alone"
            )
        if name not in Experiment.model_fields:
            known = (*Experiment.model_fields, *KNOWN)
            raise UsageError(
                f"--config {config}: unknown field {name!r} beside train; {suggest(name, known)}"
            )


def _with_place(problem: str, config: Path | None, flags: Mapping[str, Any]) -> str:
    """Return what is wrong after the flag, or the file, that said so."""
    first, second, *_ = [*problem.split(maxsplit=2), "", ""]
    unknown = first == "unknown"
    where = second if unknown else first.removesuffix(":")
    name = where.partition(".")[0]
    if name in flags:
        flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
        return f"{flag}: {problem}" if unknown else flag + problem[len(where) :]
    if config is not None and (name in KNOWN or not flags):
        return f"--config {config}: {problem}"
    return problem
