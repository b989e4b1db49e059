"""Groups of units that run apart against the cell as a whole."""

from __future__ import annotations

import pytest
import torch

from terselm.cells.apart import groups_of, run_sequence
from terselm.cells.base import CELLS, CellSizes, RecurrentCell
from terselm.linear.dense import Dense
from terselm.linear.placed_blocks import Place, PlacedBlocks

PLAIN = ["lstm", "gru", "rnn_tanh", "rnn_relu"]
HEIGHTS, WIDTHS = (6, 5), (4, 3)


def merged_cell(kind: str, scales: torch.Tensor | None = None) -> RecurrentCell:
    """A cell of 6 and 5 units that read 4 and 3 numbers each and nothing of one another."""
    torch.manual_seed(5)
    cell = CELLS.get(kind)(CellSizes(sum(WIDTHS), sum(HEIGHTS)))
    gates = cell.gates

    def blocks(widths: tuple[int, int]) -> list[Dense]:
        pairs = zip(HEIGHTS, widths, strict=True)
        return [Dense.initialize(gates * height, width, 0.5) for height, width in pairs]

    shape = (gates * sum(HEIGHTS), sum(WIDTHS))
    places = [Place(0, 0), Place(HEIGHTS[0], WIDTHS[0])]
    cell.weight_ih = PlacedBlocks(blocks(WIDTHS), places, shape, gates, scales)
    places = [Place(0, 0), Place(HEIGHTS[0], HEIGHTS[0])]
    square = (gates * sum(HEIGHTS), sum(HEIGHTS))
    cell.weight_hh = PlacedBlocks(blocks(HEIGHTS), places, square, gates)
    return cell


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("kind", PLAIN)
def test_groups_do_what_the_whole_does(kind, scaled):
    cell = merged_cell(kind, torch.tensor([0.5, -2.0]) if scaled else None)
    assert [group.units for group in groups_of(cell)] == [slice(0, 6), slice(6, 11)]
    xs = torch.randn(9, 2, 7)
    state = tuple(torch.randn(2, size) for size in cell.state_sizes())
    found = []
    for run in (run_sequence, lambda cell, *given: cell.stepwise(*given)):
        outputs, after = run(cell, xs, state)
        loss = outputs.square().sum() + sum(part.sum() for part in after)
        found.append((outputs, *after, *torch.autograd.grad(loss, list(cell.parameters()))))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    assert all(gradient.abs().sum() > 0 for gradient in found[0])


def test_weights_are_dropped_in_training_only():
    cell = merged_cell("lstm")
    xs = torch.randn(9, 2, 7)
    state = cell.initial_state(2)
    whole, _ = run_sequence(cell.eval(), xs, state, 0.5)
    torch.testing.assert_close(whole, cell.stepwise(xs, state)[0])
    dropped, _ = run_sequence(cell.train(), xs, state, 0.5)
    # The first step has no state to read, the others miss half of what recurs, in both groups.
    torch.testing.assert_close(dropped[0], whole[0])
    for units in (slice(0, 6), slice(6, 11)):
        assert not torch.allclose(dropped[1:, :, units], whole[1:, :, units])


def test_units_that_read_others_stay_together():
    cell = merged_cell("lstm")
    assert groups_of(CELLS.get("lstm")(CellSizes(7, 11))) == []
    crossed = PlacedBlocks(
        list(cell.weight_hh.blocks), [Place(0, 5), Place(6, 0)], cell.weight_hh.shape, 4
    )
    cell.weight_hh = crossed
    assert groups_of(cell) == []
    xs = torch.randn(3, 2, 7)
    outputs, _ = run_sequence(cell, xs, cell.initial_state(2))
    torch.testing.assert_close(outputs, cell.stepwise(xs, cell.initial_state(2))[0])
