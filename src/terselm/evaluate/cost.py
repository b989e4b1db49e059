"""Where the bytes of a model's file are, and what one step computes and reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from terselm.linear.base import Cost, LinearOp, tensor_bytes
from terselm.linear.low_rank import LowRank
from terselm.linear.packing import ROW_MULTIPLE, round_up
from terselm.linear.placed_blocks import PlacedBlocks
from terselm.linear.quantized import Quantized
from terselm.linear.row_blocks import RowBlocks
from terselm.linear.tensor_train import TensorTrain
from terselm.models.checkpoint import FILLER, lay_out
from terselm.models.language_model import LanguageModel


@dataclass(frozen=True)
class Part:
    """A part of the file.

    Attributes
    ----------
    name : str
        As `LanguageModel.weights()` or `biases()` has it, or "vocabulary", "header", "fillers".
    kind : str
        How it is stored, in words: "low_rank(left: quantized 8-bit, right: dense)".
    shape : tuple of int
        Empty for what is no matrix or vector.
    bytes : int
        Bytes in the file.
    parameters : int
        Numbers that the model has in it.
    macs : int
        Multiply-accumulate operations of one step (one token, batch 1).
    bytes_read : int
        Bytes of it that one step reads.
    share : float
        Bytes as a fraction of the file.
    leaves : tuple of Part
        The factors of a form that is made of others, innermost ones only; included in this part.
        A core of a tensor train has the MACs of all its uses in one product.
    tied : tuple of str
        Other names under which the same matrix is used.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    bytes: int
    parameters: int
    macs: int
    bytes_read: int
    share: float
    leaves: tuple[Part, ...] = ()
    tied: tuple[str, ...] = ()

    @property
    def times_dense(self) -> float:
        """MACs of a step over those of a product with the dense matrix; 0 for no matrix."""
        return self.macs / math.prod(self.shape) if len(self.shape) == 2 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the part as JSON values; `leaves` and `tied` where there are any."""
        values: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "bytes": self.bytes,
            "parameters": self.parameters,
            "macs": self.macs,
            "bytes_read": self.bytes_read,
            "share": self.share,
        }
        if self.leaves:
            values["leaves"] = [leaf.as_dict() for leaf in self.leaves]
        if self.tied:
            values["tied"] = list(self.tied)
        return values


@dataclass(frozen=True)
class Inspection:
    """A model's file in parts, whose bytes add up to it.

    Attributes
    ----------
    bytes : int
        Bytes of the file.
    weights : tuple of Part
        The matrices in the order of the computation, a tied one once.
    others : tuple of Part
        Biases, the vocabulary, the header, fillers.
    cell : str
        Kind of the recurrent cells.
    hidden : tuple of int
        Hidden units of each layer.
    embedding : int
        Size of the word vectors.
    projection : int or None
        Size of the recurrent projection.
    tied : bool
        Whether the output layer uses the embedding.
    vocabulary_size : int
    vocabulary_kind : str
        "words", "characters" or "bpe".
    provenance : dict
        What the file says about where it comes from.
    """

    bytes: int
    weights: tuple[Part, ...]
    others: tuple[Part, ...]
    cell: str
    hidden: tuple[int, ...]
    embedding: int
    projection: int | None
    tied: bool
    vocabulary_size: int
    vocabulary_kind: str
    provenance: dict[str, Any]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every part of the file, in its order."""
        return self.weights + self.others

    @property
    def parameters(self) -> int:
        """Numbers that the model has: weights, a tied one once, and biases."""
        return sum(part.parameters for part in self.parts)

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of one step."""
        return sum(part.macs for part in self.parts)

    @property
    def bytes_read(self) -> int:
        """Bytes of weights and biases that one step reads."""
        return sum(part.bytes_read for part in self.parts)

    @property
    def more_than_dense(self) -> tuple[Part, ...]:
        """The weights whose stored form takes more MACs a step than the dense matrix would."""
        return tuple(part for part in self.weights if part.times_dense > 1)

    def as_dict(self) -> dict[str, Any]:
        """Return the inspection as JSON values."""
        return {
            "bytes": self.bytes,
            "parameters": self.parameters,
            "macs": self.macs,
            "more_macs_than_dense": {part.name: part.times_dense for part in self.more_than_dense},
            "bytes_read": self.bytes_read,
            "cell": self.cell,
            "layers": len(self.hidden),
            "hidden": list(self.hidden),
            "embedding": self.embedding,
            "projection": self.projection,
            "tied": self.tied,
            "vocabulary_size": self.vocabulary_size,
            "vocabulary_kind": self.vocabulary_kind,
            "weights": [part.as_dict() for part in self.weights],
            "others": [part.as_dict() for part in self.others],
            "provenance": self.provenance,
        }


def inspect(model: LanguageModel) -> Inspection:
    """Take a model's file apart.

    Parameters
    ----------
    model : LanguageModel
        Not written anywhere; the bytes are those that `models.checkpoint.save` would write.

    Raises
    ------
    TerselmError
        If a tensor holds NaN or infinite values; the message names it.
    """
    layout = lay_out(model)
    config = model.config
    return Inspection(
        bytes=layout.size,
        weights=tuple(_weights(model, layout.size)),
        others=tuple(_others(model, layout.header, layout.tensors, layout.size)),
        cell=config.cell,
        hidden=config.hidden,
        embedding=config.embedding,
        projection=config.projection,
        tied=bool(model.ties()),
        vocabulary_size=len(model.vocabulary),
        vocabulary_kind=model.vocabulary.kind,
        provenance=model.provenance,
    )


def describe(op: LinearOp) -> str:
    """Return how a matrix is stored, in words: "quantized 4-bit, groups of 32"."""
    children = op.children_by_name()
    if children:
        inner = ", ".join(f"{name}: {describe(child)}" for name, child in children.items())
        return f"{op.kind}({inner})"
    options = op.options()
    words = [op.kind]
    if options.get("type", "float32") != "float32":
        words.append(options["type"])
    if "bits" in options:
        words.append(f"{options['bits']}-bit")
    group = options.get("group")
    if group == "matrix":
        return " ".join(words) + ", one scale"
    return " ".join(words) + (f", groups of {group}" if group else "")


def look_up_cost(op: LinearOp) -> Cost:
    """Return the cost of taking one row of a matrix, as an embedding does each step.

    A leaf multiplies nothing and reads one row. A low-rank form takes a row of its left factor
    and multiplies it with all of the right one, a tensor train multiplies slices of its cores,
    and of blocks one is used. `bytes` is what is stored, as ever.
    """
    if isinstance(op, LowRank):
        return look_up_cost(op.left) + op.right.cost()
    if isinstance(op, TensorTrain):
        # A core that is made of others has rows that cost something themselves.
        rows = sum(
            rank * look_up_cost(core).macs
            for rank, core in zip(op.ranks, op.children_by_name().values(), strict=False)
        )
        found = op.row_cost()
        return replace(found, macs=found.macs + rows)
    if isinstance(op, RowBlocks):
        # The row is in one block; which one differs, so count the dearest.
        blocks = [look_up_cost(block) for block in op.children_by_name().values()]
        macs, read = (
            max(getattr(cost, what) for cost in blocks) for what in ("macs", "bytes_read")
        )
        return Cost(bytes=op.cost().bytes, macs=macs, bytes_read=read)
    if isinstance(op, PlacedBlocks):
        return _placed_row_cost(op)
    stored = op.cost()
    rows = op.out_features
    if isinstance(op, Quantized):
        # Its rows are padded to a multiple of 16.
        rows = round_up(rows, ROW_MULTIPLE)
    return Cost(bytes=stored.bytes, macs=0, bytes_read=-(-stored.bytes_read // rows))


def _placed_row_cost(op: PlacedBlocks) -> Cost:
    """Return the cost of the dearest row: a part of it from each block that it is in."""
    spans = []
    for block, place, _ in op.placed():
        cost = look_up_cost(block)
        spans.append((place.row, place.row + block.out_features // op.bands, cost))
    rows = [[cost for start, stop, cost in spans if start <= first < stop] for first, _, _ in spans]
    macs, read = (
        max(sum(getattr(cost, what) for cost in row) for row in rows)
        for what in ("macs", "bytes_read")
    )
    own = op.cost().bytes - sum(block.cost().bytes for block, _, _ in op.placed())
    return Cost(bytes=op.cost().bytes, macs=macs, bytes_read=read + own)


def _weights(model: LanguageModel, file_size: int) -> list[Part]:
    ties = model.ties()
    parts = []
    for name, op in model.weights().items():
        aliases = tuple(alias for alias, target in ties.items() if target == name)
        # A tied embedding is read whole for the output layer, the row that is looked up included.
        looked_up = name == "embedding" and not aliases
        parts.append(_part(name, op, file_size, looked_up, aliases))
    return parts


def _part(
    name: str, op: LinearOp, file_size: int, looked_up: bool, tied: tuple[str, ...] = ()
) -> Part:
    cost = look_up_cost(op) if looked_up else op.cost()
    leaves = tuple(_leaves(name, op, file_size, looked_up))
    if tied:
        # A row of it is taken, too, which may multiply: low rank and tensor trains.
        cost = replace(cost, macs=cost.macs + look_up_cost(op).macs)
        rows = _leaves(name, op, file_size, looked_up=True)
        pairs = zip(leaves, rows, strict=True)
        leaves = tuple(replace(leaf, macs=leaf.macs + row.macs) for leaf, row in pairs)
    return replace(_described(name, op, cost, file_size), leaves=leaves, tied=tied)


def _described(name: str, op: LinearOp, cost: Cost, file_size: int) -> Part:
    return Part(
        name=name,
        kind=describe(op),
        shape=op.shape,
        bytes=cost.bytes,
        parameters=op.parameter_count(),
        macs=cost.macs,
        bytes_read=cost.bytes_read,
        share=cost.bytes / file_size,
    )


def _leaves(name: str, op: LinearOp, file_size: int, looked_up: bool, uses: int = 1) -> list[Part]:
    """Return the parts of the innermost forms; none where `op` is a leaf itself.

    Parameters
    ----------
    uses : int
        How often `op` is multiplied, or a row of it taken, in one step.
    """
    parts: list[Part] = []
    for number, (key, child) in enumerate(op.children_by_name().items()):
        child_name = f"{name}.{key}"
        child_looked_up = looked_up and (
            key == "left" or isinstance(op, RowBlocks | PlacedBlocks | TensorTrain)
        )
        child_uses = uses
        cost = look_up_cost(child) if child_looked_up else child.cost()
        if isinstance(op, TensorTrain):
            child_uses *= op.ranks[number] if looked_up else op.core_uses(number)
            cost = (op.core_row_costs() if looked_up else op.core_costs())[key]
        if child.children_by_name():
            parts += _leaves(child_name, child, file_size, child_looked_up, child_uses)
        else:
            cost = replace(cost, macs=uses * cost.macs)
            parts.append(_described(child_name, child, cost, file_size))
    return parts


def _others(
    model: LanguageModel, header: bytes, tensors: dict[str, Tensor], file_size: int
) -> list[Part]:
    parts = []
    for name, bias in model.biases().items():
        size = tensor_bytes({name: tensors[name]})
        kind, shape = str(tensors[name].dtype).removeprefix("torch."), tuple(bias.shape)
        parts.append(Part(name, kind, shape, size, bias.numel(), 0, size, size / file_size))
    for name, table in model.output.tables().items():
        size = tensor_bytes({name: table})
        kind = str(table.dtype).removeprefix("torch.")
        parts.append(Part(name, kind, tuple(table.shape), size, 0, 0, 0, size / file_size))
    words = tensor_bytes(_starting_with("vocabulary.", tensors))
    fillers = tensor_bytes(_starting_with(FILLER, tensors))
    for name, kind, size in (
        ("vocabulary", model.vocabulary.kind, words),
        ("header", "JSON", len(header)),
        ("fillers", "zeros", fillers),
    ):
        parts.append(Part(name, kind, (), size, 0, 0, 0, size / file_size))
    return parts


def _starting_with(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
