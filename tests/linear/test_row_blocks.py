"""Blocks and groups of rows against plain indexing, and what no file may say."""

from __future__ import annotations

import pytest
import torch

from terselm.errors import TerselmError
from terselm.linear.base import op_from_file
from terselm.linear.dense import Dense
from terselm.linear.grouped_rows import GroupedRows
from terselm.linear.row_blocks import MAX_BLOCKS, RowBlocks

GROUPS = torch.tensor([2, 0, 1, 0, 2, 2, 0, 2])


def blocks() -> list[Dense]:
    return [Dense(torch.full((height, 3), float(height))) for height in (3, 1, 4)]


def test_blocks_are_stacked():
    op = RowBlocks(blocks())
    assert op.shape == (8, 3)
    assert op.dense()[:, 0].tolist() == [3, 3, 3, 1, 4, 4, 4, 4]
    assert op.rows(torch.tensor([[7, 3], [0, 3]]))[..., 0].tolist() == [[4, 1], [3, 1]]
    assert op.rows(torch.tensor(3)).tolist() == [1, 1, 1]
    assert op.rows(torch.empty(0, dtype=torch.int64)).shape == (0, 3)


def test_a_row_is_in_the_block_that_it_names():
    parts = [torch.randn(height, 3) for height in (3, 1, 4)]
    op = GroupedRows([Dense(part) for part in parts], GROUPS)
    taken = [0, 0, 0]
    expected = torch.empty(8, 3)
    for row, group in enumerate(GROUPS.tolist()):
        expected[row] = parts[group][taken[group]]
        taken[group] += 1
    assert torch.equal(op.dense(), expected)
    assert torch.equal(op.rows(torch.tensor([5, 2])), expected[[5, 2]])
    x = torch.randn(2, 3)
    torch.testing.assert_close(op(x), x @ expected.T)


def test_one_byte_a_row_is_stored():
    op = GroupedRows(blocks(), GROUPS)
    assert op.tensors()["groups"].dtype == torch.uint8
    assert op.cost().bytes == 8 + 4 * 24


def test_blocks_that_do_not_fit_are_refused():
    with pytest.raises(TerselmError, match=r"its blocks are \[3, 4\] wide"):
        RowBlocks([Dense.initialize(2, 3), Dense.initialize(2, 4)])
    with pytest.raises(TerselmError, match="blocks is 0, expected 1 to 256"):
        RowBlocks([])
    with pytest.raises(TerselmError, match="blocks is 257"):
        RowBlocks([Dense.initialize(1, 1) for _ in range(MAX_BLOCKS + 1)])


def read(op, changes=None, tensors=None):
    stored = {f"w.{name}": tensor for name, tensor in {**op.tensors(), **(tensors or {})}.items()}
    return op_from_file({**op.spec(), **(changes or {})}, stored, "w")


@pytest.mark.parametrize("form", ["blocks", "groups"])
@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("blocks is None", {"blocks": None}),
        ("blocks is 0", {"blocks": 0}),
        ("blocks is 1000000000", {"blocks": 10**9}),
        ("blocks is True", {"blocks": True}),
        ("block3: unknown stored form None", {"blocks": 4}),
        ("shape", {"blocks": 2}),
        ("block1: its description", {"block1": 5}),
        ("shape", {"shape": [9, 3]}),
        ("shape", {"shape": [8, 4]}),
    ],
)
def test_a_hostile_description_is_refused(form, message, changes):
    op = RowBlocks(blocks()) if form == "blocks" else GroupedRows(blocks(), GROUPS)
    if form == "groups" and changes.get("shape") == [9, 3]:
        message = "groups.*expected"
    if form == "blocks" and message == "shape":
        message = "its blocks make"
    if form == "groups" and changes.get("shape") == [8, 4]:
        message = "its blocks make"
    with pytest.raises(TerselmError, match=f"^w: .*{message}"):
        read(op, changes)


@pytest.mark.parametrize(
    ("message", "groups"),
    [
        ("beyond its 3 blocks", [2, 0, 1, 0, 2, 2, 0, 3]),
        ("beyond its 3 blocks", [255] * 8),
        (r"groups names \[4, 1, 3\] rows, its blocks have \[3, 1, 4\]", [0, 0, 1, 0, 2, 2, 0, 2]),
    ],
)
def test_hostile_groups_are_refused(message, groups):
    op = GroupedRows(blocks(), GROUPS)
    with pytest.raises(TerselmError, match=f"^w: .*{message}"):
        read(op, tensors={"groups": torch.tensor(groups, dtype=torch.uint8)})


@pytest.mark.parametrize(
    "groups",
    [GROUPS.to(torch.int64), GROUPS.to(torch.uint8)[:-1], GROUPS.to(torch.uint8).view(2, 4)],
)
def test_groups_of_another_type_or_length_are_refused(groups):
    with pytest.raises(TerselmError, match="^w: tensor 'groups' is .*expected torch.uint8"):
        read(GroupedRows(blocks(), GROUPS), tensors={"groups": groups})
