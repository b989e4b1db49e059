"""The codebook form: every number is one of a few values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from terselm.errors import TerselmError
from terselm.linear.base import (
    FORMS,
    Cost,
    read_finite,
    read_shape,
    read_tensor,
    tensor_bytes,
)
from terselm.linear.bit_planes import pack_planes, packed_plane_bytes, unpack_planes
from terselm.linear.coded import CodedOp
from terselm.linear.packing import ROW_MULTIPLE, pack_scales, round_up, unpack_scales

MATRIX_BITS = range(1, 9)
ROW_BITS = range(2, 5)
SCOPES = ("matrix", "row")
CHUNK = 1 << 20
"""Numbers of a list that are added up in float64 at a time."""


@FORMS.register("codebook")
class Codebook(CodedOp):
    """W[i, j] = values[codes[i, j]], with one list of values for the matrix or one a row.

    Source: Han, Mao, Dally 2016 (arXiv 1510.00149), section 3.

    Parameters
    ----------
    codes : Tensor
        uint8 [out_features, in_features], each below 2^bits. They stay as they are in training.
    values : Tensor
        float [1, 2^bits] for the matrix, or [out_features, 2^bits]. A float32 parameter that
        computes with its float16 rounding, which is what the file holds.
    scope : {"matrix", "row"}
        What shares a list of values: with 1 to 8 bits the matrix, with 2 to 4 bits a row.
    """

    kind = "codebook"

    def __init__(self, codes: Tensor, values: Tensor, scope: str) -> None:
        super().__init__(*codes.shape)
        self.bits = max(1, int(values.shape[-1]).bit_length() - 1)
        self.scope = scope
        _check_options(self.bits, scope)
        lists = self.out_features if scope == "row" else 1
        if tuple(values.shape) != (lists, 2**self.bits):
            raise TerselmError(f"values are {list(values.shape)}, expected {[lists, 2**self.bits]}")
        self.codes: Tensor
        self.register_buffer("codes", codes.to(torch.uint8).clone())
        self.values = nn.Parameter(values.detach().to(torch.float32).clone())

    def _half_values(self) -> Tensor:
        return self.values + (self.values.half().float() - self.values).detach()

    def dense(self) -> Tensor:
        """Return the values that the codes stand for, float32 [out, in]."""
        return look_up(self._half_values(), self.codes)

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix, float32 [*ids.shape, in]."""
        flat = ids.reshape(-1)
        values = self._half_values()
        rows = look_up(values[flat] if self.scope == "row" else values, self.codes[flat])
        return rows.reshape(*ids.shape, self.in_features)

    def reround(self, weight: Tensor) -> Codebook:
        """Return the nearest codes for the values at hand, and the means of those codes.

        A value that no number takes stays as it was.
        """
        values = self._half_values().detach().sort(dim=-1).values
        flat = weight.reshape(len(values), -1)  # [lists, numbers]
        codes = nearest(flat, values)  # int64
        values = _means(flat, codes, values)
        return Codebook(codes.view_as(weight), values.half().float(), self.scope)

    def options(self) -> dict[str, Any]:
        """Return bits and scope."""
        return {"bits": self.bits, "scope": self.scope}

    def tensors(self) -> dict[str, Tensor]:
        """Return `codes` (uint8, bit planes, flat) and `values` (float16, flat)."""
        values = self.values.detach().half()
        return {
            "codes": pack_planes(self.codes, self.bits),
            "values": pack_scales(values) if self.scope == "row" else values.reshape(-1),
        }

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Codebook:
        """Build the form; see `LinearOp.from_file`."""
        rows, columns = read_shape(spec)
        bits, scope = spec.get("bits"), spec.get("scope")
        bits, scope = _check_options(bits, scope)
        packed = read_tensor(
            tensors, "codes", torch.uint8, (packed_plane_bytes(rows, columns, bits),)
        )
        lists = round_up(rows, ROW_MULTIPLE) if scope == "row" else 1
        stored = read_finite(tensors, "values", torch.float16, (lists * 2**bits,))
        values = unpack_scales(stored, rows, 2**bits) if scope == "row" else stored.view(1, -1)
        return cls(unpack_planes(packed, rows, columns, bits), values, scope)

    def cost(self) -> Cost:
        """Return the cost: all codes and values are read once a product."""
        size = tensor_bytes(self.tensors())
        return Cost(bytes=size, macs=self.codes.numel(), bytes_read=size)

    def parameter_count(self) -> int:
        """Return out_features * in_features."""
        return self.codes.numel()

    def settle(self) -> None:
        """Round the values to float16."""
        with torch.no_grad():
            self.values.copy_(self.values.half().float())


def look_up(values: Tensor, codes: Tensor) -> Tensor:
    """Return the value of each code.

    Parameters
    ----------
    values : Tensor
        float [1, n], one list for all rows, or [rows, n].
    codes : Tensor
        uint8 [rows, columns], each below n.

    Returns
    -------
    Tensor
        [rows, columns], differentiable in the values.
    """
    index = codes.long()
    if len(values) == 1:
        return values[0].index_select(0, index.reshape(-1)).view(codes.shape)
    return values.gather(1, index)


def nearest(numbers: Tensor, values: Tensor) -> Tensor:
    """Return the index of the value nearest to each number, row by row.

    Parameters
    ----------
    numbers : Tensor
        float [rows, columns].
    values : Tensor
        float [rows, n], ascending.

    Returns
    -------
    Tensor
        int64 [rows, columns].
    """
    middles = ((values[:, :-1] + values[:, 1:]) / 2).contiguous()
    return torch.searchsorted(middles, numbers.contiguous())


def _means(numbers: Tensor, codes: Tensor, values: Tensor) -> Tensor:
    """Return the mean of the numbers of each code, or its value where it has none.

    Parameters
    ----------
    numbers, codes : Tensor
        float32 and int64, [lists, numbers].
    values : Tensor
        float32 [lists, n].
    """
    counts = torch.zeros_like(values, dtype=torch.float64)
    sums = torch.zeros_like(counts)
    # In float32 a count would end at 2^24, and a long sum would lose what is small beside it.
    for part, code in zip(numbers.split(CHUNK, 1), codes.split(CHUNK, 1), strict=True):
        wide = part.double()
        counts.scatter_add_(1, code, torch.ones_like(wide))
        sums.scatter_add_(1, code, wide)
    return torch.where(counts > 0, (sums / counts.clamp(min=1)).float(), values)


def _check_options(bits: Any, scope: Any) -> tuple[int, str]:
    if scope not in SCOPES:
        raise TerselmError(f"scope is {scope!r}, expected one of {list(SCOPES)}")
    allowed = ROW_BITS if scope == "row" else MATRIX_BITS
    if type(bits) is not int or bits not in allowed:
        raise TerselmError(
            f"bits is {bits!r}, expected {allowed[0]} to {allowed[-1]} for one list a {scope}"
        )
    return bits, scope
