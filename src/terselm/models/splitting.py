"""One of the models that were merged into one."""

from __future__ import annotations

import torch

from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.placed_blocks import PlacedBlocks
from terselm.models.config import make_config
from terselm.models.language_model import LanguageModel
from terselm.models.merging import BIASES

NOT_MERGED = "the model was not merged from others, or is not in their blocks any more"


def member(model: LanguageModel, number: int) -> LanguageModel:
    """Return one of the models that `models.merging.merge` made one of, with its own scores.

    All of it is as it went in, or as training left it, but the bias of the output layer: the
    file has only their weighted sum, of which each member gets the part that is right where all
    their biases are the same.

    Parameters
    ----------
    model : LanguageModel
        Left as it is.
    number : int
        From 0, in the order in which they were merged.

    Raises
    ------
    UsageError
        If the model was not merged, or of fewer models, or with weights that add up to 0.
    """
    blocks = {name: _blocks(op) for name, op in model.clone().weights().items()}
    count = len(blocks["embedding"])
    if count < 2 or {len(parts) for parts in blocks.values()} != {count}:
        raise UsageError(NOT_MERGED)
    if not 0 <= number < count:
        raise UsageError(f"member {number} is asked for, of {count}, counted from 0")
    own = {name: parts[number] for name, parts in blocks.items()}
    layers = range(model.config.layers)
    config = make_config(
        {
            "cell": model.config.cell,
            "hidden": [_sizes(model, layer, "hidden_size")[number] for layer in layers],
            "embedding": own["embedding"].in_features,
            "projection": model.config.projection and own["cells.0.weight_hh"].in_features,
            "tied": model.config.tied,
            "output_bias": model.config.output_bias,
        }
    )
    # On the meta device, since every matrix is replaced.
    with torch.device("meta"):
        alone = LanguageModel(config, model.vocabulary)
    for name in alone.weights():
        alone.replace_weight(name, own[name])
    for layer, cell in enumerate(model.layers()):
        for name in cell.bias_names():
            size = BIASES[name]
            by_gate = getattr(cell, name).detach().view(-1, getattr(cell, size))  # [gates, size]
            part = by_gate.split(_sizes(model, layer, size), dim=1)[number]
            alone.replace_bias(f"cells.{layer}.{name}", part.flatten())
    alone.replace_bias("output.bias", model.output.bias.detach() / _sum_of_scales(model))
    parts = model.provenance.get("merged")
    alone.provenance = parts[number] if isinstance(parts, list) and len(parts) == count else {}
    return alone.eval()


def _blocks(op: LinearOp) -> list[LinearOp]:
    return list(op.children_by_name().values()) if isinstance(op, PlacedBlocks) else [op]


def _sizes(model: LanguageModel, layer: int, name: str) -> list[int]:
    """Return a size of the cells of all members: hidden_size or output_size."""
    cell = model.layers()[layer]
    if name == "output_size":
        return [block.in_features for block in _blocks(cell.weight_hh)]
    bands = cell.weight_ih.out_features // cell.hidden_size
    return [block.out_features // bands for block in _blocks(cell.weight_ih)]


def _sum_of_scales(model: LanguageModel) -> float:
    weights = model.weights()
    scaled = weights.get("output_projection", weights.get("output", weights["embedding"]))
    if not isinstance(scaled, PlacedBlocks) or scaled.scales is None:
        raise UsageError(NOT_MERGED)
    total = float(scaled.scales.sum())
    if total == 0:
        raise UsageError("the weights of the merged models add up to 0; no bias can be divided")
    return total
