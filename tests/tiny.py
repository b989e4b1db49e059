"""One tiny model of every cell, and one op of every stored form."""

from __future__ import annotations

from collections.abc import Callable

import torch

from terselm.cells.base import CELLS
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank
from terselm.linear.quantized import Quantized, code_range
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.build import vocabulary_from_words

WORDS = ["<eos>", "<unk>", *(f"w{number:02d}" for number in range(35))]


def random_quantized(rows: int, columns: int, bits: int, group: int | None) -> Quantized:
    low, high = code_range(bits)
    codes = torch.randint(low, high + 1, (rows, columns), dtype=torch.int8)
    groups = 1 if group is None else -(-columns // group)
    scales = (torch.rand(rows, groups) * 0.1 + 0.01).half().float()
    return Quantized(codes, scales, bits, group)


FORM_BUILDERS: dict[str, Callable[[int, int], LinearOp]] = {
    "dense": Dense.initialize,
    "dense/float16": lambda rows, columns: Dense(torch.randn(rows, columns) / 3, "float16"),
    "low_rank": lambda rows, columns: LowRank(
        Dense.initialize(rows, 3), Dense.initialize(3, columns)
    ),
    "low_rank/quantized": lambda rows, columns: LowRank(
        random_quantized(rows, 3, 8, None), random_quantized(3, columns, 4, 8)
    ),
    "low_rank/low_rank": lambda rows, columns: LowRank(
        LowRank(Dense.initialize(rows, 2), Dense.initialize(2, 3)), Dense.initialize(3, columns)
    ),
    "quantized": lambda rows, columns: random_quantized(rows, columns, 8, None),
    "quantized/8 bits, groups": lambda rows, columns: random_quantized(rows, columns, 8, 16),
    "quantized/4 bits, rows": lambda rows, columns: random_quantized(rows, columns, 4, None),
    "quantized/4 bits, groups": lambda rows, columns: random_quantized(rows, columns, 4, 8),
}
"""Every stored form by `kind/variant`. A new form adds itself here."""

CELL_VARIANTS = [*CELLS, "lstm/projection"]


def make_model(
    cell: str, *, tied: bool = False, layers: int = 2, hidden: int = 20, seed: int = 0
) -> LanguageModel:
    """A small model with random weights; `cell` may be "lstm/projection"."""
    torch.manual_seed(seed)
    kind, _, variant = cell.partition("/")
    projection = 12 if variant else None
    embedding = (projection or hidden) if tied else 10
    config = ModelConfig(
        cell=kind,
        hidden=(hidden,) * layers,
        embedding=embedding,
        projection=projection,
        tied=tied,
    )
    model = LanguageModel(config, vocabulary_from_words(WORDS))
    with torch.no_grad():
        model.output.bias.uniform_(-0.1, 0.1)
        # Weights large enough that the words differ in probability.
        for op in model.weights().values():
            op.weight.mul_(3)
    return model.eval()


def logits_of(model: LanguageModel, seed: int = 1) -> torch.Tensor:
    """Logits over a fixed random text of two streams."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(len(model.vocabulary), (9, 2), generator=generator)
    with torch.no_grad():
        logits, _ = model(tokens, model.initial_state(2))
    return logits
