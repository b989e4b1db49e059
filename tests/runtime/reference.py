"""What the C library should compute, by torch: inputs of integer products are rounded as there."""

from __future__ import annotations

import torch
from torch import Tensor

from terselm.linear.base import LinearOp
from terselm.models.language_model import LanguageModel

INTEGER_FORMS = ("quantized", "binary_codes", "sparse_quantized", "block_sparse_quantized")


def rounded_input(x: Tensor) -> Tensor:
    """Eight bits and one scale for each vector [..., in]."""
    scale = x.abs().amax(dim=-1, keepdim=True) / 127
    return torch.where(scale > 0, (x / scale).round() * scale, torch.zeros_like(x))


class Rounding(LinearOp):
    """An integer form whose product rounds its input."""

    kind = "rounding"

    def __init__(self, op: LinearOp) -> None:
        super().__init__(*op.shape)
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        return rounded_input(x) @ self.op.dense().T

    def dense(self) -> Tensor:
        return self.op.dense()

    def rows(self, ids: Tensor) -> Tensor:
        return self.op.rows(ids)


def _rounding(leaf: LinearOp, name: str) -> LinearOp:
    return Rounding(leaf) if leaf.kind in INTEGER_FORMS else leaf


def reference_log_probabilities(model: LanguageModel, tokens: list[int]) -> Tensor:
    """Log-probabilities after each token, float32 [tokens, vocabulary]."""
    model = model.clone().eval()
    for name, op in model.weights().items():
        model.replace_weight(name, op.map_leaves(_rounding, name))
    state = model.initial_state(1)
    rows = []
    with torch.no_grad():
        for token in tokens:
            x = model.embedding.rows(torch.tensor([token]))
            for number, cell in enumerate(model.layers()):
                state[number] = cell.step(cell.project(x), state[number])
                x = state[number][0]
            rows.append(model.output.log_probabilities(x)[0])
    return torch.stack(rows)
