"""One tiny model of every cell, and one op of every stored form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from terselm.cells.base import CELLS
from terselm.compress.base import RecoverySettings
from terselm.compress.tensor_train import balanced_factors
from terselm.linear.base import LinearOp
from terselm.linear.binary_codes import BinaryCodes
from terselm.linear.block_sparse import BlockPattern, BlockSparse, BlockSparseQuantized
from terselm.linear.codebook import Codebook
from terselm.linear.dense import Dense
from terselm.linear.grouped_rows import GroupedRows
from terselm.linear.low_rank import LowRank
from terselm.linear.placed_blocks import Place, PlacedBlocks
from terselm.linear.positions import ElementPattern, Pattern
from terselm.linear.product_codes import ProductCodes
from terselm.linear.quantized import Levels, Quantized, code_range
from terselm.linear.row_blocks import RowBlocks
from terselm.linear.sparse import Sparse, SparseQuantized
from terselm.linear.tensor_train import TensorTrain
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.build import vocabulary_from_words

WORDS = ["<eos>", "<unk>", *(f"w{number:02d}" for number in range(35))]


def random_quantized(
    rows: int,
    columns: int,
    bits: int,
    group: int | Literal["matrix"] | None,
    levels: Levels = "mid_tread",
    asymmetric: bool = False,
) -> Quantized:
    low, high = code_range(bits)
    codes = torch.randint(low, high + 1, (rows, columns), dtype=torch.int8)
    per_row = 1 if group is None else -(-columns // group) if isinstance(group, int) else 0
    shape = (rows, per_row) if per_row else (1, 1)
    scales = (torch.rand(shape) * 0.1 + 0.01).half().float()
    zeros = torch.randint(low, high + 1, shape, dtype=torch.int8) if asymmetric else None
    return Quantized(codes, scales, bits, group, levels, zeros)


def random_mask(rows: int, columns: int, density: float) -> torch.Tensor:
    mask = torch.rand(rows, columns) < density
    mask[rows // 2, columns // 2] = True  # never empty
    return mask


def random_sparse(
    rows: int, columns: int, density: float = 0.4, stored_type: str = "float32"
) -> Sparse:
    mask = random_mask(rows, columns, density)
    return Sparse.from_mask(torch.randn(rows, columns), mask, stored_type)


def random_block_pattern(rows: int, columns: int, block: tuple[int, int]) -> BlockPattern:
    grid = -(-rows // block[0]), -(-columns // block[1])
    return BlockPattern((rows, columns), block, random_mask(*grid, 0.4))


def random_coded_values(pattern: Pattern, bits: int) -> dict[str, torch.Tensor | int]:
    low, high = code_range(bits)
    codes = torch.randint(low, high + 1, (len(pattern.positions),), dtype=torch.int8)
    codes[0] = high
    scales = (torch.rand(pattern.shape[0]) * 0.1 + 0.01).half().float()
    return {"codes": codes, "scales": scales, "bits": bits}


def random_sparse_quantized(rows: int, columns: int, density: float, bits: int) -> SparseQuantized:
    pattern = ElementPattern(random_mask(rows, columns, density))
    return SparseQuantized(pattern, **random_coded_values(pattern, bits))


def random_block_sparse(
    rows: int, columns: int, block: tuple[int, int], stored_type: str = "float32"
) -> BlockSparse:
    pattern = random_block_pattern(rows, columns, block)
    return BlockSparse.of(torch.randn(rows, columns), pattern, stored_type)


def random_block_sparse_quantized(
    rows: int, columns: int, block: tuple[int, int], bits: int
) -> BlockSparseQuantized:
    pattern = random_block_pattern(rows, columns, block)
    return BlockSparseQuantized(pattern, **random_coded_values(pattern, bits))


def random_codebook(rows: int, columns: int, bits: int, scope: str) -> Codebook:
    codes = torch.randint(2**bits, (rows, columns), dtype=torch.uint8)
    values = torch.randn(rows if scope == "row" else 1, 2**bits)
    return Codebook(codes, values.sort(dim=1).values.half().float(), scope)


def random_binary_codes(rows: int, columns: int, bits: int, group: int | None) -> BinaryCodes:
    codes = torch.randint(2**bits, (rows, columns), dtype=torch.uint8)
    groups = 1 if group is None else -(-columns // group)
    scales = (torch.rand(rows, groups, bits) * 0.1 + 0.1) * 2.0 ** -torch.arange(bits)
    return BinaryCodes(codes, scales.half().float(), group)


def random_product_codes(
    rows: int, columns: int, size: int, count: int, *, shared: bool = False, norms: bool = False
) -> ProductCodes:
    blocks = -(-columns // size)
    codes = torch.randint(count, (rows, blocks), dtype=torch.uint8)
    centroids = torch.randn(1 if shared else blocks, count, size).half().float()
    lengths = (torch.rand(rows) + 0.5).half().float() if norms else None
    return ProductCodes(codes, centroids, columns, lengths)


def random_low_rank(rows: int, columns: int, rank: int | None = None) -> LowRank:
    rank = low(rows, columns) if rank is None else rank
    return LowRank(Dense.initialize(rows, rank), Dense.initialize(rank, columns))


def low(rows: int, columns: int, rank: int = 3) -> int:
    """A low rank that a matrix of this shape can have."""
    return min(rank, max(rows, columns))


def random_chain(rows: int, columns: int) -> LowRank:
    """A product of three."""
    rank = low(rows, columns)
    return LowRank(random_low_rank(rows, rank, low(rows, rank, 2)), Dense.initialize(rank, columns))


def halves(rows: int) -> list[int]:
    """Heights of two blocks, of one where there is one row only."""
    return [rows] if rows == 1 else [rows - rows // 3 - 1, rows // 3 + 1]


def random_groups(rows: int) -> torch.Tensor:
    """The group of each row, with as many rows in each as `halves` says."""
    return torch.cat([torch.full((height,), number) for number, height in enumerate(halves(rows))])[
        torch.randperm(rows)
    ]


def random_diagonal(rows: int, columns: int) -> LinearOp:
    """Two blocks from corner to corner, the second one in four bits, both times a number."""
    if min(rows, columns) == 1:
        block = random_low_rank(rows, columns)
        return PlacedBlocks([block], [Place(0, 0)], block.shape, 1, torch.tensor([-0.5]))
    (high, low_), (wide, narrow) = halves(rows), halves(columns)
    blocks = [Dense.initialize(high, wide), random_quantized(low_, narrow, 4, None)]
    places = [Place(0, 0), Place(high, wide)]
    return PlacedBlocks(blocks, places, (rows, columns), 1, torch.tensor([0.75, -1.5]))


def random_banded(rows: int, columns: int) -> LinearOp:
    """Blocks that lie in every band, as gates do, and one that lies on them all."""
    bands = next(count for count in (4, 3, 2, 1) if rows % count == 0)
    high, wide = halves(rows // bands), halves(columns)
    places = [Place(0, 0), *([Place(high[0], wide[0])] if len(high) == len(wide) == 2 else [])]
    if len(places) == 1:
        high, wide = [rows // bands], [columns]
    blocks: list[LinearOp] = [
        random_low_rank(bands * height, width) for height, width in zip(high, wide, strict=False)
    ]
    blocks.append(random_sparse(rows, columns, 0.1, "float16"))
    return PlacedBlocks(blocks, [*places, Place(0, 0)], (rows, columns), bands)


def random_tensor_train(rows: int, columns: int, cores: int = 3) -> TensorTrain:
    shapes = [balanced_factors(side, cores) for side in (rows, columns)]
    return TensorTrain.initialize(*shapes, [3, 4, 2][: cores - 1], (rows, columns))


def random_quantized_train(rows: int, columns: int) -> TensorTrain:
    cores = random_tensor_train(rows, columns, 2)
    return cores.with_children(
        {
            name: random_quantized(*core.shape, 4, None)
            for name, core in cores.children_by_name().items()
        }
    )


FORM_BUILDERS: dict[str, Callable[[int, int], LinearOp]] = {
    "dense": Dense.initialize,
    "dense/float16": lambda rows, columns: Dense(torch.randn(rows, columns) / 3, "float16"),
    "low_rank": random_low_rank,
    "low_rank/quantized": lambda rows, columns: LowRank(
        random_quantized(rows, low(rows, columns), 8, None),
        random_quantized(low(rows, columns), columns, 4, 8),
    ),
    "low_rank/low_rank": random_chain,
    "row_blocks": lambda rows, columns: RowBlocks(
        [random_low_rank(height, columns) for height in halves(rows)]
    ),
    "row_blocks/mixed": lambda rows, columns: RowBlocks(
        [
            Dense.initialize(height, columns) if number else random_low_rank(height, columns)
            for number, height in enumerate(halves(rows))
        ]
    ),
    "grouped_rows": lambda rows, columns: GroupedRows(
        [random_low_rank(height, columns) for height in halves(rows)], random_groups(rows)
    ),
    "grouped_rows/quantized": lambda rows, columns: GroupedRows(
        [random_quantized(height, columns, 8, None) for height in halves(rows)],
        random_groups(rows),
    ),
    "placed_blocks": random_diagonal,
    "placed_blocks/bands and a sum": random_banded,
    "tensor_train": random_tensor_train,
    "tensor_train/two cores": lambda rows, columns: random_tensor_train(rows, columns, 2),
    "tensor_train/four cores": lambda rows, columns: random_tensor_train(rows, columns, 4),
    "tensor_train/quantized": random_quantized_train,
    "quantized": lambda rows, columns: random_quantized(rows, columns, 8, None),
    "quantized/8 bits, groups": lambda rows, columns: random_quantized(rows, columns, 8, 16),
    "quantized/4 bits, rows": lambda rows, columns: random_quantized(rows, columns, 4, None),
    "quantized/4 bits, groups": lambda rows, columns: random_quantized(rows, columns, 4, 8),
    "quantized/4 bits, matrix": lambda rows, columns: random_quantized(rows, columns, 4, "matrix"),
    "quantized/3 bits, groups": lambda rows, columns: random_quantized(rows, columns, 3, 8),
    "quantized/3 bits, mid-rise": lambda rows, columns: random_quantized(
        rows, columns, 3, None, "mid_rise"
    ),
    "quantized/2 bits, groups": lambda rows, columns: random_quantized(rows, columns, 2, 16),
    "quantized/2 bits, mid-rise, matrix": lambda rows, columns: random_quantized(
        rows, columns, 2, "matrix", "mid_rise"
    ),
    "quantized/8 bits, matrix, zero point": lambda rows, columns: random_quantized(
        rows, columns, 8, "matrix", asymmetric=True
    ),
    "quantized/4 bits, groups, zero points": lambda rows, columns: random_quantized(
        rows, columns, 4, 8, asymmetric=True
    ),
    "sparse": random_sparse,
    "sparse/gaps of 4 bits": lambda rows, columns: random_sparse(rows, columns, 0.1, "float16"),
    "sparse/gaps of 8 bits": lambda rows, columns: random_sparse(rows, columns, 0.005),
    "sparse/full": lambda rows, columns: random_sparse(rows, columns, 1.1),
    "sparse_quantized": lambda rows, columns: random_sparse_quantized(rows, columns, 0.3, 8),
    "sparse_quantized/4 bits": lambda rows, columns: random_sparse_quantized(rows, columns, 0.1, 4),
    "low_rank/sparse": lambda rows, columns: LowRank(
        random_sparse(rows, low(rows, columns)),
        random_sparse_quantized(low(rows, columns), columns, 0.5, 8),
    ),
    "block_sparse": lambda rows, columns: random_block_sparse(rows, columns, (16, 4)),
    "block_sparse/wide": lambda rows, columns: random_block_sparse(
        rows, columns, (4, 16), "float16"
    ),
    "block_sparse/columns": lambda rows, columns: random_block_sparse(rows, columns, (8, 1)),
    "block_sparse_quantized": lambda rows, columns: random_block_sparse_quantized(
        rows, columns, (16, 4), 8
    ),
    "block_sparse_quantized/4 bits": lambda rows, columns: random_block_sparse_quantized(
        rows, columns, (4, 2), 4
    ),
    "codebook": lambda rows, columns: random_codebook(rows, columns, 3, "row"),
    "codebook/matrix": lambda rows, columns: random_codebook(rows, columns, 4, "matrix"),
    "codebook/1 bit": lambda rows, columns: random_codebook(rows, columns, 1, "matrix"),
    "codebook/8 bits": lambda rows, columns: random_codebook(rows, columns, 8, "matrix"),
    "binary_codes": lambda rows, columns: random_binary_codes(rows, columns, 3, None),
    "binary_codes/groups": lambda rows, columns: random_binary_codes(rows, columns, 2, 16),
    "binary_codes/1 bit": lambda rows, columns: random_binary_codes(rows, columns, 1, None),
    "product_codes": lambda rows, columns: random_product_codes(rows, columns, 4, 256),
    "product_codes/16 centroids": lambda rows, columns: random_product_codes(rows, columns, 2, 16),
    "product_codes/shared": lambda rows, columns: random_product_codes(
        rows, columns, 8, 256, shared=True, norms=True
    ),
    "low_rank/codes": lambda rows, columns: LowRank(
        random_product_codes(rows, low(rows, columns), 4, 16),
        random_binary_codes(low(rows, columns), columns, 2, None),
    ),
}
"""Every stored form by `kind/variant`. A new form adds itself here."""

CELL_VARIANTS = [*CELLS, "lstm/projection"]


def make_model(
    cell: str, *, tied: bool = False, layers: int = 2, hidden: int = 20, seed: int = 0
) -> LanguageModel:
    """A small model with random weights; `cell` may be "lstm/projection"."""
    torch.manual_seed(seed)
    kind, _, variant = cell.partition("/")
    projection = 12 if variant or CELLS.get(kind).needs_projection else None
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


OUTPUT_VARIANTS: dict[str, dict[str, Any]] = {
    "projected": {"tied": True, "embedding": 10},
    "half-bias": {"embedding": 10, "output_bias": "float16"},
    "adaptive": {"embedding": 10, "output": "adaptive", "cutoffs": (9, 20), "division": 2},
}
"""Settings of output layers other than the full softmax with a matrix of its own."""


def make_output_variant(name: str, *, cell: str = "lstm", seed: int = 0) -> LanguageModel:
    """A small model with random weights and one of `OUTPUT_VARIANTS`."""
    torch.manual_seed(seed)
    config = ModelConfig(cell=cell, hidden=(20, 20), **OUTPUT_VARIANTS[name])
    counts = torch.randint(100, (len(WORDS),)).numpy()
    model = LanguageModel(config, vocabulary_from_words(WORDS), counts)
    with torch.no_grad():
        model.output.bias.uniform_(-0.1, 0.1)
        for op in model.weights().values():
            op.weight.mul_(3)
    model.settle()
    return model.eval()


def logits_of(model: LanguageModel, seed: int = 1) -> torch.Tensor:
    """Logits over a fixed random text of two streams."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(len(model.vocabulary), (9, 2), generator=generator)
    with torch.no_grad():
        logits, _ = model(tokens, model.initial_state(2))
    return logits


QUICK_RECOVERY = RecoverySettings(
    epochs=2,
    time_limit=None,
    optimizer="adamw",
    learning_rate=0.005,
    dropout=0.0,
    batch=4,
    window=8,
    distillation=0.0,
    temperature=1.0,
)
"""A short training on the tiny corpus."""


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the description in a model file and fit the checksum, as an attacker would."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    document = json.loads(header["__metadata__"]["terselm"])
    change(document)
    header["__metadata__"] = {"terselm.sha256": "0" * 64, "terselm": json.dumps(document)}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    whole = len(text).to_bytes(8, "little") + text + data[8 + length :]
    digest = hashlib.sha256(whole).hexdigest().encode()
    path.write_bytes(whole.replace(b"0" * 64, digest, 1))
