"""The uniformly quantized form: small integer codes and a scale for each row or group."""

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

BITS = (8, 4)
GROUP_MULTIPLE = 8


def code_range(bits: int) -> tuple[int, int]:
    """Return the least and the greatest code; 8 bits leave -128 out, so negation is safe."""
    return (-127, 127) if bits == 8 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@FORMS.register("quantized")
class Quantized(CodedOp):
    """W[i, j] = codes[i, j] · scales[i, group of j]: symmetric uniform quantization.

    Parameters
    ----------
    codes : Tensor
        int8 [out_features, in_features] within `code_range(bits)`. They stay as they are in
        training.
    scales : Tensor
        float [out_features, groups]. A float32 parameter that computes with its float16
        rounding, which is what the file holds.
    bits : {8, 4}
    group : int or None
        Columns that share a scale (a multiple of 8), or None for one scale a row.
    """

    kind = "quantized"

    def __init__(self, codes: Tensor, scales: Tensor, bits: int, group: int | None = None) -> None:
        super().__init__(*codes.shape)
        _check_options(bits, group)
        self.bits = bits
        self.group = group
        if tuple(scales.shape) != (self.out_features, self.groups):
            raise TerselmError(
                f"scales are {list(scales.shape)}, expected {[self.out_features, self.groups]}"
            )
        self.codes: Tensor
        self.register_buffer("codes", codes.to(torch.int8).clone())
        self.scales = nn.Parameter(scales.detach().to(torch.float32).clone())

    @property
    def groups(self) -> int:
        """Scales a row."""
        return 1 if self.group is None else -(-self.in_features // self.group)

    def _half_scales(self) -> Tensor:
        return self.scales + (self.scales.half().float() - self.scales).detach()

    def _scaled(self, codes: Tensor, scales: Tensor) -> Tensor:
        """Return codes [n, in] times scales [n, groups], float32 [n, in]."""
        if self.group is None:
            return codes.float() * scales
        columns = scales.repeat_interleave(self.group, dim=1)[:, : self.in_features]
        return codes.float() * columns

    def dense(self) -> Tensor:
        """Return codes times scales, float32 [out, in]."""
        return self._scaled(self.codes, self._half_scales())

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix, float32 [*ids.shape, in]."""
        flat = ids.reshape(-1)
        rows = self._scaled(self.codes[flat], self._half_scales()[flat])
        return rows.reshape(*ids.shape, self.in_features)

    def reround(self, weight: Tensor) -> Quantized:
        """Return the nearest codes for the scales at hand, and the best scales for those codes."""
        low, high = code_range(self.bits)
        size = self.in_features if self.group is None else self.group
        values = weight.new_zeros(self.out_features, self.groups * size)
        values[:, : self.in_features] = weight
        values = values.view(self.out_features, self.groups, size)
        scales = self._half_scales().detach().unsqueeze(-1)  # [out, groups, 1]
        inverse = torch.where(scales != 0, 1 / scales, torch.zeros_like(scales))
        codes = (values * inverse).round_().clamp_(low, high)
        norm = codes.square().sum(-1)
        fitted = (codes * values).sum(-1) / norm.clamp(min=1)  # [out, groups]
        scales = torch.where(norm > 0, fitted, scales.squeeze(-1)).half().float()
        codes = codes.reshape(self.out_features, -1)[:, : self.in_features]
        return Quantized(codes, scales, self.bits, self.group)

    def options(self) -> dict[str, Any]:
        """Return bits and group."""
        return {"bits": self.bits, "group": self.group}

    def tensors(self) -> dict[str, Tensor]:
        """Return `codes` (uint8, packed, flat) and `scales` (float16, packed, flat)."""
        return {
            "codes": pack_codes(self.codes, self.bits),
            "scales": pack_scales(self.scales.detach().half()),
        }

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Quantized:
        """Build the form; see `LinearOp.from_file`."""
        rows, columns = read_shape(spec)
        bits, group = _check_options(spec.get("bits"), spec.get("group"))
        groups = 1 if group is None else -(-columns // group)
        packed = read_tensor(
            tensors, "codes", torch.uint8, (packed_code_bytes(rows, columns, bits),)
        )
        scales = read_finite(
            tensors, "scales", torch.float16, (round_up(rows, ROW_MULTIPLE) * groups,)
        )
        codes = unpack_codes(packed, rows, columns, bits)
        if bits == 8 and (codes == -128).any():
            raise TerselmError("tensor 'codes' holds -128, which 8-bit codes leave out")
        return cls(codes, unpack_scales(scales, rows, groups), bits, group)

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


def _check_options(bits: Any, group: Any) -> tuple[int, int | None]:
    if type(bits) is not int or bits not in BITS:
        raise TerselmError(f"bits is {bits!r}, expected one of {list(BITS)}")
    if group is not None and (type(group) is not int or group <= 0 or group % GROUP_MULTIPLE):
        raise TerselmError(f"group is {group!r}, expected a multiple of {GROUP_MULTIPLE} or null")
    return bits, group
