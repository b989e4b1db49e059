"""What the methods that set single weights or blocks to zero share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from terselm.compress.base import Context, WeightMethod
from terselm.compress.sparsity import (
    block_sums,
    blocks_to_mask,
    mask_of_largest,
    mask_of_largest_in_rows,
    masks_over_all,
    zeros_leaving_some,
)
from terselm.compress.statistics import InputStatistics
from terselm.compress.stored_type import stored_type_of
from terselm.errors import UsageError
from terselm.linear.base import LinearOp, tensor_bytes
from terselm.linear.block_sparse import BlockPattern, BlockSparse
from terselm.linear.dense import STORED_TYPES, Dense
from terselm.linear.positions import ALIGNMENT, ElementPattern
from terselm.linear.sparse import Sparse

Sparsity = Annotated[float, Field(ge=0.0, lt=1.0)]
Scope = Literal["row", "matrix", "model"]
Structure = Literal["weights", "blocks"]
Side = Literal[1, 2, 4, 8, 16, 32, 64]
StoredType = Literal["float32", "float16"]
Block = tuple[Side, Side]
DEFAULT_BLOCK: Block = (16, 4)


class PruningMethod(WeightMethod):
    """Leaves out the weights or blocks with the lowest scores.

    A subclass is a dataclass with these options and gives `scores`, and `updated` where the
    weights that stay change.
    """

    takes: ClassVar[tuple[str, ...]] = ("dense", "sparse", "block_sparse")

    sparsity: float
    scope: Scope
    structure: Structure
    block: Block
    type: StoredType | None

    def scores(self, leaf: LinearOp, name: str, context: Context) -> Tensor:
        """Return what each weight is worth, float [out, in], at least 0."""
        raise NotImplementedError

    def scope_for(self, name: str, context: Context) -> Scope:
        """Return where the weights of one leaf are compared; by default the option."""
        return self.scope

    def updated(self, leaf: LinearOp, mask: Tensor, name: str, context: Context) -> Tensor:
        """Return the matrix whose values are kept at the mask; by default that of the leaf."""
        return leaf.dense()

    def prepare(self, leaves: Mapping[str, LinearOp], context: Context) -> Any:
        """Return the mask of what stays for each leaf, by name, where the scope is the model.

        Raises
        ------
        UsageError
            If nothing would stay of one of them.
        """
        if self.scope != "model" or not leaves:
            return None
        scores = {name: self._unit_scores(leaf, name, context) for name, leaf in leaves.items()}
        total = sum(score.numel() for score in scores.values())
        masks = masks_over_all(scores, self._zeros(total, "the whole selection"))
        for name, mask in masks.items():
            if not mask.any():
                raise UsageError(
                    f"one threshold at sparsity {self.sparsity} leaves none of the "
                    f"{mask.numel():,} {self.structure} of {name}; prune less, prune {name} in a "
                    "step of its own, or use scope: matrix"
                )
        return masks

    def apply_to_leaf(self, leaf: LinearOp, name: str, context: Context) -> LinearOp:
        """Return the sparse form of one leaf.

        Where one threshold for the model leaves a matrix so full that its sparse form would
        not be smaller, it stays dense, with its zeros.

        Raises
        ------
        UsageError
            If the leaf is sparser already, or its sparse form would be larger than the dense.
        """
        if self.sparsity == 0:
            return self._of_type(leaf)
        kept = self._kept(leaf, name, context)
        mask = blocks_to_mask(kept, self.block, leaf.shape) if self._in_blocks else kept
        if isinstance(leaf, Sparse | BlockSparse):
            mask = self._within(mask, leaf, name)
        values = self.updated(leaf, mask, name, context)
        stored_type = self.type or stored_type_of(leaf)
        new: Sparse | BlockSparse
        if self._in_blocks:
            pattern = BlockPattern(leaf.shape, self.block, kept)
            new = BlockSparse.of(values, pattern, stored_type)
        else:
            new = Sparse.of(values, ElementPattern(mask), stored_type)
        if self.scope == "model" and not is_smaller_than_dense(new):
            return Dense(new.dense(), stored_type)
        check_smaller_than_dense(new, name)
        return new

    def _of_type(self, leaf: LinearOp) -> LinearOp:
        """Return a leaf with all its weights in the type that the options ask for."""
        if self.type is None or self.type == stored_type_of(leaf):
            return leaf
        if isinstance(leaf, Sparse | BlockSparse):
            return type(leaf).of(leaf.dense(), leaf.pattern, self.type)
        return Dense(leaf.dense(), self.type)

    @property
    def _in_blocks(self) -> bool:
        return self.structure == "blocks"

    def _unit_scores(self, leaf: LinearOp, name: str, context: Context) -> Tensor:
        """Return the score of each weight, or of each block as the sum over it."""
        scores = self.scores(leaf, name, context)
        return block_sums(scores, self.block) if self._in_blocks else scores

    def _kept(self, leaf: LinearOp, name: str, context: Context) -> Tensor:
        if self.scope == "model":
            kept: Tensor = context.prepared[name]
            return kept
        scores = self._unit_scores(leaf, name, context)
        if self.scope_for(name, context) == "row":
            zeros = self._zeros(scores.shape[1], f"a row of {name}")
            return mask_of_largest_in_rows(scores, zeros)
        return mask_of_largest(scores, self._zeros(scores.numel(), name))

    def _zeros(self, total: int, of: str) -> int:
        return zeros_leaving_some(total, self.sparsity, of, self.structure)

    def _within(self, mask: Tensor, leaf: Sparse | BlockSparse, name: str) -> Tensor:
        before = torch.zeros(leaf.shape, dtype=torch.bool, device=mask.device)
        before.view(-1)[leaf.positions] = True
        mask = mask & before
        if self.scope == "model":
            return mask  # the sparsity is that of all matrices together
        if int(mask.sum()) == len(leaf.positions) and leaf.density < 1 - self.sparsity:
            raise UsageError(
                f"{name} has sparsity {1 - leaf.density:.3f} already; "
                f"use more than that, not {self.sparsity}"
            )
        return mask


def is_smaller_than_dense(op: Sparse | BlockSparse) -> bool:
    """Return whether the file gets smaller by storing places instead of zeros."""
    size = STORED_TYPES[op.stored_type].itemsize
    return tensor_bytes(op.tensors()) < op.out_features * op.in_features * size


def check_smaller_than_dense(op: Sparse | BlockSparse, name: str) -> None:
    """Refuse a sparse form that is no smaller than the dense one with the same type of values.

    Raises
    ------
    UsageError
        The message says from which sparsity on it would be smaller.
    """
    total = op.out_features * op.in_features
    size = STORED_TYPES[op.stored_type].itemsize
    excess = tensor_bytes(op.tensors()) - total * size
    if excess >= 0:
        sparsity = 1 - op.parameter_count() / total
        enough = sparsity + (excess + ALIGNMENT) / (total * size)
        advice = f"prune to about {enough:.2f}, or" if enough < 1 else "it is too small:"
        raise UsageError(
            f"{name} at sparsity {sparsity:.3f} takes {total * size + excess} bytes with its "
            f"positions and {total * size} dense; {advice} leave it out"
        )


def input_statistics(name: str, context: Context) -> InputStatistics | None:
    """Return what the leaf `name` is multiplied with; None where it is only looked up."""
    if context.statistics is None:
        raise UsageError("needs calibration text; give --data")
    return context.statistics.inputs.get(name)


def is_output(name: str, context: Context) -> bool:
    """Return whether each row of the leaf `name` is multiplied to score one word."""
    tied = input_statistics(name, context) is not None
    return name in ("output", "output.left") or (tied and name in ("embedding", "embedding.left"))


def row_frequencies(weight: Tensor, context: Context) -> Tensor:
    """Return how often each row of a looked-up matrix is used, in the mean 1; float [out].

    Each word counts once more than it occurs. Where rows are not words (the right factor of a
    low-rank embedding), all rows are alike.
    """
    assert context.statistics is not None
    counts = torch.from_numpy(context.statistics.token_counts).to(weight) + 1
    if len(counts) != len(weight):
        return weight.new_ones(len(weight))
    return counts / counts.mean()
