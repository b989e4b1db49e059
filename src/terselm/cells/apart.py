"""Running a cell whose units fall into groups that do not read one another, group by group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from terselm.cells.base import CellSizes, RecurrentCell, State
from terselm.linear.base import LinearOp
from terselm.linear.placed_blocks import Place, PlacedBlocks

PLAIN = ("weight_ih", "weight_hh")


@dataclass(frozen=True)
class Group:
    """Some of a cell's units as a cell of their own, on the same weights.

    Attributes
    ----------
    cell : RecurrentCell
    units : slice
        Which units of the whole cell these are.
    columns : slice
        What they read of its input.
    """

    cell: RecurrentCell
    units: slice
    columns: slice


def run_sequence(
    cell: RecurrentCell, xs: Tensor, state: State, recurrent_dropout: float = 0.0
) -> tuple[Tensor, State]:
    """Run a cell over a sequence, in groups where it can be; see `RecurrentCell.sequence`.

    Merged models have such cells: two groups of the same size are half the work of a matrix whose
    other half is zero, which is what `sequence` takes.
    """
    groups = groups_of(cell)
    if len(groups) < 2:
        return cell.sequence(xs, state, recurrent_dropout)
    done = []
    for group in groups:
        own = tuple(part[..., group.units] for part in state)
        done.append(group.cell.sequence(xs[..., group.columns], own, recurrent_dropout))
    outputs, states = zip(*done, strict=True)
    after = tuple(torch.cat(parts, dim=-1) for parts in zip(*states, strict=True))
    return torch.cat(outputs, dim=-1), after


def groups_of(cell: RecurrentCell) -> list[Group]:
    """Return the groups of a cell's units in their order; none where it is not made of such.

    They share the cell's weights and biases, so that gradients reach those.
    """
    reads, recurs = cell.weight_ih, cell.weight_hh
    if cell.weight_names() != PLAIN or not isinstance(recurs, PlacedBlocks):
        return []
    if not isinstance(reads, PlacedBlocks) or {reads.bands, recurs.bands} != {cell.gates}:
        return []
    rows = [place.row for place in reads.places]
    if rows != [place.row for place in recurs.places]:
        return []
    groups, end = [], 0
    pairs = zip(zip(*_parts(reads), strict=True), zip(*_parts(recurs), strict=True), strict=True)
    for (read, place), (recur, own) in pairs:
        size = recur.in_features
        square = recur.out_features == read.out_features == cell.gates * size
        if not square or not own.row == own.column == end:
            return []
        units = slice(end, end := end + size)
        columns = slice(place.column, place.column + read.in_features)
        groups.append(Group(_cell_of(cell, read, recur, units), units, columns))
    return groups


def _parts(op: PlacedBlocks) -> tuple[list[LinearOp], list[Place]]:
    """Return blocks and places, each block with its number."""
    blocks = [block for block, _, _ in op.placed()]
    if op.scales is not None:
        blocks = [
            PlacedBlocks([block], [Place(0, 0)], block.shape, 1, scale.reshape(1))
            for block, scale in zip(blocks, op.scales, strict=True)
        ]
    return blocks, list(op.places)


def _cell_of(
    whole: RecurrentCell, reads: LinearOp, recurs: LinearOp, units: slice
) -> RecurrentCell:
    # On the meta device, since every weight is replaced.
    with torch.device("meta"):
        cell = type(whole)(CellSizes(reads.in_features, recurs.in_features))
    cell.weight_ih, cell.weight_hh = reads, recurs
    for name in whole.bias_names():
        gates = getattr(whole, name).unflatten(0, (-1, whole.hidden_size))  # [gates, hidden]
        # Not a parameter: a part of the whole cell's, whose gradient it passes on.
        delattr(cell, name)
        setattr(cell, name, gates[:, units].flatten())
    cell.training = whole.training
    return cell
