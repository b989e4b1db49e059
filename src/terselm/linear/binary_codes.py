"""The binary-codes form: sums of a few scaled matrices of signs."""

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
from terselm.linear.codebook import look_up, nearest
from terselm.linear.coded import CodedOp
from terselm.linear.packing import ROW_MULTIPLE, pack_scales, round_up, unpack_scales

BITS = range(1, 5)
GROUP_MULTIPLE = 8
GROUP_RANGE = (16, 128)


@FORMS.register("binary_codes")
class BinaryCodes(CodedOp):
    """W[i, j] = Σ_k scales[i, group of j, k] · b_k[i, j], with signs b_k of -1 and +1.

    Source: Xu et al. 2018 (arXiv 1802.00150), section 3.

    Parameters
    ----------
    codes : Tensor
        uint8 [out_features, in_features]; bit k is set where b_k is +1. They stay as they are
        in training.
    scales : Tensor
        float [out_features, groups, bits], with 1 to 4 bits. A float32 parameter that computes
        with its float16 rounding, which is what the file holds.
    group : int or None
        Columns that share scales (a multiple of 8 from 16 to 128), or None for the row.
    """

    kind = "binary_codes"

    def __init__(self, codes: Tensor, scales: Tensor, group: int | None = None) -> None:
        super().__init__(*codes.shape)
        self.bits = int(scales.shape[-1])
        self.group = group
        _check_options(self.bits, group)
        if tuple(scales.shape) != (self.out_features, self.groups, self.bits):
            raise TerselmError(
                f"scales are {list(scales.shape)}, "
                f"expected {[self.out_features, self.groups, self.bits]}"
            )
        self.codes: Tensor
        self.register_buffer("codes", codes.to(torch.uint8).clone())
        self.scales = nn.Parameter(scales.detach().to(torch.float32).clone())

    @property
    def groups(self) -> int:
        """Groups of columns a row."""
        return 1 if self.group is None else -(-self.in_features // self.group)

    def _half_scales(self) -> Tensor:
        return self.scales + (self.scales.half().float() - self.scales).detach()

    def _decoded(self, codes: Tensor, scales: Tensor) -> Tensor:
        """Return the numbers of codes [n, in] with scales [n, groups, bits], [n, in]."""
        levels = levels_of(scales.flatten(0, 1))  # [n * groups, 2^bits]
        return joined(look_up(levels, split(codes, self.group)), self.in_features)

    def dense(self) -> Tensor:
        """Return the scaled sum of signs, float32 [out, in]."""
        return self._decoded(self.codes, self._half_scales())

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix, float32 [*ids.shape, in]."""
        flat = ids.reshape(-1)
        rows = self._decoded(self.codes[flat], self._half_scales()[flat])
        return rows.reshape(*ids.shape, self.in_features)

    def reround(self, weight: Tensor) -> BinaryCodes:
        """Return the nearest codes for the scales at hand, and the best scales for those codes."""
        values = split(weight, self.group)
        counted = split(torch.ones_like(weight), self.group)  # 0 in the padding
        scales = self._half_scales().detach().flatten(0, 1)  # [n, bits]
        codes = nearest_codes(values, scales)
        counts = values.new_zeros(len(values), 2**self.bits).scatter_add_(1, codes, counted)
        sums = torch.zeros_like(counts).scatter_add_(1, codes, values)
        fitted = fit_scales(counts, sums, self.bits).half().float()
        return BinaryCodes(joined(codes, self.in_features), fitted.view_as(self.scales), self.group)

    def options(self) -> dict[str, Any]:
        """Return bits and group."""
        return {"bits": self.bits, "group": self.group}

    def tensors(self) -> dict[str, Tensor]:
        """Return `codes` (uint8, bit planes, flat) and `scales` (float16, packed, flat)."""
        return {
            "codes": pack_planes(self.codes, self.bits),
            "scales": pack_scales(self.scales.detach().half().flatten(1)),
        }

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BinaryCodes:
        """Build the form; see `LinearOp.from_file`."""
        rows, columns = read_shape(spec)
        bits, group = _check_options(spec.get("bits"), spec.get("group"))
        groups = 1 if group is None else -(-columns // group)
        packed = read_tensor(
            tensors, "codes", torch.uint8, (packed_plane_bytes(rows, columns, bits),)
        )
        size = round_up(rows, ROW_MULTIPLE) * groups * bits
        stored = read_finite(tensors, "scales", torch.float16, (size,))
        scales = unpack_scales(stored, rows, groups * bits).view(rows, groups, bits)
        return cls(unpack_planes(packed, rows, columns, bits), scales, group)

    def cost(self) -> Cost:
        """Return the cost: all codes and scales are read once a product."""
        size = tensor_bytes(self.tensors())
        return Cost(bytes=size, macs=self.codes.numel(), bytes_read=size)

    def parameter_count(self) -> int:
        """Return out_features * in_features."""
        return self.codes.numel()

    def settle(self) -> None:
        """Round the scales to float16."""
        with torch.no_grad():
            self.scales.copy_(self.scales.half().float())


def sign_table(bits: int) -> Tensor:
    """Return the signs that each code stands for, float32 [2^bits, bits]."""
    codes = torch.arange(2**bits).unsqueeze(1)  # [2^bits, 1]
    return ((codes >> torch.arange(bits)) & 1) * 2.0 - 1.0


def levels_of(scales: Tensor) -> Tensor:
    """Return the number that each code stands for, [n, 2^bits], for scales [n, bits]."""
    return scales @ sign_table(scales.shape[-1]).to(scales).T


def nearest_codes(values: Tensor, scales: Tensor) -> Tensor:
    """Return the code whose level is nearest to each number.

    The levels are sorted and searched, as arXiv 1802.00150 does with a tree (its section 3.2).

    Parameters
    ----------
    values : Tensor
        float [n, size].
    scales : Tensor
        float [n, bits].

    Returns
    -------
    Tensor
        int64 [n, size].
    """
    levels, order = levels_of(scales).sort(dim=-1)
    return order.gather(1, nearest(values, levels))


def fit_scales(counts: Tensor, sums: Tensor, bits: int) -> Tensor:
    """Return the least-squares scales for given codes.

    Parameters
    ----------
    counts, sums : Tensor
        float [n, 2^bits], how many numbers have each code (or their total weight), and the
        (weighted) sum of these numbers.

    Returns
    -------
    Tensor
        float64 [n, bits]. Where planes agree everywhere, so that only the sum of their scales
        is determined, that sum is shared; where there are no numbers, zeros.
    """
    signs = sign_table(bits).to(counts.device).double()  # [2^bits, bits]
    outer = (signs.unsqueeze(2) * signs.unsqueeze(1)).flatten(1)  # [2^bits, bits * bits]
    normal = (counts.double() @ outer).view(-1, bits, bits)
    right = sums.double() @ signs  # [n, bits]
    total = counts.double().sum(1).clamp(min=1e-30).view(-1, 1, 1)
    # The ridge only decides what the numbers leave open.
    normal = normal / total + 1e-9 * torch.eye(bits, dtype=torch.float64, device=counts.device)
    return _solve(normal, right / total.squeeze(-1))


def split(matrix: Tensor, group: int | None) -> Tensor:
    """Return the groups of columns as rows, [rows * groups, size], the last one zero-padded."""
    if group is None:
        return matrix
    rows, columns = matrix.shape
    padded = matrix.new_zeros(rows, round_up(columns, group))
    padded[:, :columns] = matrix
    return padded.view(-1, group)


def joined(values: Tensor, columns: int) -> Tensor:
    """Return the matrix with `columns` columns whose groups `split` made into rows."""
    size = values.shape[1]
    if size == columns:
        return values
    return values.reshape(-1, round_up(columns, size))[:, :columns]


def _solve(normal: Tensor, right: Tensor) -> Tensor:
    """Solve small positive-definite systems, [n, k, k] and [n, k], by Cholesky elimination.

    Written out over the whole batch, since LAPACK is called once for each system.
    """
    size = right.shape[1]
    matrix, right = normal.clone(), right.clone()
    for k in range(size):
        for row in range(k + 1, size):
            factor = matrix[:, row, k] / matrix[:, k, k]
            matrix[:, row] -= factor.unsqueeze(1) * matrix[:, k]
            right[:, row] -= factor * right[:, k]
    for k in reversed(range(size)):
        right[:, k] -= (matrix[:, k, k + 1 :] * right[:, k + 1 :]).sum(1)
        right[:, k] /= matrix[:, k, k]
    return right


def _check_options(bits: Any, group: Any) -> tuple[int, int | None]:
    if type(bits) is not int or bits not in BITS:
        raise TerselmError(f"bits is {bits!r}, expected {BITS[0]} to {BITS[-1]}")
    low, high = GROUP_RANGE
    if group is not None and (
        type(group) is not int or not low <= group <= high or group % GROUP_MULTIPLE
    ):
        raise TerselmError(
            f"group is {group!r}, expected a multiple of {GROUP_MULTIPLE} "
            f"from {low} to {high}, or null"
        )
    return bits, group
