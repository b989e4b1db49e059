"""Small files that ask for much: hours of work or gigabytes, from a few numbers."""

from __future__ import annotations

import torch
from model_file import File, Manifest
from tests.tiny import random_quantized

from terselm.linear.base import LinearOp
from terselm.linear.block_sparse import BlockPattern, BlockSparse
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank
from terselm.linear.row_blocks import RowBlocks
from terselm.linear.tensor_train import TensorTrain
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.byte_pair import BytePairVocabulary
from terselm.text.word import WordVocabulary

MODEL = 8
SQUARE = "cells.0.weight_hh"


def file_with(square: LinearOp) -> bytes:
    return model_with(square).bytes()


def model_with(square: LinearOp, embedding: LinearOp | None = None) -> File:
    """A model whose recurrent matrix, which gives the hidden size, is this one."""
    hidden = square.in_features
    columns = 1 if embedding is None else embedding.in_features
    config = ModelConfig(cell="rnn_tanh", hidden=(hidden,), embedding=columns)
    with torch.device("meta"):
        model = LanguageModel(config, WordVocabulary(["<eos>", "<unk>", "a", "b"]))
    for name, op in model.weights().items():
        model.replace_weight(name, square if name == SQUARE else Dense.initialize(*op.shape))
    if columns > 1:
        model.replace_weight("cells.0.weight_ih", _last_block(hidden, columns, (1, 64)))
    if embedding is not None:
        model.replace_weight("embedding", embedding)
    for name, bias in model.biases().items():
        model.replace_bias(name, torch.zeros(bias.shape))
    return File(model)


def nested_trains(depth: int, side: int) -> LinearOp:
    """A train whose middle core, which four vectors go through, is such a train again."""
    if depth == 0:
        return Dense.initialize(side, side)
    cores = [Dense.initialize(1, 4), nested_trains(depth - 1, side), Dense.initialize(4, 1)]
    return TensorTrain(cores, [1, side // 2, 2], [2, side // 2, 1], (side, side))


def nested_stacks(depth: int, side: int) -> LinearOp:
    """A product of factors whose right one is a product again: cheap, if read part by part."""
    right = Dense.initialize(side, side) if depth == 0 else nested_stacks(depth - 1, side)
    return LowRank(Dense.initialize(side, side), right)


def counted_train(rank: int) -> LinearOp:
    """Cores that make [4, 1] together, of which nearly all blocks are zero: few bits a rank."""
    cores = [_last_block(1, rank, (1, 64)), _last_block(4 * rank, 1, (1, 1))]
    return TensorTrain(cores, [1, 4], [1, 1], (4, 1))


def wide_train(rank: int, columns: int) -> LinearOp:
    """Cores of few numbers, of which the second has `columns` columns in each of `rank` rows."""
    thin = LowRank(_last_block(rank, 1, (64, 1)), _last_block(1, columns, (1, 64)))
    return TensorTrain([Dense.initialize(4, rank), thin], [4, 1], [1, columns], (4, columns))


def _last_block(rows: int, columns: int, block: tuple[int, int]) -> LinearOp:
    mask = torch.zeros(-(-rows // block[0]), -(-columns // block[1]), dtype=torch.bool)
    mask[-1, -1] = True
    pattern = BlockPattern((rows, columns), block, mask)
    return BlockSparse.of(torch.ones(rows, columns), pattern, "float32")


def colliding_merges(count: int) -> list[tuple[int, int]]:
    """Pairs of bytes that all belong into the first places of the library's hash table."""
    size = 1 << (2 * (count + 257) - 1).bit_length()
    pairs = ((left, right) for left in range(1, 257) for right in range(1, 257))
    return [pair for pair in pairs if _hash(*pair) % size < count // 4][:count]


def _hash(left: int, right: int) -> int:
    value = 0
    for number in (left, right):
        value = (value ^ number) * 0x9E3779B1 & 0xFFFFFFFF
        value ^= value >> 15
    value = (value ^ value >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    value = (value ^ value >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ value >> 16


def add_work(manifest: Manifest) -> None:
    torch.manual_seed(6)

    def add(name: str, square: LinearOp, words: str) -> None:
        manifest.add(f"bad-work-{name}", file_with(square), MODEL, f"{SQUARE}: {words}")

    tall = LowRank(Dense.initialize(4, 4), Dense.initialize(4, 4))
    tall.left, tall.right = Dense.initialize(4, 5), Dense.initialize(5, 4)  # unchecked
    add("rank", tall, "rank is 5, more than shape")
    # Every pair of a row and a column is a vector that goes through the middle core.
    side = 1 << 13
    pairs = TensorTrain.initialize([1, 1, side], [side, 1, 1], [1, 1], (side, side))
    add("train", pairs, "ranks and shapes make 67108864 numbers between cores")
    manifest.add(
        "bad-work-nested-trains",
        file_with(nested_trains(14, 8)),
        MODEL,
        "ranks and shapes need",
    )
    # Each block is looked for in the whole description.
    long = model_with(RowBlocks([Dense.initialize(1, 256) for _ in range(256)]))
    long.spec(SQUARE)["note"] = "-" * (2 << 20)
    words = f"{SQUARE}: the descriptions are too long"
    manifest.add("bad-work-descriptions", long.bytes(), MODEL, words)
    # For each row of a core the places before it are counted, from the start.
    counted = model_with(Dense.initialize(1, 1), counted_train(1 << 18))
    manifest.add("bad-work-counted", counted.bytes(), MODEL, "embedding: a row needs")
    # A look-up holds a row of the core for each rank.
    wide = model_with(Dense.initialize(1, 1), wide_train(64, 1 << 20))
    words = "embedding: ranks and shapes make 67108864 numbers between cores"
    manifest.add("bad-work-wide-core", wide.bytes(), MODEL, words)
    config = ModelConfig(cell="rnn_tanh", hidden=(1,), embedding=1)
    model = LanguageModel(config, BytePairVocabulary(colliding_merges(3000)))
    manifest.add("bad-work-merges", File(model).bytes(), MODEL, "made up to collide")
    # Large enough that several threads share a single product.
    manifest.add("good-work-wide", file_with(random_quantized(1024, 1024, 4, None)))
    manifest.add("good-work-nested", file_with(nested_stacks(14, 4)))
