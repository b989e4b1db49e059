"""Placed blocks against plain indexing, and what no file may say."""

from __future__ import annotations

import pytest
import torch

from terselm.errors import TerselmError
from terselm.linear.base import op_from_file
from terselm.linear.dense import Dense
from terselm.linear.placed_blocks import Place, PlacedBlocks

SCALES = torch.tensor([0.5, -2.0])


def diagonal(bands: int = 1, scales: torch.Tensor | None = None) -> PlacedBlocks:
    """Blocks [2 bands, 3] and [bands, 2], from corner to corner of each band."""
    blocks = [Dense(torch.randn(2 * bands, 3)), Dense(torch.randn(bands, 2))]
    return PlacedBlocks(blocks, [Place(0, 0), Place(2, 3)], (3 * bands, 5), bands, scales)


def test_a_block_lies_where_it_is_placed():
    op = diagonal(scales=SCALES)
    first, second = (block.dense() for block in op.blocks)
    assert torch.equal(op.dense(), torch.block_diag(first / 2, second * -2))


def test_every_band_has_its_part_of_each_block():
    op = diagonal(bands=4)
    first, second = (block.dense() for block in op.blocks)
    bands = [
        torch.block_diag(first[2 * band : 2 * band + 2], second[band : band + 1])
        for band in range(4)
    ]
    assert torch.equal(op.dense(), torch.cat(bands))


def test_blocks_on_one_another_are_added():
    a, b = torch.randn(4, 3), torch.randn(2, 1)
    op = PlacedBlocks([Dense(a), Dense(b)], [Place(0, 0), Place(1, 2)], (4, 3))
    expected = a.clone()
    expected[1:3, 2:] += b
    assert torch.equal(op.dense(), expected)
    x = torch.randn(5, 3)
    torch.testing.assert_close(op(x), x @ expected.T)
    ids = torch.tensor([[2, 0], [3, 2]])
    torch.testing.assert_close(op.rows(ids), expected[ids])
    assert op.rows(torch.empty(0, dtype=torch.int64)).shape == (0, 3)


def test_gradients_reach_the_blocks():
    op = diagonal(bands=2, scales=SCALES)
    x = torch.randn(7, 5)
    ways = (lambda: op(x), lambda: x @ op.dense().T, lambda: x @ op.rows(torch.arange(6)).T)
    found = [torch.autograd.grad(way().square().sum(), list(op.parameters())) for way in ways]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])
    assert all(gradient.abs().sum() > 0 for gradient in found[0])


def test_what_does_not_fit_is_refused():
    blocks = [Dense.initialize(2, 3), Dense.initialize(1, 2)]
    with pytest.raises(TerselmError, match=r"columns \[\(0, 3\), \(2, 4\)\], expected to fill 5"):
        PlacedBlocks(blocks, [Place(0, 0), Place(2, 2)], (3, 5))
    with pytest.raises(TerselmError, match="rows .*expected to fill 4"):
        PlacedBlocks(blocks, [Place(0, 0), Place(3, 3)], (4, 5))
    with pytest.raises(TerselmError, match="2 blocks at 1 places"):
        PlacedBlocks(blocks, [Place(0, 0)], (3, 5))
    with pytest.raises(TerselmError, match="make no 2 bands"):
        PlacedBlocks(blocks, [Place(0, 0), Place(1, 3)], (4, 5), 2)
    with pytest.raises(TerselmError, match=r"scales are \[3\]"):
        PlacedBlocks(blocks, [Place(0, 0), Place(2, 3)], (3, 5), 1, torch.ones(3))


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("blocks is 0", {"blocks": 0}),
        ("block2: unknown stored form", {"blocks": 3}),
        ("bands is None", {"bands": None}),
        ("bands is 0", {"bands": 0}),
        ("make no 3 bands", {"bands": 3}),
        ("places is", {"places": [0, 0, 2]}),
        ("places is", {"places": [0, 0, 2, -1]}),
        ("places is", {"places": [0, 0, 2, True]}),
        ("expected to fill", {"places": [0, 0, 2, 2**31 - 1]}),
        ("expected to fill", {"places": [0, 0, 0, 3]}),
        ("scaled is 1", {"scaled": 1}),
        ("expected to fill", {"shape": [6, 2**31 - 1]}),
        ("make no", {"shape": [2**31 - 1, 5]}),
    ],
)
def test_a_hostile_description_is_refused(message, changes):
    op = diagonal(bands=2, scales=SCALES)
    stored = {f"w.{name}": tensor for name, tensor in op.tensors().items()}
    with pytest.raises(TerselmError, match=f"^w: .*{message}"):
        op_from_file({**op.spec(), **changes}, stored, "w")


@pytest.mark.parametrize(
    "scales", [torch.ones(3), torch.ones(2).half(), torch.tensor([1, torch.nan])]
)
def test_hostile_scales_are_refused(scales):
    op = diagonal(scales=SCALES)
    stored = {f"w.{name}": tensor for name, tensor in op.tensors().items()}
    with pytest.raises(TerselmError, match="^w: tensor 'scales'"):
        op_from_file(op.spec(), {**stored, "w.scales": scales}, "w")


def test_nothing_but_blocks_and_scales_is_stored():
    assert diagonal().cost().bytes == 4 * (6 + 2)
    assert diagonal(scales=SCALES).cost().bytes == 4 * (6 + 2 + 2)
    assert "scaled" not in diagonal().spec()
