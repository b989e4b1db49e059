"""Applying a recipe to a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from terselm.compress.base import Context, Method, ModelMethod, WeightMethod
from terselm.compress.bias_correction import has_bias, shift_bias
from terselm.compress.changes import renumbered, unchanged_weights
from terselm.compress.recipe import Recipe, Step, selected_weights
from terselm.compress.statistics import collect
from terselm.errors import TerselmError, UsageError
from terselm.linear.base import LinearOp
from terselm.models.checkpoint import lay_out
from terselm.models.language_model import LanguageModel


@dataclass(frozen=True)
class StepRecord:
    """What one step did.

    Attributes
    ----------
    number : int
        Place in the recipe, from 1.
    description : str
        The step in one line.
    weights : tuple of str
        Names of the weights it changed; empty for steps on the whole model.
    bytes : int
        Bytes of the file after the step.
    """

    number: int
    description: str
    weights: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class Compressed:
    """The result of a recipe.

    Attributes
    ----------
    model : LanguageModel
        The new model, in evaluation mode.
    steps : tuple of StepRecord
        One for each step of the recipe.
    untouched : tuple of str
        Weights that are in form, shape and values as they were before the first step.
    same_form : tuple of str
        Weights in the same form and shape as before, but with other values, as training
        leaves them.
    """

    model: LanguageModel
    steps: tuple[StepRecord, ...]
    untouched: tuple[str, ...]
    same_form: tuple[str, ...] = ()


def compress(
    model: LanguageModel,
    recipe: Recipe,
    context: Context | None = None,
    on_step: Callable[[StepRecord, LanguageModel], None] | None = None,
) -> Compressed:
    """Apply a recipe to a copy of the model.

    Parameters
    ----------
    model : LanguageModel
        Unchanged, also when a step fails.
    recipe : Recipe
        The steps, in order.
    context : Context, optional
        Training for `recover` steps, calibration text; see there.
    on_step : callable, optional
        Called after each step with its record and the model as it is then.

    Returns
    -------
    Compressed
        Its model's provenance is that of the source without its perplexity, which is no longer
        true; "recipe" holds the steps that made the source, if any, and then these.

    Raises
    ------
    UsageError
        If a step cannot be applied to this model; the message names step and weight.
    TerselmError
        If a weight holds NaN or infinite values, or a step's linear algebra fails on one; the
        message names it.
    """
    check_finite(model)
    context = context or Context()
    context = replace(context, source=context.source or model)
    current = model.clone().eval()
    # The recipe is part of the file, and so of the bytes that every step is measured by.
    all_steps = [*_steps_before(model), *recipe.as_list()]
    current.provenance = {**model.provenance, "recipe": all_steps}
    current.provenance.pop("perplexity", None)
    records: list[StepRecord] = []
    dense = _dense_leaves(current)
    for number, step in enumerate(recipe.steps, start=1):
        words = current.vocabulary
        try:
            current, names = _apply_step(step, current, context)
            size = lay_out(current).size
        except TerselmError as error:
            raise type(error)(f"step {number} ({step.method.name}): {error}") from None
        except torch.linalg.LinAlgError as error:
            raise TerselmError(f"step {number} ({step.method.name}): {_failed(error)}") from error
        if context.calibration is not None and current.vocabulary is not words:
            ids = renumbered(context.calibration, words, current.vocabulary)
            context = replace(context, calibration=ids)
        context = replace(context, statistics=None)  # they were those of the model before
        record = StepRecord(number, step.describe(), tuple(names), size)
        records.append(record)
        before, dense = dense, _dense_leaves(current)
        replaced = {name: op.dense() for name, op in before.items() if dense.get(name) is not op}
        context = replace(context, rounded={**context.rounded, **replaced})
        if on_step is not None:
            on_step(record, current)
    current.provenance = {**current.provenance, "recipe": all_steps}
    untouched, same_form = unchanged_weights(model, current)
    return Compressed(current.eval(), tuple(records), untouched, same_form)


def check_finite(model: LanguageModel) -> None:
    """Refuse a model with NaN or infinite values.

    Raises
    ------
    TerselmError
        The message names the first weight or bias that has one.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise TerselmError(f"{name} holds NaN or infinite values; the model is not usable")


def _steps_before(model: LanguageModel) -> list[Any]:
    """Return the steps that the model was made by, as its provenance has them."""
    steps = model.provenance.get("recipe")
    return steps if isinstance(steps, list) else []


def _failed(error: Exception) -> str:
    said = str(error).partition("\n")[0]
    return f"the linear algebra failed ({said}); leave the weight out, or damp more"


def _dense_leaves(model: LanguageModel) -> dict[str, LinearOp]:
    return {name: leaf for name, leaf in model.leaves().items() if leaf.kind == "dense"}


def _apply_step(
    step: Step, model: LanguageModel, context: Context
) -> tuple[LanguageModel, list[str]]:
    method: Method = step.method
    if isinstance(method, ModelMethod):
        return method.apply(model, context).eval(), []
    if not isinstance(method, WeightMethod):
        raise TypeError(f"{type(method).__name__} is neither a WeightMethod nor a ModelMethod")
    names = selected_weights(step, model)
    weights = model.weights()
    context = replace(context, model=model)
    if method.needs_statistics():
        if context.calibration is None:
            raise UsageError("needs calibration text; give --data")
        found = context.statistics or collect(model, context.calibration)
        context = replace(context, statistics=found)
    else:
        # A recipe's result must not depend on whether its caller had statistics at hand.
        context = replace(context, statistics=None)
    leaves = {
        leaf_name: leaf
        for whole, op in weights.items()
        for leaf_name, leaf in op.leaves(whole).items()
        if (whole in names or leaf_name in names) and leaf.kind in method.takes
    }
    with torch.no_grad():
        context = replace(context, prepared=method.prepare(leaves, context))
        for name in names:
            whole = _weight_of(name, model)
            op = weights[whole]
            try:
                new = _applied(method, op, name, whole, context)
            except torch.linalg.LinAlgError as error:
                raise TerselmError(f"{name}: {_failed(error)}") from error
            if method.corrects_bias() and whole == name:
                _correct_bias(model, name, op, new, context)
            weights[whole] = new
            model.replace_weight(whole, new)
    return model, names


def _applied(
    method: WeightMethod, op: LinearOp, name: str, whole: str, context: Context
) -> LinearOp:
    """Return the weight `whole` with all of it changed, or only its factor `name`."""
    if whole == name:
        return method.apply(op, name, context)
    return op.map_leaves(
        lambda leaf, leaf_name: (
            method.apply(leaf, leaf_name, context) if leaf_name == name else leaf
        ),
        whole,
    )


def _correct_bias(
    model: LanguageModel, name: str, op: LinearOp, new: LinearOp, context: Context
) -> None:
    if context.statistics is None or name not in context.statistics.inputs or not has_bias(name):
        return
    mean = context.statistics.inputs[name].mean
    difference = op.dense().double() - new.dense().double()
    shift_bias(model, name, difference @ mean.to(difference))


def _weight_of(name: str, model: LanguageModel) -> str:
    """Return the weight that `name` is, or is a factor of."""
    weights = model.weights()
    while name not in weights:
        name = name.rpartition(".")[0]
    return name
