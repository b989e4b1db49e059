"""Recipes: the list of steps that turns a model into a smaller one."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from terselm.compress.base import METHODS, Method, WeightMethod
from terselm.errors import TerselmError, UsageError
from terselm.models.config import first_problem
from terselm.models.language_model import LanguageModel
from terselm.registry import suggest

PRESETS = "terselm.recipes"


@dataclass(frozen=True)
class Step:
    """One step of a recipe.

    Attributes
    ----------
    method : Method
        What is done.
    weights : tuple of str
        Which weights, as shell patterns over their names ("cells.*"); empty for methods that
        work on the whole model.
    """

    method: Method
    weights: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the step as it would stand in a recipe file, defaults left out."""
        step: dict[str, Any] = {"method": self.method.name}
        if self.weights:
            step["weights"] = " ".join(self.weights)
        options = asdict(self.method)  # type: ignore[call-overload]
        defaults = {field.name: field.default for field in fields(self.method)}  # type: ignore[arg-type]
        changed = {key: value for key, value in options.items() if value != defaults[key]}
        # JSON and YAML know no tuples.
        return step | {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in changed.items()
        }

    def describe(self) -> str:
        """Return the step in one line, for tables: `quantize bits=4 group=32`."""
        step = self.as_dict()
        name = step.pop("method")
        where = step.pop("weights", "*")
        words = [name, *(f"{key}={value}" for key, value in step.items())]
        if where != "*":
            words.append(f"on {where}")
        return " ".join(words)

    def selects(self, name: str) -> bool:
        """Return whether one of the patterns matches the weight `name`."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.weights)


@dataclass(frozen=True)
class Recipe:
    """An ordered list of steps.

    The order of arXiv 1902.02380 (its figure 2) is the one to begin with: recurrent part, then
    embedding and output, then pruning and quantization, with recovery where it helps.
    """

    steps: tuple[Step, ...]

    @classmethod
    def from_list(cls, items: Sequence[Mapping[str, Any]]) -> Recipe:
        """Build a recipe from plain values, as a recipe file has them.

        Raises
        ------
        UsageError
            If a step has an unknown method, an unknown option or an impossible value. The
            message names the step and the nearest right word.
        """
        if isinstance(items, str | Mapping) or not isinstance(items, Sequence) or not items:
            raise UsageError("a recipe is a list of at least one step: - {method: ..., ...}")
        return cls(tuple(_read_step(number, item) for number, item in enumerate(items, 1)))

    def as_list(self) -> list[dict[str, Any]]:
        """Return plain values; `from_list` of them gives an equal recipe."""
        return [step.as_dict() for step in self.steps]


def load_recipe(where: str | Path) -> Recipe:
    """Read a recipe file, or take a preset, or a single method with its defaults, by its name.

    Raises
    ------
    UsageError
        If there is none, or the recipe is wrong; the message names file and step.
    """
    path = Path(where)
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TerselmError(f"cannot read recipe {path}: {error}") from None
    elif str(where) in presets():
        text = resources.files(PRESETS).joinpath(f"{where}.yaml").read_text(encoding="utf-8")
    elif str(where) in METHODS:
        text = f"- {{method: {where}}}"
    else:
        hint = suggest(str(where), [*presets(), *METHODS])
        raise UsageError(f"there is no recipe file, preset or method {str(where)!r}; {hint}")
    try:
        items = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(
            f"recipe {where}: not valid YAML: {' '.join(str(error).split())}"
        ) from None
    try:
        return Recipe.from_list(items)
    except UsageError as error:
        raise UsageError(f"recipe {where}: {error}") from None


def presets() -> list[str]:
    """Return the names of the recipes that come with terselm."""
    names = (entry.name for entry in resources.files(PRESETS).iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def selected_weights(step: Step, model: LanguageModel) -> list[str]:
    """Return the names of the weights or factors of `model` that a step works on.

    A pattern may name a weight ("output"), or a factor of one ("output.left"). A name that is
    tied to another weight stands for that one.

    Raises
    ------
    UsageError
        If a pattern matches nothing; the message names the nearest name.
    """
    return matching_weights(step.weights, model)


def matching_weights(
    patterns: Iterable[str], model: LanguageModel, option: str = "weights"
) -> list[str]:
    """Return the names of the weights or factors that match; see `selected_weights`.

    `option` is what the patterns are called in the recipe.
    """
    weights = model.weights()
    ties = model.ties()
    known = [*weights, *ties]
    for name, op in weights.items():
        known.extend(leaf for leaf in op.leaves(name) if leaf != name)
    found: dict[str, None] = {}
    for pattern in patterns:
        hits = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
        if not hits:
            hint = suggest(pattern, known)
            raise UsageError(f"{option}: {pattern!r} matches no weight of this model; {hint}")
        found |= {ties.get(name, name): None for name in hits}
    # A factor goes along with its weight; it must not be done twice.
    return [name for name in found if not is_inside_another(name, found)]


def is_inside_another(name: str, names: Iterable[str]) -> bool:
    """Return whether `name` is that of a factor of one of `names`."""
    return any(name.startswith(f"{other}.") for other in names)


def _read_step(number: int, item: Any) -> Step:
    if not isinstance(item, Mapping) or not isinstance(item.get("method"), str):
        raise UsageError(f"step {number}: expected {{method: NAME, ...}}, found {item!r}")
    options = {str(key): value for key, value in item.items()}
    name = options.pop("method")
    try:
        cls = METHODS.get(name)
        patterns: tuple[str, ...] = ()
        if issubclass(cls, WeightMethod):
            patterns = _read_patterns(options.pop("weights", "*"))
        elif "weights" in options:
            raise UsageError("works on the whole model and takes no 'weights'")
        return Step(make_method(name, options), patterns)
    except UsageError as error:
        raise UsageError(f"step {number} ({name}): {error}") from None


def _read_patterns(value: Any) -> tuple[str, ...]:
    patterns = value.split() if isinstance(value, str) else value
    if not isinstance(patterns, list) or not patterns:
        raise UsageError(f"weights is {value!r}, expected names or patterns like 'cells.* output'")
    return tuple(str(pattern) for pattern in patterns)


def make_method(name: str, options: Mapping[str, Any]) -> Method:
    """Return the method `name` with checked options.

    Raises
    ------
    UsageError
        If the name or an option is unknown or a value is impossible.
    """
    cls = METHODS.get(name)
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise UsageError(f"unknown option {option!r}; {suggest(option, known)}")
    try:
        return TypeAdapter(cls).validate_python(dict(options))
    except ValidationError as error:
        raise UsageError(first_problem(error)) from None
