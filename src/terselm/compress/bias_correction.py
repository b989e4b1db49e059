"""Letting biases make up for what a changed matrix does to the mean of its output."""

from __future__ import annotations

import torch
from torch import Tensor

from terselm.models.language_model import LanguageModel

SCORES = ("embedding", "output", "output.head")
"""Weights whose product gets the output layer's bias: of a softmax, or of an adaptive one."""


def has_bias(name: str) -> bool:
    """Return whether a bias is added to the product with the weight `name`.

    Not to that with a projection or with a factor of a weight. The embedding is multiplied
    only where it is tied to the output layer, which has one.
    """
    return name in SCORES or name.endswith((".weight_ih", ".weight_hh"))


def shift_bias(model: LanguageModel, name: str, shift: Tensor) -> None:
    """Add to the bias that goes with a weight, in place.

    Parameters
    ----------
    model : LanguageModel
    name : str
        A weight for which `has_bias` is true.
    shift : Tensor
        float [out]. For a weight W that became V with inputs of mean μ: (W − V) μ.
    """
    shift = shift.to(model.output.bias)
    if name in SCORES:
        _add(model, "output.bias", shift)
        return
    cell_name, _, attribute = name.rpartition(".")
    cell = model.layers()[int(cell_name.split(".")[1])]
    if attribute == "weight_hh" and "bias_hn" in cell.bias_names():
        # The reset gate multiplies the new gate's recurrent product with its own bias.
        inner = cell.hidden_size
        _add(model, f"{cell_name}.bias_hn", shift[-inner:])
        shift = torch.cat([shift[:-inner], torch.zeros_like(shift[-inner:])])
    _add(model, f"{cell_name}.bias", shift)


def _add(model: LanguageModel, name: str, shift: Tensor) -> None:
    model.replace_bias(name, model.biases()[name].detach() + shift)
