"""Which matrices read a vector, and what an error in it counts there."""

from __future__ import annotations

import torch
from torch import Tensor

from terselm.linear.base import LinearOp
from terselm.linear.low_rank import LowRank
from terselm.linear.placed_blocks import PlacedBlocks
from terselm.linear.row_blocks import RowBlocks
from terselm.models.language_model import LanguageModel


def input_readers(model: LanguageModel, layer: int) -> list[str]:
    """Return the names of a layer's matrices that read its input, in the order they are stacked."""
    cell = model.layers()[layer]
    return [f"cells.{layer}.{name}" for name in ("gates_ih", "weight_ih") if hasattr(cell, name)]


def stacked_input_matrix(model: LanguageModel, layer: int) -> Tensor:
    """Return all that a layer multiplies its input with, float32 [rows of all readers, in]."""
    weights = model.weights()
    return torch.cat([weights[name].dense() for name in input_readers(model, layer)])


def looked_up_moment(name: str, model: LanguageModel) -> Tensor | None:
    """Return what the errors of a looked-up leaf's columns count together.

    A looked-up embedding E is multiplied with nothing, but the first layer's matrices U, stacked,
    multiply its rows: an error D becomes D Uᵀ there, whose square is counted by Uᵀ U.

    Parameters
    ----------
    name : str
        The leaf.
    model : LanguageModel

    Returns
    -------
    Tensor or None
        float64 [in, in]; None where the leaf is neither the embedding nor one of its rows'
        blocks nor a factor of those.
    """
    if name.partition(".")[0] != "embedding":
        return None
    readers = stacked_input_matrix(model, 0).detach().double()
    return _by_leaf(model.embedding, "embedding", readers.T @ readers).get(name)


def _by_leaf(op: LinearOp, name: str, metric: Tensor) -> dict[str, Tensor]:
    """Return what column errors of each leaf count, where those of the whole count `metric`."""
    if isinstance(op, LowRank):
        right = op.right.dense().detach().double()  # [rank, in]
        return _by_leaf(op.left, f"{name}.left", right @ metric @ right.T) | _by_leaf(
            op.right, f"{name}.right", metric
        )
    found: dict[str, Tensor] = {}
    if isinstance(op, RowBlocks):  # each has all columns
        for key, block in op.children_by_name().items():
            found |= _by_leaf(block, f"{name}.{key}", metric)
        return found
    if isinstance(op, PlacedBlocks):  # each has some of them
        for (key, block), (_, place, factor) in zip(
            op.children_by_name().items(), op.placed(), strict=True
        ):
            own = slice(place.column, place.column + block.in_features)
            found |= _by_leaf(block, f"{name}.{key}", metric[own, own] * factor**2)
        return found
    return {} if op.children_by_name() else {name: metric}
