"""A training that takes a second, with everything on that has a state.

Run as a program it trains in the folder that it is given, for a test to kill it:
``python -m tests.train.tiny_run FOLDER SETTINGS``.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terselm.compress.apply import compress
from terselm.compress.recipe import Recipe
from terselm.linear.coded import with_latents
from terselm.models.language_model import LanguageModel
from terselm.train.config import make_training_config
from terselm.train.loop import FitResult, fit
from tests.tiny import WORDS, make_model

TOKENS = 1500
SETTINGS: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 1.0,
    "epochs": 3,
    "batch": 4,
    "window": 12,
    "seed": 3,
    "precision": "float32",
}
EVERYTHING: dict[str, Any] = {
    "optimizer": "adam_then_sgd",
    "learning_rate": 0.003,
    "sgd_learning_rate": 2.0,
    "switch_after": 1,
    "momentum": 0.5,
    "averaging": "nt_asgd",
    "average_patience": 1,
    "random_window": True,
    "dropout": 0.2,
    "input_dropout": 0.1,
    "embedding_dropout": 0.1,
    "weight_drop": 0.2,
    "locked_dropout": True,
    "activation_regularization": 2.0,
    "temporal_activation_regularization": 1.0,
    "epochs": 4,
}


def latent_model() -> LanguageModel:
    """A model whose codes, of three kinds, are trained."""
    items = [
        {"method": "quantize", "bits": 3, "weights": "output"},
        {"method": "binary_codes", "bits": 2, "weights": "cells.0.*"},
        {"method": "kmeans", "bits": 2, "weights": "cells.1.*"},
    ]
    model = compress(make_model("lstm"), Recipe.from_list(items)).model
    for name, op in model.weights().items():
        model.replace_weight(name, with_latents(op, name))
    return model


def text(tokens: int = TOKENS, seed: int = 0) -> np.ndarray:
    """Every word but one in four follows from the one before."""
    draw = np.random.default_rng(seed)
    ids = np.zeros(tokens, dtype=np.int32)
    for place in range(1, tokens):
        known = draw.random() < 0.75
        ids[place] = (ids[place - 1] * 5 + 7) % len(WORDS) if known else draw.integers(len(WORDS))
    return ids


def perplexity(model: LanguageModel) -> float:
    """Perplexity on other text of the same sort."""
    assert not model.training
    ids = torch.from_numpy(text(400, seed=9).astype(np.int64))
    with torch.no_grad():
        nats, _ = model.negative_log_likelihood(
            ids[:-1, None], ids[1:, None], model.initial_state(1)
        )
    return math.exp(nats.mean())


def perplexities(values: list[float]) -> Callable[[LanguageModel], float]:
    """A validation that returns these, one a call, and 99 after them."""
    left = iter(values)
    return lambda model: next(left, 99.0)


def train(
    model: LanguageModel | None = None, settings: dict[str, Any] | None = None, **more: Any
) -> FitResult:
    """Train a tiny model (on the CPU) with `SETTINGS` and others."""
    config = make_training_config({**SETTINGS, **(settings or {})})
    more = {"validate": perplexity, "device": "cpu", **more}
    return fit(model or make_model("lstm"), text(), config, **more)


def weights(model: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def same_weights(one: LanguageModel, other: LanguageModel) -> bool:
    """Whether the two are equal bit for bit."""
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


def main() -> None:
    folder, settings = sys.argv[1:]
    values = json.loads(settings)
    teacher = make_model("gru", seed=7) if values.pop("teach", False) else None
    train(None, values, folder=Path(folder), resume=True, teacher=teacher)


if __name__ == "__main__":
    main()
