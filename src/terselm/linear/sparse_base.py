"""What forms with fixed zeros share: values at the places of a pattern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from terselm.errors import TerselmError
from terselm.linear.base import Cost, LinearOp, read_finite, read_tensor, tensor_bytes
from terselm.linear.coded import CodedOp
from terselm.linear.dense import STORED_TYPES
from terselm.linear.packing import ROW_MULTIPLE, pack_scales, round_up, unpack_scales
from terselm.linear.positions import ALIGNMENT, Pattern
from terselm.linear.quantized import code_range

BITS = (8, 4)


class SparseOp(LinearOp):
    """A matrix with zeros that stay zero, also in training.

    Parameters
    ----------
    pattern : Pattern
        Which places are stored.
    device : torch.device
        Where the values are.
    """

    pattern_type: ClassVar[type[Pattern]]
    coded_type: ClassVar[type[CodedValues]]
    """The form that holds the same pattern with codes for values."""

    def __init__(self, pattern: Pattern, device: torch.device) -> None:
        super().__init__(*pattern.shape)
        self.pattern = pattern
        self.positions: Tensor
        self.register_buffer("positions", pattern.positions.to(device))

    @property
    def density(self) -> float:
        """The share of the places that are stored."""
        return len(self.positions) / (self.out_features * self.in_features)

    def values_at(self, index: Tensor | None = None) -> Tensor:
        """Return the values, float32 [n], or those that int64 `index` names; differentiable."""
        raise NotImplementedError

    def dense(self) -> Tensor:
        """Return the matrix, float32 [out, in]."""
        values = self.values_at()
        flat = values.new_zeros(self.out_features * self.in_features)
        return flat.index_put((self.positions,), values).view(self.shape)

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix, float32 [*ids.shape, in]."""
        flat = ids.reshape(-1).long()  # as the positions
        edges = torch.stack([flat, flat + 1]) * self.in_features
        first, last = torch.searchsorted(self.positions, edges)
        counts = last - first
        target = torch.repeat_interleave(torch.arange(len(flat), device=flat.device), counts)
        # Places among the values: one run of each wanted row after the other.
        offset = torch.arange(len(target), device=flat.device)
        index = offset - (counts.cumsum(0) - counts)[target] + first[target]
        values = self.values_at(index)
        place = target * self.in_features + self.positions[index] % self.in_features
        found = values.new_zeros(len(flat) * self.in_features).index_put((place,), values)
        return found.view(*ids.shape, self.in_features)

    def cost(self) -> Cost:
        """Return the cost: every stored value and position is read once a product."""
        size = tensor_bytes(self.tensors())
        return Cost(bytes=size, macs=len(self.positions), bytes_read=size)

    def parameter_count(self) -> int:
        """Return how many places are stored."""
        return len(self.positions)

    def _in_file_order(self, values: Tensor, per_unit: int) -> Tensor:
        """Return the values by slot, padded with zeros to a multiple of `per_unit`."""
        count = _padded_count(self.pattern.slot_count, per_unit)
        stored = torch.zeros(count, dtype=values.dtype)
        stored[self.pattern.slots] = values.detach().cpu()
        return stored


class FloatValues(SparseOp):
    """Values in float32 or float16.

    Parameters
    ----------
    pattern : Pattern
    values : Tensor
        float [n], a value for each place of the pattern, in its order.
    stored_type : {"float32", "float16"}
        As for the dense form.
    """

    def __init__(self, pattern: Pattern, values: Tensor, stored_type: str = "float32") -> None:
        super().__init__(pattern, values.device)
        _check_type(stored_type)
        if stored_type == "float16" and values.numel() and values.abs().max() > 65504:
            raise TerselmError("values beyond 65504 do not fit float16; store as float32")
        self.stored_type = stored_type
        self.values = nn.Parameter(values.detach().to(torch.float32).clone())

    @classmethod
    def of(cls, weight: Tensor, pattern: Pattern, stored_type: str = "float32") -> Self:
        """Return `weight` [out, in] at the places of the pattern."""
        return cls(pattern, pattern.restricted_to(weight.detach()), stored_type)

    def values_at(self, index: Tensor | None = None) -> Tensor:
        """Return the values as the file holds them; gradients pass the rounding."""
        values = self.values if index is None else self.values[index]
        if self.stored_type == "float16":
            return values + (values.half().float() - values).detach()
        return values

    def options(self) -> dict[str, Any]:
        """Return the type of the values and what the pattern needs."""
        return {"type": self.stored_type, **self.pattern.options()}

    def tensors(self) -> dict[str, Tensor]:
        """Return the pattern and `values` (in the stored type, flat, padded to 64 bytes)."""
        stored = self.values.detach().to(STORED_TYPES[self.stored_type])
        per_unit = ALIGNMENT // stored.element_size()
        return {**self.pattern.tensors(), "values": self._in_file_order(stored, per_unit)}

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build the form; see `LinearOp.from_file`."""
        stored_type = spec.get("type")
        _check_type(stored_type)
        pattern = cls.pattern_type.from_file(spec, tensors)
        kind = STORED_TYPES[str(stored_type)]
        count = _padded_count(pattern.slot_count, ALIGNMENT // kind.itemsize)
        values = read_finite(tensors, "values", kind, (count,))
        return cls(pattern, values[pattern.slots], str(stored_type))

    def settle(self) -> None:
        """Round the values to the stored type."""
        with torch.no_grad():
            self.values.copy_(self.values_at())


class CodedValues(SparseOp, CodedOp):
    """Values that are small integers times a float16 scale for each row.

    Parameters
    ----------
    pattern : Pattern
    codes : Tensor
        int8 [n] within `code_range(bits)`. They stay as they are in training.
    scales : Tensor
        float [out]. A float32 parameter that computes with its float16 rounding.
    bits : {8, 4}
    """

    def __init__(self, pattern: Pattern, codes: Tensor, scales: Tensor, bits: int) -> None:
        super().__init__(pattern, codes.device)
        _check_bits(bits)
        self.bits = bits
        self.codes: Tensor
        self.register_buffer("codes", codes.to(torch.int8).clone())
        self.scales = nn.Parameter(scales.detach().to(torch.float32).reshape(-1).clone())
        if len(self.codes) != len(self.positions) or len(self.scales) != self.out_features:
            raise TerselmError(
                f"{len(self.codes)} codes and {len(self.scales)} scales do not fit "
                f"{len(self.positions)} places in {self.out_features} rows"
            )

    def _half_scales(self) -> Tensor:
        return self.scales + (self.scales.half().float() - self.scales).detach()

    def values_at(self, index: Tensor | None = None) -> Tensor:
        """Return codes times scales."""
        codes = self.codes if index is None else self.codes[index]
        positions = self.positions if index is None else self.positions[index]
        return codes.float() * self._half_scales()[positions // self.in_features]

    def reround(self, weight: Tensor) -> Self:
        """Return the nearest codes for the scales at hand, and the best scales for those codes."""
        low, high = code_range(self.bits)
        row = self.positions // self.in_features
        values = weight.reshape(-1)[self.positions]
        scales = self._half_scales().detach()
        inverse = torch.where(scales != 0, 1 / scales, torch.zeros_like(scales))
        codes = (values * inverse[row]).round_().clamp_(low, high)
        norm = torch.zeros_like(scales).index_add_(0, row, codes.square())
        fitted = torch.zeros_like(scales).index_add_(0, row, codes * values) / norm.clamp(min=1)
        scales = torch.where(norm > 0, fitted, scales).half().float()
        return type(self)(self.pattern, codes, scales, self.bits)

    def options(self) -> dict[str, Any]:
        """Return bits and what the pattern needs."""
        return {"bits": self.bits, **self.pattern.options()}

    def tensors(self) -> dict[str, Tensor]:
        """Return the pattern, `codes` (uint8, flat) and `scales` (float16, packed, flat)."""
        codes = self._in_file_order(self.codes, ALIGNMENT * 8 // self.bits)
        if self.bits == 8:
            packed = codes.view(torch.uint8)
        else:
            nibbles = (codes + 8).to(torch.uint8)
            packed = nibbles[0::2] | (nibbles[1::2] << 4)
        scales = pack_scales(self.scales.detach().half().unsqueeze(-1))
        return {**self.pattern.tensors(), "codes": packed, "scales": scales}

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build the form; see `LinearOp.from_file`."""
        bits = spec.get("bits")
        _check_bits(bits)
        assert isinstance(bits, int)
        pattern = cls.pattern_type.from_file(spec, tensors)
        rows = pattern.shape[0]
        count = _padded_count(pattern.slot_count, ALIGNMENT * 8 // bits)
        packed = read_tensor(tensors, "codes", torch.uint8, (count * bits // 8,))
        if bits == 8:
            codes = packed.contiguous().view(torch.int8)
            if (codes == -128).any():
                raise TerselmError("tensor 'codes' holds -128, which 8-bit codes leave out")
        else:
            nibbles = torch.stack([packed & 15, packed >> 4], dim=-1).reshape(-1)
            codes = nibbles.to(torch.int8) - 8
        scales = read_finite(tensors, "scales", torch.float16, (round_up(rows, ROW_MULTIPLE),))
        return cls(pattern, codes[pattern.slots], unpack_scales(scales, rows, 1), bits)

    def settle(self) -> None:
        """Round the scales to float16."""
        with torch.no_grad():
            self.scales.copy_(self.scales.half().float())


def _padded_count(count: int, per_unit: int) -> int:
    return max(1, -(-count // per_unit)) * per_unit


def _check_type(stored_type: Any) -> None:
    if not isinstance(stored_type, str) or stored_type not in STORED_TYPES:
        raise TerselmError(f"type is {stored_type!r}, expected float32 or float16")


def _check_bits(bits: Any) -> None:
    if type(bits) is not int or bits not in BITS:
        raise TerselmError(f"bits is {bits!r}, expected one of {list(BITS)}")
