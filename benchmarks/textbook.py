"""What the plain version of a method, as a textbook has it, makes of a model.

* Codes: rounding to the nearest of 2^bits levels, as many above zero as below it, with the scale of
  the row or group that has the least squared error; from 8 bits on levels around zero, the last one
  at the largest magnitude.
* Low rank: the largest singular values, the same share of the parameters in every matrix.
* Pruning: the smallest magnitudes of each matrix are zeroed.

The result is a dense model: for perplexity, not for bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from terselm.compress.recipe import Recipe, selected_weights
from terselm.linear.dense import Dense
from terselm.models.language_model import LanguageModel

RANGES = 60
"""How many scales are tried for a row or group, down to a third of its largest magnitude."""


def rounded(weight: Tensor, step: dict[str, Any]) -> Tensor:
    """Return `weight` [out, in] rounded to codes with a scale a row or group."""
    group = step.get("group", "row")
    width = weight.shape[1] if group == "row" else group
    return torch.cat([in_codes(part, step["bits"]) for part in weight.split(width, dim=1)], dim=1)


def in_codes(part: Tensor, bits: int) -> Tensor:
    """Return `part` [rows, width] as codes with one scale a row."""
    magnitude = part.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
    levels = 2 ** (bits - 1)
    if bits >= 8:
        scale = magnitude / (levels - 1)
        return (part / scale).round() * scale
    best, least = part, torch.full_like(magnitude, torch.inf)
    for share in torch.linspace(1, 1 / 3, RANGES):
        scale = magnitude * share / levels
        tried = ((part / scale).floor().clamp(-levels, levels - 1) + 0.5) * scale
        error = (tried - part).square().sum(dim=1, keepdim=True)
        best = torch.where(error < least, tried, best)
        least = torch.minimum(error, least)
    return best


def truncated(weight: Tensor, step: dict[str, Any]) -> Tensor:
    """Return `weight` [out, in] at the rank that takes a share of its parameters."""
    rows, columns = weight.shape
    rank = max(1, round(step["share"] * rows * columns / (rows + columns)))
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def pruned(weight: Tensor, step: dict[str, Any]) -> Tensor:
    """Return `weight` [out, in] with its smallest magnitudes zeroed."""
    zeros = int(step["sparsity"] * weight.numel())
    if not zeros:
        return weight
    bar = weight.abs().flatten().kthvalue(zeros).values
    return weight * (weight.abs() > bar)


PLAIN: dict[str, Callable[[Tensor, dict[str, Any]], Tensor]] = {
    "quantize": rounded,
    "gptq": rounded,
    "activation_aware": rounded,
    "low_rank": truncated,
    "rank_budget": truncated,
    "magnitude": pruned,
    "second_order": pruned,
    "wanda": pruned,
}
"""By the method that it is the plain version of; methods that are not here have none."""

OF_PLAIN = ("bits", "group", "rank", "share", "sparsity")
"""The options that mean the same in the plain version."""


def plain_step(recipe: Recipe) -> dict[str, Any] | None:
    """Return what the plain version of a recipe is asked for, None where there is no such version.

    Equal answers mean equal models, so one measurement does for several recipes.
    """
    if len(recipe.steps) != 1 or recipe.steps[0].method.name not in PLAIN:
        return None
    step = recipe.steps[0]
    options = asdict(step.method)  # type: ignore[call-overload]
    said = {name: options[name] for name in OF_PLAIN if options.get(name) is not None}
    share = said.pop("rank", said.pop("share", None))
    if share is not None:
        said["share"] = share
    weights = " ".join(step.weights)
    return {"plain": PLAIN[step.method.name].__name__, "weights": weights, **said}


def plain_version(model: LanguageModel, recipe: Recipe) -> LanguageModel:
    """Return a dense copy of the model that had the plain version of a recipe."""
    said = plain_step(recipe)
    if said is None:
        raise ValueError(f"{recipe} has no plain version")
    change = PLAIN[recipe.steps[0].method.name]
    copy = model.clone()
    with torch.no_grad():
        for name in selected_weights(recipe.steps[0], model):
            copy.replace_weight(name, Dense(change(copy.weights()[name].dense(), said)))
    return copy
