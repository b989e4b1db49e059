"""What a model predicts, computed the slow way: one token, one step, float64."""

from __future__ import annotations

import numpy as np
import torch

from terselm.models.language_model import LanguageModel
from terselm.text.token_cache import TokenizedSplit


def random_ids(model: LanguageModel, count: int, seed: int = 3) -> list[int]:
    generator = np.random.default_rng(seed)
    return generator.integers(len(model.vocabulary), size=count).tolist()


def split_of(ids: list[int], characters: int = 1000, unknown: int = 0) -> TokenizedSplit:
    return TokenizedSplit(ids=np.array(ids), characters=characters, unknown=unknown)


def logits_step_by_step(model: LanguageModel, ids: list[int]) -> np.ndarray:
    """Logits before each token of `ids`, float64 [tokens, vocabulary].

    Every matrix is made dense and float64, every cell goes through `project` and `step`.
    """
    exact = model.clone().double()
    weights = {name: op.dense().double() for name, op in model.weights().items()}
    weights.setdefault("output", weights["embedding"])
    for number, cell in enumerate(exact.layers()):
        for name in cell.weight_names():
            setattr(cell, name, _Matrix(weights[f"cells.{number}.{name}"]))
    states = [
        tuple(torch.zeros(1, size, dtype=torch.float64) for size in cell.state_sizes())
        for cell in exact.layers()
    ]
    rows = []
    with torch.no_grad():
        for token in [model.vocabulary.start_id, *ids[:-1]]:
            x = weights["embedding"][token].unsqueeze(0)
            for number, cell in enumerate(exact.layers()):
                states[number] = cell.step(cell.project(x), states[number])
                x = states[number][0]
            rows.append((x @ weights["output"].T + exact.output.bias)[0].numpy())
    return np.stack(rows)


def nats_step_by_step(model: LanguageModel, ids: list[int]) -> np.ndarray:
    """Nats of each token, float64 [tokens]."""
    logits = logits_step_by_step(model, ids)
    highest = logits.max(axis=1, keepdims=True)
    normalizer = np.log(np.exp(logits - highest).sum(axis=1)) + highest[:, 0]
    return normalizer - logits[np.arange(len(ids)), ids]


class _Matrix(torch.nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T
