"""Taking hidden units out of a model, so that every matrix they touch gets smaller."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from terselm.cells.base import RecurrentCell
from terselm.compress.bias_correction import has_bias, shift_bias
from terselm.compress.statistics import InputStatistics, Statistics
from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel


def readers_of_layer(model: LanguageModel, layer: int) -> list[str]:
    """Return the weights outside the layer whose columns read its output.

    Those of the next layer, or the output layer's; none where a projection stands between.
    """
    if not model.layers()[layer].unit_groups().output_is_unit:
        return []
    if layer + 1 < len(model.cells):
        return [f"cells.{layer + 1}.weight_ih"]
    return model.output.inputs()


def unit_importance(
    model: LanguageModel, layer: int, statistics: Statistics | None = None
) -> Tensor:
    """Return what each hidden unit of a layer is worth, float64 [units].

    Σ_i r_i V[i, k]² over the matrices V whose column k reads unit k, times the mean square of
    the unit's incoming rows: a unit that nobody reads, or that nothing reaches, is worth
    nothing. With statistics each matrix's part is also multiplied by the variance of the
    unit's activation (its mean square where no bias can make up for the mean, see
    `keep_units`), and r_i is the share of word i in the text for the rows of the output layer;
    elsewhere it is 1.

    Parameters
    ----------
    model : LanguageModel
    layer : int
        From 0.
    statistics : Statistics, optional
        See `compress.statistics`.
    """
    cell = model.layers()[layer]
    worth = torch.zeros(cell.hidden_size, dtype=torch.float64, device=model.device)
    for reader in _readers(model, layer):
        name = model.ties().get(reader, reader)
        squares = model.weights()[name].dense().detach().double().square()  # [out, units]
        found = None if statistics is None else statistics.inputs.get(name)
        if statistics is None or found is None:
            worth += squares.sum(dim=0)
            continue
        if name in ("output", "embedding"):
            counts = torch.from_numpy(statistics.token_counts).to(squares) + 1
            squares = squares * (counts / counts.sum()).unsqueeze(1)
        energy = found.covariance.diagonal() if has_bias(name) else found.mean_square
        worth += squares.sum(dim=0) * energy.to(squares)
    return worth * _incoming(cell)


def units_to_keep(importance: Tensor, count: int) -> Tensor:
    """Return the `count` most important units, int64, ascending."""
    order = importance.argsort(descending=True, stable=True)
    return order[:count].sort().values


def keep_units(
    model: LanguageModel,
    kept: Mapping[int, Tensor],
    inputs: Mapping[str, InputStatistics] | None = None,
) -> LanguageModel:
    """Return a model with only the given hidden units; `model` stays as it is.

    With statistics the mean of what the others added to their readers goes into the biases.

    Parameters
    ----------
    model : LanguageModel
        Its weights that lose rows or columns must be dense.
    kept : mapping of int to Tensor
        For each layer that changes the units that stay, int64, ascending.
    inputs : mapping of str to InputStatistics, optional
        Statistics of the leaves.

    Raises
    ------
    UsageError
        If a weight that must change is not dense, or the output layer would have to change
        and is tied to the embedding.
    """
    rows: dict[str, Tensor] = {}
    columns: dict[str, Tensor] = {}
    hidden = list(model.config.hidden)
    for layer, units in kept.items():
        groups = model.layers()[layer].unit_groups()
        hidden[layer] = len(units)
        for name, gates in groups.rows.items():
            starts = torch.arange(gates, device=units.device) * groups.units
            rows[f"cells.{layer}.{name}"] = (starts.unsqueeze(1) + units).reshape(-1)
        for name in [f"cells.{layer}.{column}" for column in groups.columns]:
            columns[name] = units
        for name in readers_of_layer(model, layer):
            if name in model.ties():
                raise UsageError(
                    f"layer {layer} is the last and its output layer is tied to the embedding, "
                    f"so its units cannot go; prune layers {_others(model, layer)}"
                )
            columns[name] = units
    smaller = _of_config(model, model.config.with_hidden(hidden))
    if smaller.config.has_output_projection != model.config.has_output_projection:
        raise UsageError(
            f"the last layer would have {hidden[-1]} units, as many as the tied embedding, which "
            "needs no projection then; keep one more or one less"
        )
    for name, op in model.weights().items():
        if name in rows or name in columns:
            op = _slice(op, name, rows.get(name), columns.get(name))
        smaller.replace_weight(name, op)
    for name, bias in model.biases().items():
        values = bias.detach()
        smaller.replace_bias(name, values[rows[name]] if name in rows else values.clone())
    smaller.output.load_tables(model.output.tables())
    for name, units in columns.items():
        if inputs is not None and name in inputs and has_bias(name):
            # A bias may lose units of its own layer; the shift is for those that stay.
            shift = _lost_mean(model, name, units, inputs[name])
            shift_bias(smaller, name, shift[rows[name]] if name in rows else shift)
    return smaller


def _readers(model: LanguageModel, layer: int) -> list[str]:
    groups = model.layers()[layer].unit_groups()
    return [f"cells.{layer}.{name}" for name in groups.columns] + readers_of_layer(model, layer)


def _lost_mean(
    model: LanguageModel, name: str, kept: Tensor, statistics: InputStatistics
) -> Tensor:
    weight = model.weights()[name].dense().detach().double()
    mean = statistics.mean.to(weight).clone()
    mean[kept] = 0
    return weight @ mean


def _of_config(model: LanguageModel, config: ModelConfig) -> LanguageModel:
    with torch.device("meta"):
        smaller = LanguageModel(config, model.vocabulary)
    smaller.provenance = dict(model.provenance)
    return smaller


def _incoming(cell: RecurrentCell) -> Tensor:
    groups = cell.unit_groups()
    total = torch.zeros(groups.units, dtype=torch.float64, device=cell.bias.device)
    for name, gates in groups.rows.items():
        held = getattr(cell, name)
        values = held.detach().unsqueeze(1) if isinstance(held, nn.Parameter) else held.dense()
        total += values.double().square().mean(dim=1).view(gates, groups.units).sum(dim=0)
    return total


def _slice(op: LinearOp, name: str, rows: Tensor | None, columns: Tensor | None) -> Dense:
    if not isinstance(op, Dense):
        raise UsageError(
            f"units are rows and columns of dense weights, and {name} is {op.kind}; "
            "prune units before the step that stored it so"
        )
    weight = op.weight.detach()
    if rows is not None:
        weight = weight[rows]
    if columns is not None:
        weight = weight[:, columns]
    return Dense(weight, op.stored_type)


def _others(model: LanguageModel, layer: int) -> str:
    return " ".join(str(other) for other in range(len(model.cells)) if other != layer) or "(none)"
