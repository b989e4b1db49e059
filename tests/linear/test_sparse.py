"""The bytes of the sparse forms, decoded here a second time, bit by bit."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from terselm.errors import TerselmError
from terselm.linear.base import op_from_file
from terselm.linear.block_sparse import BlockPattern, BlockSparse
from terselm.linear.coded import Latent
from terselm.linear.sparse import Sparse
from tests.tiny import (
    random_block_sparse,
    random_block_sparse_quantized,
    random_sparse,
    random_sparse_quantized,
)


def stored(op):
    return {f"w.{name}": tensor for name, tensor in op.tensors().items()}


def places_in_order(rows: int, columns: int):
    """(row, column) in the order of the file: row block, column, row; None is padding."""
    padded = -(-rows // 16) * 16
    for start in range(0, padded, 64):
        for column in range(columns):
            for row in range(start, min(start + 64, padded)):
                yield (row, column) if row < rows else None


def decoded_places(op) -> list[tuple[int, int]]:
    tensors = op.tensors()
    rows, columns = op.shape
    data = tensors["positions"].tolist()
    coding = op.spec()["positions"]
    order = list(places_in_order(rows, columns))
    if coding == "bitmap":
        return [place for n, place in enumerate(order) if data[n // 8] >> (n % 8) & 1]
    starts = tensors["starts"].tolist()
    found = []
    for block in range(-(-rows // 64)):
        (_, first), (_, last) = starts[2 * block : 2 * block + 2], starts[2 * block + 2 :][:2]
        codes = data[first:last]
        greatest = 255
        if coding == "gaps4":
            codes = [part for byte in codes for part in (byte & 15, byte >> 4)]
            greatest = 15
        place = block * 64 * columns
        for code in codes:
            place += code
            if code != greatest:
                found.append(order[place])
                place += 1
    return found


@pytest.mark.parametrize("shape", [(23, 17), (64, 32), (131, 9), (200, 50), (1, 1)])
@pytest.mark.parametrize("density", [0.0, 0.003, 0.02, 0.1, 0.5, 1.0])
def test_positions_and_values_of_the_file(shape, density):
    torch.manual_seed(1)
    op = random_sparse(*shape, density)
    dense = op.dense()
    places = decoded_places(op)
    assert len(places) == len(set(places)) == int((dense != 0).sum())
    values = op.tensors()["values"]
    for place, value in zip(places, values.tolist(), strict=False):
        assert dense[place].item() == value
    assert not values[len(places) :].any()
    assert all(tensor.numel() * tensor.element_size() % 64 == 0 for tensor in op.tensors().values())


def test_the_smallest_coding_is_taken():
    torch.manual_seed(2)
    kinds = {
        density: random_sparse(256, 96, density).spec()["positions"] for density in (0.5, 0.1, 0.01)
    }
    assert kinds == {0.5: "bitmap", 0.1: "gaps4", 0.01: "gaps8"}
    sizes = {
        density: random_sparse(256, 96, density).tensors()["positions"].numel() * 8
        for density in (0.5, 0.1, 0.01)
    }
    assert sizes[0.5] == 256 * 96
    # Every gap of g takes g // 15 + 1 codes: 4 bits times that, in the mean over a geometric g.
    expected = 4 / (1 - 0.9**15) * 0.1 * 256 * 96
    assert sizes[0.1] == pytest.approx(expected, rel=0.05)


def test_an_empty_matrix_has_a_file_too():
    op = Sparse.from_mask(torch.ones(40, 7), torch.zeros(40, 7, dtype=torch.bool))
    again = op_from_file(op.spec(), stored(op), "w")
    assert torch.equal(again.dense(), torch.zeros(40, 7))
    assert torch.equal(again.rows(torch.tensor([[3, 39]])), torch.zeros(1, 2, 7))


def test_a_block_lies_as_in_the_quantized_layout():
    weight = torch.arange(32 * 8, dtype=torch.float32).view(32, 8) + 1
    kept = torch.tensor([[False, True], [True, False]])
    op = BlockSparse.from_blocks(weight, kept, (16, 4))
    values = op.tensors()["values"]
    assert values[:64].tolist() == weight[:16, 4:].reshape(-1).tolist()
    assert values[64:].tolist() == weight[16:, :4].reshape(-1).tolist()
    assert op.tensors()["blocks"][0].item() == 0b0110
    wide = BlockSparse.from_blocks(weight, torch.ones(16, 1), (2, 8))
    first = wide.tensors()["values"][:16].tolist()
    assert first == [*weight[0, :4], *weight[1, :4], *weight[0, 4:], *weight[1, 4:]]


def test_zeros_stay_zero_under_training():
    torch.manual_seed(3)
    for op in (random_sparse(20, 12), random_block_sparse(20, 12, (4, 2), "float16")):
        zero = op.dense() == 0
        optimizer = torch.optim.Adam(op.parameters(), lr=0.1, weight_decay=0.1)
        before = op.dense().detach().clone()
        for _ in range(3):
            optimizer.zero_grad()
            (op(torch.randn(5, 12)) - 1).square().sum().backward()
            optimizer.step()
        op.settle()
        assert torch.equal(op.dense() == 0, zero)
        assert not torch.equal(op.dense(), before)


@pytest.mark.parametrize("bits", [8, 4])
def test_training_through_codes_keeps_the_zeros(bits):
    torch.manual_seed(4)
    op = random_sparse_quantized(20, 12, 0.3, bits)
    outside = torch.ones(20 * 12, dtype=torch.bool)
    outside[op.positions] = False
    outside = outside.view(20, 12)
    latent = Latent(op).train()
    target = torch.randn(20, 12)
    optimizer = torch.optim.SGD(latent.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (latent.dense() - target).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not latent.coded.dense()[outside].any()


def test_rerounding_takes_the_nearest_codes():
    torch.manual_seed(5)
    for op in (
        random_sparse_quantized(20, 12, 0.3, 8),
        random_block_sparse_quantized(20, 12, (4, 2), 8),
    ):
        again = op.reround(op.dense().detach())
        torch.testing.assert_close(again.dense(), op.dense(), rtol=1e-3, atol=1e-6)


def expect(op, match, change=None, **tensors):
    changed = {**stored(op), **{f"w.{name}": tensor for name, tensor in tensors.items()}}
    with pytest.raises(TerselmError, match=f"^w: .*{match}"):
        op_from_file({**op.spec(), **(change or {})}, changed, "w")


@pytest.mark.parametrize("density", [0.5, 0.1, 0.01])
def test_hostile_positions_are_refused(density):
    torch.manual_seed(6)
    op = random_sparse(150, 40, density)
    tensors = op.tensors()
    for index in (0, 1, 2, 3, 6, 7):
        for value in (1, 7, 2**31, 2**32 - 1):
            starts = tensors["starts"].numpy().copy()
            if starts[index] != value:
                starts[index] = value
                expect(op, "", starts=torch.from_numpy(starts))
    positions = tensors["positions"].clone()
    positions[0] ^= 0x01
    if density == 0.5:
        expect(op, "differ in how many values", positions=positions)
    expect(op, "positions", positions=torch.zeros_like(positions))
    if density < 0.5:
        # 150 rows are 22 in the last block, padded to 32: a row from 150 on does not exist.
        positions = tensors["positions"].clone()
        first = int(tensors["starts"][5])
        positions[first] = 0x7F if op.spec()["positions"] == "gaps4" else 25
        expect(op, "positions", positions=positions)


@pytest.mark.parametrize("value", ["", "gaps", None, 4, ["bitmap"]])
def test_an_unknown_coding_is_refused(value):
    expect(random_sparse(20, 12), "positions is", {"positions": value})


@pytest.mark.parametrize("value", ["float64", None, 4, ["float32"]])
def test_an_unknown_type_is_refused(value):
    expect(random_sparse(20, 12), "type is", {"type": value})
    expect(random_block_sparse(20, 12, (4, 4)), "type is", {"type": value})


@pytest.mark.parametrize("value", [2, True, None, "8", 8.0, [8]])
def test_unknown_bits_are_refused(value):
    expect(random_sparse_quantized(20, 12, 0.3, 8), "bits is", {"bits": value})


@pytest.mark.parametrize("value", [None, 4, [4], [4, 3], [128, 1], [4.0, 4], [0, 4], [True, 4]])
def test_an_impossible_block_is_refused(value):
    expect(random_block_sparse(20, 12, (4, 4)), "block is", {"block": value})


def test_blocks_beyond_the_matrix_are_refused():
    op = random_block_sparse(20, 12, (4, 4))  # 15 blocks
    blocks = op.tensors()["blocks"].clone()
    blocks[1] |= 0x80
    expect(op, "names a block beyond the 15", blocks=blocks)


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that is made."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.bytes = max(self.bytes, leaf.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("kept", [[], [0, 5]])
def test_a_small_bitmap_of_a_large_matrix_takes_little_memory(kept):
    """256 x 256 blocks of 64 x 64: 8 KiB in the file, 268 MB as a mask."""
    blocks = torch.zeros(8192, dtype=torch.uint8)
    blocks[kept] = 1
    count = max(16, len(kept) * 64 * 64)
    tensors = {"w.blocks": blocks, "w.values": torch.ones(count)}
    spec = {"kind": "block_sparse", "shape": [2**14] * 2, "type": "float32", "block": [64, 64]}
    with Largest() as largest:
        op = op_from_file(spec, tensors, "w")
    assert len(op.positions) == len(kept) * 64 * 64
    assert largest.bytes < 2_000_000


def test_a_small_bitmap_of_many_rows_takes_little_memory():
    """65,536 blocks of 64 x 16: 8 KiB in the file, 34 MB as a number for each row."""
    tensors = {"w.blocks": torch.zeros(8192, dtype=torch.uint8), "w.values": torch.ones(16)}
    spec = {"kind": "block_sparse", "shape": [2**22, 16], "type": "float32", "block": [64, 16]}
    with Largest() as largest:
        op_from_file(spec, tensors, "w")
    assert largest.bytes < 2_000_000


def test_blocks_without_values_take_little_memory():
    tensors = {"w.blocks": torch.full((8192,), 255, dtype=torch.uint8), "w.values": torch.ones(16)}
    spec = {"kind": "block_sparse", "shape": [2**14] * 2, "type": "float32", "block": [64, 64]}
    with Largest() as largest, pytest.raises(TerselmError, match="tensor 'values' is"):
        op_from_file(spec, tensors, "w")
    assert largest.bytes < 2_000_000


@pytest.mark.parametrize("block", [(4, 4), (64, 64), (1, 8), (16, 1)])
def test_places_of_blocks_are_those_of_the_mask(block):
    torch.manual_seed(7)
    rows, columns = 70, 37  # no multiples: blocks at the edges are partial
    kept = torch.rand(-(-rows // block[0]), -(-columns // block[1])) < 0.5
    mask = kept.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    positions = BlockPattern((rows, columns), block, kept).positions
    assert torch.equal(positions, mask.reshape(-1).nonzero().squeeze(-1))


def test_values_that_are_no_numbers_are_refused():
    for op in (random_sparse(20, 12), random_block_sparse(20, 12, (4, 4))):
        for value in (float("nan"), float("inf")):
            values = op.tensors()["values"].clone()
            values[0] = value
            expect(op, "'values' holds NaN", values=values)
    coded = random_sparse_quantized(20, 12, 0.3, 8)
    scales = coded.tensors()["scales"].clone()
    scales[3] = float("inf")
    expect(coded, "'scales' holds NaN", scales=scales)
    codes = coded.tensors()["codes"].clone()
    codes[0] = 128
    expect(coded, "-128", codes=codes)


def test_float16_that_overflows_is_refused():
    with pytest.raises(TerselmError, match="do not fit float16"):
        Sparse.from_mask(torch.full((3, 3), 1e5), torch.ones(3, 3), "float16")
