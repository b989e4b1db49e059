"""The uniformly quantized form: small integer codes and a scale for each row or group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

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
from terselm.linear.coded import CodedOp
from terselm.linear.packing import (
    ROW_MULTIPLE,
    pack_codes,
    pack_scales,
    packed_code_bytes,
    round_up,
    unpack_codes,
    unpack_scales,
)

BITS = (8, 4, 3, 2)
GROUP_MULTIPLE = 8
LARGEST_GROUP = 2**16

Group = int | Literal["matrix"] | None
Levels = Literal["mid_tread", "mid_rise"]
LEVELS: tuple[Levels, ...] = ("mid_tread", "mid_rise")


def code_range(bits: int) -> tuple[int, int]:
    """Return the least and the greatest code; 8 bits leave -128 out, so negation is safe."""
    return (-127, 127) if bits == 8 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def group_size(columns: int, group: Group) -> int:
    """Return how many columns share a scale."""
    return group if isinstance(group, int) else columns


@FORMS.register("quantized")
class Quantized(CodedOp):
    """W[i, j] = scale[i, group of j] · level(codes[i, j]): uniform quantization.

    The level of a code c is an integer, so products with 8-bit inputs are integer products:

    * c, with levels "mid_tread" (zero is a level);
    * 2 c + 1, with levels "mid_rise" (as many levels above zero as below, and none at zero);
    * c - zero, with a zero point for each group (asymmetric; mid-tread only).

    Parameters
    ----------
    codes : Tensor
        int8 [out_features, in_features] within `code_range(bits)`. They stay as they are in
        training.
    scales : Tensor
        float [out_features, groups], or [1, 1] where one serves the whole matrix. A float32
        parameter that computes with its float16 rounding, which is what the file holds.
    bits : {8, 4, 3, 2}
    group : int, "matrix" or None
        Columns that share a scale (a multiple of 8), or None for one scale a row, or "matrix"
        for a single one.
    levels : {"mid_tread", "mid_rise"}
        Which levels the codes stand for; "mid_rise" takes up to 4 bits.
    zeros : Tensor or None
        int8, the shape of `scales`; None for symmetric quantization.
    """

    kind = "quantized"

    def __init__(
        self,
        codes: Tensor,
        scales: Tensor,
        bits: int,
        group: Group = None,
        levels: Levels = "mid_tread",
        zeros: Tensor | None = None,
    ) -> None:
        super().__init__(*codes.shape)
        _check_options(bits, group, levels, zeros is not None)
        self.bits = bits
        self.group = group
        self.levels = levels
        expected = _scale_shape(self.out_features, self.in_features, group)
        for name, tensor in (("scales", scales), ("zeros", zeros)):
            if tensor is not None and tuple(tensor.shape) != expected:
                raise TerselmError(f"{name} are {list(tensor.shape)}, expected {list(expected)}")
        self.codes: Tensor
        # By rows, as from a file: other layouts give products that differ in the last bit.
        codes = codes.to(torch.int8).clone(memory_format=torch.contiguous_format)
        self.register_buffer("codes", codes)
        self.zeros: Tensor | None
        self.register_buffer("zeros", None if zeros is None else zeros.to(torch.int8).clone())
        self.scales = nn.Parameter(scales.detach().to(torch.float32).clone())

    @property
    def groups(self) -> int:
        """Scales a row."""
        return -(-self.in_features // group_size(self.in_features, self.group))

    def _half_scales(self) -> Tensor:
        return self.scales + (self.scales.half().float() - self.scales).detach()

    def _of_rows(self, per_row: Tensor, ids: Tensor | None) -> Tensor:
        """Return the rows `ids` of scales or zeros, for codes [n, in]: [n or 1, in or 1]."""
        if ids is not None and self.group != "matrix":
            per_row = per_row[ids]
        if not isinstance(self.group, int):
            return per_row
        return per_row.repeat_interleave(self.group, dim=1)[:, : self.in_features]

    def _matrix(self, ids: Tensor | None = None) -> Tensor:
        """Return the rows `ids` (default all) of the matrix, float32 [n, in]."""
        levels = (self.codes if ids is None else self.codes[ids]).float()
        if self.zeros is not None:
            levels = levels - self._of_rows(self.zeros.float(), ids)
        elif self.levels == "mid_rise":
            levels = 2 * levels + 1
        return levels * self._of_rows(self._half_scales(), ids)

    def dense(self) -> Tensor:
        """Return levels times scales, float32 [out, in]."""
        return self._matrix()

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix, float32 [*ids.shape, in]."""
        return self._matrix(ids.reshape(-1)).reshape(*ids.shape, self.in_features)

    def reround(self, weight: Tensor) -> Quantized:
        """Return the nearest codes for the scales at hand, and the best scales for those codes.

        Zero points stay.
        """
        low, high = code_range(self.bits)
        scales = self._half_scales().detach()
        inverse = torch.where(scales != 0, 1 / scales, torch.zeros_like(scales))
        codes = weight * self._of_rows(inverse, None)  # [out, in]
        zeros = None if self.zeros is None else self._of_rows(self.zeros.float(), None)
        if zeros is not None:
            codes += zeros
        elif self.levels == "mid_rise":
            codes.sub_(1).mul_(0.5)
        codes.round_().clamp_(low, high)
        if zeros is not None:
            levels = codes - zeros
        else:
            levels = 2 * codes + 1 if self.levels == "mid_rise" else codes
        norm = self._sum(levels.square())
        fitted = self._sum(levels * weight) / norm.clamp(min=1)
        scales = torch.where(norm > 0, fitted, scales).half().float()
        return Quantized(codes, scales, self.bits, self.group, self.levels, self.zeros)

    def _sum(self, values: Tensor) -> Tensor:
        """Return the sums of [out, in] over all that share a scale, in the shape of `scales`."""
        if self.group == "matrix":
            return values.sum().reshape(1, 1)
        size = group_size(self.in_features, self.group)
        padded = nn.functional.pad(values, (0, self.groups * size - self.in_features))
        return padded.view(self.out_features, self.groups, size).sum(-1)

    def options(self) -> dict[str, Any]:
        """Return bits and group, and levels and zero points where they are not the usual."""
        options: dict[str, Any] = {"bits": self.bits, "group": self.group}
        if self.levels != "mid_tread":
            options["levels"] = self.levels
        if self.zeros is not None:
            options["zero_points"] = True
        return options

    def tensors(self) -> dict[str, Tensor]:
        """Return `codes` (uint8), `scales` (float16) and any `zeros` (int8), packed, flat."""
        tensors = {
            "codes": pack_codes(self.codes, self.bits),
            "scales": self._packed(self.scales.detach().half()),
        }
        if self.zeros is not None:
            tensors["zeros"] = self._packed(self.zeros)
        return tensors

    def _packed(self, per_row: Tensor) -> Tensor:
        return per_row.reshape(1) if self.group == "matrix" else pack_scales(per_row)

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Quantized:
        """Build the form; see `LinearOp.from_file`."""
        rows, columns = read_shape(spec)
        bits: Any = spec.get("bits")
        group: Any = spec.get("group")
        levels: Any = spec.get("levels", "mid_tread")
        has_zeros: Any = spec.get("zero_points", False)
        _check_options(bits, group, levels, has_zeros)
        _, groups = _scale_shape(rows, columns, group)
        count = 1 if group == "matrix" else round_up(rows, ROW_MULTIPLE) * groups
        packed = read_tensor(
            tensors, "codes", torch.uint8, (packed_code_bytes(rows, columns, bits),)
        )
        scales = _unpacked(read_finite(tensors, "scales", torch.float16, (count,)), rows, groups)
        zeros = None
        if has_zeros:
            zeros = _unpacked(read_tensor(tensors, "zeros", torch.int8, (count,)), rows, groups)
        codes = unpack_codes(packed, rows, columns, bits)
        if bits == 8 and (codes == -128).any():
            raise TerselmError("tensor 'codes' holds -128, which 8-bit codes leave out")
        return cls(codes, scales, bits, group, levels, zeros)

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


def _scale_shape(rows: int, columns: int, group: Group) -> tuple[int, int]:
    return (1, 1) if group == "matrix" else (rows, -(-columns // group_size(columns, group)))


def _unpacked(packed: Tensor, rows: int, groups: int) -> Tensor:
    """Return [rows, groups], or [1, 1] of the only number."""
    return packed.reshape(1, 1) if len(packed) == 1 else unpack_scales(packed, rows, groups)


def _check_options(bits: Any, group: Any, levels: Any, zero_points: Any) -> None:
    if type(bits) is not int or bits not in BITS:
        raise TerselmError(f"bits is {bits!r}, expected one of {list(BITS)}")
    if group not in (None, "matrix") and (
        type(group) is not int or not 0 < group <= LARGEST_GROUP or group % GROUP_MULTIPLE
    ):
        raise TerselmError(
            f"group is {group!r}, expected a multiple of {GROUP_MULTIPLE} "
            f"up to {LARGEST_GROUP}, 'matrix' or null"
        )
    if levels not in LEVELS:
        raise TerselmError(f"levels is {levels!r}, expected 'mid_tread' or 'mid_rise'")
    if type(zero_points) is not bool:
        raise TerselmError(f"zero_points is {zero_points!r}, expected true or false")
    if levels == "mid_rise" and (zero_points or bits == 8):
        raise TerselmError("levels is 'mid_rise', which needs symmetric codes of at most 4 bits")
