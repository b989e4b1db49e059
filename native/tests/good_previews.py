"""Good files whose output layers are large enough that a preview of them saves bytes."""

from __future__ import annotations

import torch
from model_file import File, Manifest
from tests.tiny import random_quantized

from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.build import vocabulary_from_words

WORDS, HIDDEN, RANK = 441, 160, 120


def add_previews(manifest: Manifest) -> None:
    torch.manual_seed(7)
    outputs = {
        "dense": Dense(torch.randn(WORDS, HIDDEN) / 3, "float32"),
        "8-bits": _quantized(WORDS, HIDDEN, 8),
        "tied": None,
        "low-rank": LowRank(_quantized(WORDS, RANK, 8), _quantized(RANK, HIDDEN, 8)),
    }
    for name, output in outputs.items():
        manifest.add(f"good-preview-{name}", File(_model_with(output)).bytes())


def _model_with(output: LinearOp | None) -> LanguageModel:
    """A model with this output matrix, or one tied to the embedding; the rest is kept small."""
    words = ["<eos>", "<unk>", *(f"w{number:03d}" for number in range(WORDS - 2))]
    config = ModelConfig(
        cell="gru",
        hidden=(HIDDEN,),
        embedding=HIDDEN if output is None else 8,
        tied=output is None,
    )
    model = LanguageModel(config, vocabulary_from_words(words))
    with torch.no_grad():
        model.output.bias.uniform_(-1, 1)
    for name, op in model.weights().items():
        if name == "output" and output is not None:
            model.replace_weight(name, output)
        elif name == "embedding":
            model.replace_weight(name, Dense(torch.randn(op.shape) / 3, "float16"))
        else:
            model.replace_weight(name, _quantized(*op.shape, 4))
    return model.eval()


def _quantized(rows: int, columns: int, bits: int) -> LinearOp:
    """Codes with scales such that no cell is saturated and words differ in probability."""
    op = random_quantized(rows, columns, bits, None)
    with torch.no_grad():
        op.scales.copy_((op.scales * 4 * 0.5**bits).half().float())
    return op
