"""How much the loss feels an error in the product of each matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from terselm.compress.streams import parallel_streams
from terselm.models.language_model import LanguageModel

STREAMS = 16
STEPS = 48
"""One number a matrix needs few tokens."""


def output_sensitivities(
    model: LanguageModel, ids: npt.NDArray[np.integer[Any]]
) -> dict[str, float]:
    """Return E[g²] for each matrix, g being the gradient of the nats at an output of it.

    For a model that fits its text this is the diagonal of the Fisher information, so an error
    δ in the outputs costs about ½ E[g²] |δ|² nats. It makes errors of different matrices
    comparable. The output layer is left out: there the errors weigh as much as their words.

    Parameters
    ----------
    model : LanguageModel
        Unchanged.
    ids : ndarray
        Token ids [n]; the first few hundred are used.

    Returns
    -------
    dict of str to float
        By the name of the weight; "embedding" per looked-up vector.
    """
    steps = min(STEPS, len(ids) // STREAMS - 1)
    tokens = parallel_streams(ids, STREAMS, steps + 1).to(model.device)  # [steps + 1, streams]
    sums: dict[str, float] = {}
    hooks = [
        op.register_forward_hook(_recorder(name, sums))
        for name, op in model.weights().items()
        if name.startswith("cells.")
    ]
    training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            looked_up = model.embedding.rows(tokens[:-1]).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(_loss(model, looked_up, tokens[1:]), looked_up)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    sums["embedding"] = float(gradient.double().square().sum())
    widths = {
        name: op.in_features if name == "embedding" else op.out_features
        for name, op in model.weights().items()
    }
    return {name: total / (steps * STREAMS * widths[name]) for name, total in sums.items()}


def _recorder(name: str, sums: dict[str, float]) -> Any:
    def add(gradient: Tensor) -> None:
        sums[name] = sums.get(name, 0.0) + float(gradient.double().square().sum())

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(add)

    return record


def _loss(model: LanguageModel, looked_up: Tensor, targets: Tensor) -> Tensor:
    # The fused kernels hide the products; step by step every one is a call.
    state = model.initial_state(looked_up.shape[1])
    outputs = []
    for x in looked_up:
        for layer, cell in enumerate(model.layers()):
            state[layer] = cell.step(cell.project(x), state[layer])
            x = state[layer][0]
        outputs.append(x)
    return model.output.negative_log_likelihood(torch.stack(outputs), targets).sum()
