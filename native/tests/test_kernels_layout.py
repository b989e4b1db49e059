"""Products of the C kernels with what the Python forms store, through ctypes.

Run with src/ on the path: `python -m pytest native/tests/test_kernels_layout.py`.
"""

from __future__ import annotations

import ctypes as c
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from terselm.linear.base import LinearOp
from terselm.linear.binary_codes import BinaryCodes
from terselm.linear.block_sparse import BlockPattern, BlockSparse, BlockSparseQuantized
from terselm.linear.codebook import Codebook
from terselm.linear.dense import Dense
from terselm.linear.positions import ElementPattern
from terselm.linear.product_codes import ProductCodes
from terselm.linear.quantized import Quantized, code_range
from terselm.linear.sparse import Sparse, SparseQuantized

SOURCES = Path(__file__).resolve().parents[1] / "src"
SHAPES = [(1, 3), (17, 33), (65, 200), (130, 31)]
NAMES = ["portable", "avx2", "avx512vnni"]
P, U8, U32, U64, B = c.c_void_p, c.c_uint8, c.c_uint32, c.c_uint64, c.c_bool


def struct(*fields: tuple[str, Any]) -> type[c.Structure]:
    return type("S", (c.Structure,), {"_fields_": list(fields)})


DENSE = struct(("values", P), ("half", B))
QUANTIZED = struct(
    ("codes", P), ("scales", P), ("zeros", P), ("group", U32), ("groups", U32), ("bits", U8),
    ("mid_rise", B),
)  # fmt: skip
CODEBOOK = struct(("codes", P), ("values", P), ("bits", U8), ("per_row", B))
BINARY = struct(("codes", P), ("scales", P), ("group", U32), ("groups", U32), ("bits", U8))
PRODUCT = struct(
    ("codes", P), ("centroids", P), ("norms", P), ("blocks", U32), ("count", U32), ("size", U32),
    ("shared", B),
)  # fmt: skip
STORED = struct(("values", P), ("codes", P), ("scales", P), ("bits", U8), ("half", B))
SPARSE = struct(
    ("positions", P), ("starts", P), ("stored", STORED), ("row_blocks", U32), ("count", U32),
    ("coding", c.c_int),
)  # fmt: skip
BLOCKS = struct(
    ("bitmap", P), ("stored", STORED), ("kept", U64), ("grid_rows", U32), ("grid_columns", U32),
    ("high", U32), ("wide", U32),
)  # fmt: skip
FIELDS = ["round_input", "quantized", "dense", "codebook", "binary_codes", "product_codes"]
KERNELS = struct(("name", c.c_char_p), *((n, P) for n in [*FIELDS, "sparse", "block_sparse"]))
INPUT = struct(("x", P), ("q", P), ("scale", c.c_float), ("size", U32))
ROUND = c.CFUNCTYPE(None, P, U32, P, P)
APPLY = c.CFUNCTYPE(None, P, P, P, U32, U32)


class Form(c.Union):
    _fields_ = [(f"f{i}", s) for i, s in enumerate(
        [DENSE, QUANTIZED, CODEBOOK, BINARY, PRODUCT, SPARSE, BLOCKS])]  # fmt: skip
    # The widest member of the C union, tensor_train, is no wider than `sparse`.


class Matrix(c.Structure):
    _fields_ = [("form", c.c_int), ("out", U32), ("in_", U32), ("u", Form)]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> c.CDLL:
    target = tmp_path_factory.mktemp("kernels") / "kernels.so"
    sources = sorted(map(str, SOURCES.glob("kernels_*.c")))
    command = ["cc", "-std=c11", "-O2", "-shared", "-fPIC", *sources, "-lm", "-o", str(target)]
    subprocess.run(command, check=True)
    found = c.CDLL(str(target))
    found.tlm_kernels_named.restype = c.POINTER(KERNELS)
    return found


def stored(tensors: dict[str, Tensor], bits: int, half: bool) -> Any:
    if bits:
        return STORED(None, at(tensors["codes"]), at(tensors["scales"]), bits, False)
    return STORED(at(tensors["values"]), None, None, 0, half)


def at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def described(op: LinearOp, t: dict[str, Tensor]) -> tuple[str, bool, Any]:
    """Return the kernel, whether it reads rounded inputs, and the struct."""
    columns = op.in_features
    if isinstance(op, Dense):
        return "dense", False, DENSE(at(t["weight"]), op.stored_type == "float16")
    if isinstance(op, Quantized):
        group = {None: columns, "matrix": 0}.get(op.group, op.group)
        return "quantized", True, QUANTIZED(
            at(t["codes"]), at(t["scales"]), at(t.get("zeros")), group, op.groups, op.bits,
            op.levels == "mid_rise")  # fmt: skip
    if isinstance(op, Codebook):
        form = CODEBOOK(at(t["codes"]), at(t["values"]), op.bits, op.scope == "row")
        return "codebook", False, form
    if isinstance(op, BinaryCodes):
        form = BINARY(at(t["codes"]), at(t["scales"]), op.group or columns, op.groups, op.bits)
        return "binary_codes", True, form
    if isinstance(op, ProductCodes):
        return "product_codes", False, PRODUCT(
            at(t["codes"]), at(t["centroids"]), at(t.get("norms")), op.blocks,
            op.centroid_count, op.size, op.shared)  # fmt: skip
    spec = op.spec()
    bits = spec.get("bits", 0)
    values = stored(t, bits, spec.get("type") == "float16")
    if "positions" in spec:
        coding = ["bitmap", "gaps4", "gaps8"].index(spec["positions"])
        form = SPARSE(at(t["positions"]), at(t["starts"]), values,
                      -(-op.out_features // 64), len(op.pattern.positions), coding)  # fmt: skip
        return "sparse", bool(bits), form
    pattern = op.pattern
    form = BLOCKS(at(t["blocks"]), values, int(pattern.kept.sum()), *pattern.kept.shape,
                  *pattern.block)  # fmt: skip
    return "block_sparse", bool(bits), form


def random_codes(rows: int, columns: int, bits: int) -> Tensor:
    low, high = code_range(bits)
    return torch.randint(low, high + 1, (rows, columns)).to(torch.int8)


def forms(rows: int, columns: int) -> Iterator[LinearOp]:
    weight = torch.randn(rows, columns)
    for kind in ("float32", "float16"):
        yield Dense(weight, kind)
        for density in (0.02, 0.1, 0.6):
            yield Sparse.from_mask(weight, torch.rand(rows, columns) < density, kind)
        for block in ((16, 4), (1, 2), (64, 16)):
            kept = torch.rand(-(-rows // block[0]), -(-columns // block[1])) < 0.4
            yield BlockSparse.from_blocks(weight, kept, block, kind)
    for bits in (8, 4):
        for pattern in (
            ElementPattern(torch.rand(rows, columns) < 0.2),
            BlockPattern(
                (rows, columns), (16, 4), torch.rand(-(-rows // 16), -(-columns // 4)) < 0.4
            ),
        ):
            kind = SparseQuantized if isinstance(pattern, ElementPattern) else BlockSparseQuantized
            codes = random_codes(1, len(pattern.positions), bits)[0]
            yield kind(pattern, codes, torch.rand(rows), bits)
    for bits in (8, 4, 3, 2):
        for group in (None, "matrix", 8, 32, 64):
            size = group if isinstance(group, int) else columns
            shape = (1, 1) if group == "matrix" else (rows, -(-columns // size))
            codes, scales = random_codes(rows, columns, bits), torch.rand(shape)
            yield Quantized(codes, scales, bits, group)
            if bits < 8:
                yield Quantized(codes, scales, bits, group, "mid_rise")
            zeros = torch.randint(-8, 8, shape).to(torch.int8)
            yield Quantized(codes, scales, bits, group, zeros=zeros)
    for bits in range(1, 9):
        codes = torch.randint(0, 2**bits, (rows, columns)).to(torch.uint8)
        yield Codebook(codes, torch.randn(1, 2**bits), "matrix")
        if 2 <= bits <= 4:
            yield Codebook(codes, torch.randn(rows, 2**bits), "row")
        if bits <= 4:
            yield BinaryCodes(codes, torch.rand(rows, 1, bits))
            yield BinaryCodes(codes, torch.rand(rows, -(-columns // 24), bits), 24)
    for size in (1, 4, 6):
        for count in (16, 256):
            blocks = -(-columns // size)
            codes = torch.randint(0, count, (rows, blocks)).to(torch.uint8)
            norms = torch.rand(rows)
            yield ProductCodes(codes, torch.randn(blocks, count, size), columns, norms)
            yield ProductCodes(codes, torch.randn(1, count, size), columns)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_products_with_stored_tensors(library: c.CDLL, name: str, shape: tuple[int, int]) -> None:
    found = library.tlm_kernels_named(name.encode())
    if not found:
        pytest.skip(f"this machine has no {name}")
    kernels = found.contents
    torch.manual_seed(0)
    rows, columns = shape
    x = torch.randn(columns)
    q = torch.full((-(-columns // 64) * 64,), 99, dtype=torch.int8)
    scale = c.c_float()
    ROUND(kernels.round_input)(x.data_ptr(), columns, q.data_ptr(), c.byref(scale))
    expected_q = (x / (x.abs().max() / 127)).round()
    assert torch.equal(q[:columns].float(), expected_q) and not q[columns:].any()
    given = INPUT(x.data_ptr(), q.data_ptr(), scale, columns)
    for op in forms(rows, columns):
        tensors = op.tensors()
        kernel, integer, form = described(op, tensors)
        matrix = Matrix(0, rows, columns, Form())
        c.memmove(c.byref(matrix.u), c.byref(form), c.sizeof(form))
        y = torch.zeros(-(-rows // 16) * 16)
        apply = APPLY(getattr(kernels, kernel))
        apply(c.byref(matrix), c.byref(given), y.data_ptr(), 0, rows)
        inputs = q[:columns].double() * scale.value if integer else x.double()
        with torch.no_grad():
            dense = op.dense().double()
        sizes = dense.abs() @ inputs.abs()
        error = (y[:rows].double() - dense @ inputs).abs() / (sizes + 1e-30)
        assert error.max() < 1e-6, op.spec()
