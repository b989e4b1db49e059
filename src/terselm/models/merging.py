"""Several models in one: its scores are a weighted sum of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from terselm.cells.base import RecurrentCell
from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.placed_blocks import Place, PlacedBlocks
from terselm.models.config import ModelConfig, make_config
from terselm.models.language_model import LanguageModel
from terselm.models.output import FullSoftmax

SIDES: Mapping[str, tuple[str, str]] = {
    "weight_ih": ("hidden_size", "input_size"),
    "weight_hh": ("hidden_size", "output_size"),
    "weight_hr": ("output_size", "hidden_size"),
    "gates_ih": ("output_size", "input_size"),
    "gates_hh": ("output_size", "output_size"),
}
"""The sizes of a cell that the rows, a band for each gate, and columns of its matrices have."""
BIASES: Mapping[str, str] = {
    "bias": "hidden_size",
    "bias_hn": "hidden_size",
    "gates_bias": "output_size",
}
"""The same for its bias vectors."""


def merge(models: Sequence[LanguageModel], weights: Sequence[float]) -> LanguageModel:
    """Return one model that predicts as several do together.

    Its scores are Σ weight · scores, so that its distribution is the normalized product of
    theirs, each to the power of its weight: log-linear interpolation (Klakow 1998), at equal
    weights that add up to one the geometric mean. The cells become one cell with the units of
    all, whose matrices have those of the models as blocks and are zero elsewhere
    (`linear.placed_blocks`): nothing is stored or multiplied that was not before, and compressed
    models stay so.

    Parameters
    ----------
    models : sequence of LanguageModel
        Two or more, left as they are, of the same vocabulary, kind of cell and number of layers;
        with the full softmax, all tied or none, all with a projection or none.
    weights : sequence of float
        One each, finite and not 0.

    Raises
    ------
    UsageError
        If the models do not go together; the message names what differs.
    """
    if len(models) < 2 or len(weights) != len(models):
        raise UsageError(f"{len(models)} models and {len(weights)} weights; give two or more")
    factors = torch.tensor(list(weights), dtype=torch.float32, device=models[0].device)
    if not torch.isfinite(factors).all() or (factors == 0).any():
        raise UsageError(f"weights are {list(weights)}; give finite numbers other than 0")
    for model in models[1:]:
        model.vocabulary.check_same(models[0].vocabulary, "only models of the same one merge")
    parts = [model.clone() for model in models]
    # On the meta device, since every matrix is replaced.
    with torch.device("meta"):
        merged = LanguageModel(_config([model.config for model in parts]), parts[0].vocabulary)
    projected = parts[0].config.has_output_projection
    tied = parts[0].config.tied
    # Without a projection a tied embedding is all there is to scale, and what reads it undoes that.
    twice = factors if tied and not projected else None
    merged.replace_weight("embedding", _side_by_side([m.embedding for m in parts], twice))
    for layer, cells in enumerate(zip(*(model.layers() for model in parts), strict=True)):
        undone = None if layer or twice is None else 1 / twice
        _merge_cells(merged, f"cells.{layer}", cells, undone)
    outputs = [model.output for model in parts]
    biases = torch.stack([output.bias.detach() for output in outputs])  # [models, vocabulary]
    merged.replace_bias("output.bias", (factors[:, None] * biases).sum(dim=0))
    if projected:
        merged.replace_weight(
            "output_projection",
            _diagonal([m.weights()["output_projection"] for m in parts], factors),
        )
    elif not tied:
        ops = [model.weights()["output"] for model in parts]
        merged.replace_weight("output", _side_by_side(ops, factors))
    merged.provenance = {
        "merged": [
            {"weight": float(weight), **model.provenance}
            for weight, model in zip(weights, parts, strict=True)
        ]
    }
    return merged.eval()


def _config(configs: Sequence[ModelConfig]) -> ModelConfig:
    """Return the configuration of the merged model, after checking that there can be one."""
    first = configs[0]
    seen: dict[str, list[Any]] = {
        "cells": [config.cell for config in configs],
        "numbers of layers": [config.layers for config in configs],
        "tied": [config.tied for config in configs],
        "a projection": [config.projection is not None for config in configs],
        "an output projection": [config.has_output_projection for config in configs],
    }
    for what, values in seen.items():
        if len(set(values)) > 1:
            raise UsageError(f"models differ in {what} ({values}); only such as agree merge")
    if any(config.output != FullSoftmax.kind for config in configs):
        kinds = [config.output for config in configs]
        raise UsageError(f"outputs are {kinds}; only models with the full softmax merge")
    halved = all(config.output_bias == "float16" for config in configs)
    projections = [config.projection for config in configs if config.projection is not None]
    merged = make_config(
        {
            "cell": first.cell,
            "hidden": [sum(sizes) for sizes in zip(*(c.hidden for c in configs), strict=True)],
            "embedding": sum(config.embedding for config in configs),
            "projection": sum(projections) or None,
            "tied": first.tied,
            "output_bias": "float16" if halved else "float32",
        }
    )
    if merged.has_output_projection != first.has_output_projection:
        raise UsageError(
            f"embeddings of {[config.embedding for config in configs]} and outputs of "
            f"{[config.output_size for config in configs]} have the same sum, with which a tied "
            "model has no projection; merge others"
        )
    return merged


def _merge_cells(
    merged: LanguageModel, name: str, cells: Sequence[RecurrentCell], scales: Tensor | None
) -> None:
    """Put blocks of all cells into a cell; `scales` multiply what reads the input."""
    for weight in cells[0].weight_names():
        row, column = SIDES[weight]
        ops = [getattr(cell, weight) for cell in cells]
        bands = ops[0].out_features // getattr(cells[0], row)
        places = _diagonal_places(
            [getattr(cell, row) for cell in cells], [getattr(cell, column) for cell in cells]
        )
        factors = scales if column == "input_size" else None
        merged.replace_weight(f"{name}.{weight}", _placed(ops, places, bands, factors))
    for bias in cells[0].bias_names():
        by_gate = [
            getattr(cell, bias).detach().view(-1, getattr(cell, BIASES[bias])) for cell in cells
        ]
        merged.replace_bias(f"{name}.{bias}", torch.cat(by_gate, dim=1).flatten())


def _diagonal(ops: Sequence[LinearOp], scales: Tensor) -> PlacedBlocks:
    places = _diagonal_places([op.out_features for op in ops], [op.in_features for op in ops])
    return _placed(ops, places, 1, scales)


def _side_by_side(ops: Sequence[LinearOp], scales: Tensor | None) -> PlacedBlocks:
    places = _diagonal_places([0] * len(ops), [op.in_features for op in ops])
    return _placed(ops, places, 1, scales)


def _diagonal_places(heights: Sequence[int], widths: Sequence[int]) -> list[Place]:
    """Return places where each block begins where the one before ends."""
    return [Place(sum(heights[:number]), sum(widths[:number])) for number in range(len(heights))]


def _placed(
    ops: Sequence[LinearOp], places: Sequence[Place], bands: int, scales: Tensor | None
) -> PlacedBlocks:
    rows = max(p.row + op.out_features // bands for op, p in zip(ops, places, strict=True))
    columns = max(p.column + op.in_features for op, p in zip(ops, places, strict=True))
    return PlacedBlocks(list(ops), places, (bands * rows, columns), bands, scales)
