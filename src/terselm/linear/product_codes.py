"""The product-codes form: every row is a chain of centroids, one a block of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from terselm.linear.bit_planes import pack_nibbles, packed_nibble_bytes, unpack_nibbles
from terselm.linear.coded import CodedOp
from terselm.linear.packing import ROW_MULTIPLE, pack_scales, round_up, unpack_scales

CENTROIDS = (16, 256)
MAX_SIZE = 64
CHUNK_DISTANCES = 2**22
"""Distances that are held at once when the nearest centroids are looked for."""


@FORMS.register("product_codes")
class ProductCodes(CodedOp):
    """W[i, block b] = norms[i] · centroids[b, codes[i, b]]: product quantization.

    A product with a vector needs the products of all centroids with their part of the vector,
    and then one table entry for each code. Source: Jégou, Douze, Schmid 2011 (IEEE TPAMI 33).

    Parameters
    ----------
    codes : Tensor
        uint8 [out_features, blocks]. They stay as they are in training.
    centroids : Tensor
        float [blocks, 16 or 256, size], or [1, 16 or 256, size] where all blocks share them.
        A float32 parameter that computes with its float16 rounding, which is what the file
        holds. Blocks have `size` columns; what the last one has too many is left out.
    in_features : int
    norms : Tensor or None
        float [out_features]; likewise. None stands for 1.
    """

    kind = "product_codes"

    def __init__(
        self, codes: Tensor, centroids: Tensor, in_features: int, norms: Tensor | None = None
    ) -> None:
        super().__init__(codes.shape[0], in_features)
        lists, self.centroid_count, self.size = centroids.shape
        _check_options(self.centroid_count, self.size, lists == 1, norms is not None)
        if codes.shape[1] != self.blocks or lists not in (1, self.blocks):
            raise TerselmError(
                f"codes are {list(codes.shape)} and centroids {list(centroids.shape)} for "
                f"{in_features} columns"
            )
        self.codes: Tensor
        self.register_buffer("codes", codes.to(torch.uint8).clone())
        self.centroids = nn.Parameter(centroids.detach().to(torch.float32).clone())
        self.norms = None if norms is None else nn.Parameter(norms.detach().float().clone())

    @property
    def blocks(self) -> int:
        """Blocks of columns."""
        return -(-self.in_features // self.size)

    @property
    def shared(self) -> bool:
        """Whether all blocks share their centroids."""
        return len(self.centroids) == 1

    def _decoded(self, codes: Tensor, norms: Tensor | None) -> Tensor:
        """Return the rows of codes [n, blocks], float32 [n, in]."""
        index = codes.long()
        if not self.shared:
            index = index + torch.arange(self.blocks, device=codes.device) * self.centroid_count
        centroids = _half(self.centroids).view(-1, self.size)
        rows = nn.functional.embedding(index, centroids).flatten(1)[:, : self.in_features]
        return rows if norms is None else rows * norms.unsqueeze(1)

    def dense(self) -> Tensor:
        """Return the chains of centroids, float32 [out, in]."""
        return self._decoded(self.codes, None if self.norms is None else _half(self.norms))

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix, float32 [*ids.shape, in]."""
        flat = ids.reshape(-1)
        norms = None if self.norms is None else _half(self.norms)[flat]
        return self._decoded(self.codes[flat], norms).reshape(*ids.shape, self.in_features)

    def reround(self, weight: Tensor) -> ProductCodes:
        """Return the nearest codes for the centroids at hand, and the means of those codes.

        A centroid that no row takes stays as it was. Norms are fitted to the new centroids.
        """
        centroids = _half(self.centroids).detach()
        norms = None if self.norms is None else _half(self.norms).detach()
        points = blocks_of(weight if norms is None else over(weight, norms), self.size)
        valid = valid_columns(self.in_features, self.size).to(weight)
        codes = nearest_centroids(points, centroids, valid)
        importance = None if norms is None else norms.square()
        centroids = centroid_means(points, codes, centroids, valid, importance).half().float()
        op = ProductCodes(codes, centroids, self.in_features, norms)
        if norms is not None:
            op = ProductCodes(codes, centroids, self.in_features, fit_norms(weight, op, norms))
        return op

    def options(self) -> dict[str, Any]:
        """Return size, centroids, shared and norms."""
        return {
            "size": self.size,
            "centroids": self.centroid_count,
            "shared": self.shared,
            "norms": self.norms is not None,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return `codes` (uint8), `centroids` and perhaps `norms` (float16), packed, flat."""
        pack = pack_nibbles if self.centroid_count == 16 else pack_scales
        found = {
            "codes": pack(self.codes),
            "centroids": self.centroids.detach().half().reshape(-1),
        }
        if self.norms is not None:
            found["norms"] = pack_scales(self.norms.detach().half().unsqueeze(1))
        return found

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ProductCodes:
        """Build the form; see `LinearOp.from_file`."""
        rows, columns = read_shape(spec)
        count, size, shared, has_norms = _check_options(
            spec.get("centroids"), spec.get("size"), spec.get("shared"), spec.get("norms")
        )
        blocks = -(-columns // size)
        padded = round_up(rows, ROW_MULTIPLE)
        length = packed_nibble_bytes(rows, blocks) if count == 16 else padded * blocks
        packed = read_tensor(tensors, "codes", torch.uint8, (length,))
        unpack = unpack_nibbles if count == 16 else unpack_scales
        lists = 1 if shared else blocks
        centroids = read_finite(tensors, "centroids", torch.float16, (lists * count * size,))
        norms = None
        if has_norms:
            stored = read_finite(tensors, "norms", torch.float16, (padded,))
            norms = unpack_scales(stored, rows, 1).squeeze(1)
        codes = unpack(packed, rows, blocks)
        return cls(codes, centroids.view(lists, count, size), columns, norms)

    def cost(self) -> Cost:
        """Return the cost: all codes, centroids and norms are read once a product."""
        size = tensor_bytes(self.tensors())
        return Cost(bytes=size, macs=self.parameter_count(), bytes_read=size)

    def parameter_count(self) -> int:
        """Return how many codes and centroid coordinates there are."""
        return self.codes.numel() + self.centroids.numel()

    def settle(self) -> None:
        """Round centroids and norms to float16."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(parameter.half().float())


def blocks_of(matrix: Tensor, size: int) -> Tensor:
    """Return the blocks of columns, [blocks, rows, size], the last one padded with zeros."""
    rows, columns = matrix.shape
    padded = matrix.new_zeros(rows, round_up(columns, size))
    padded[:, :columns] = matrix
    return padded.view(rows, -1, size).transpose(0, 1)


def valid_columns(columns: int, size: int) -> Tensor:
    """Return float32 [blocks, size], 1 for a column and 0 for the padding of the last block."""
    return blocks_of(torch.ones(1, columns), size).squeeze(1)


def over(matrix: Tensor, norms: Tensor) -> Tensor:
    """Return rows divided by their norms; a row of norm 0 as it is."""
    return matrix / torch.where(norms == 0, 1.0, norms).unsqueeze(1)


def nearest_centroids(points: Tensor, centroids: Tensor, valid: Tensor) -> Tensor:
    """Return the code of the nearest centroid of every point.

    Parameters
    ----------
    points : Tensor
        float [blocks, rows, size].
    centroids : Tensor
        float [blocks or 1, n, size].
    valid : Tensor
        float [blocks, size], 0 for the coordinates that are padding and do not count.

    Returns
    -------
    Tensor
        uint8 [rows, blocks].
    """
    blocks, rows, _ = points.shape
    codes = torch.empty(rows, blocks, dtype=torch.uint8, device=points.device)
    for block, start, part in _chunks(points, centroids.shape[1]):
        own = centroids[block if len(centroids) > 1 else 0] * valid[block]  # [n, size]
        # |p - c|² without |p|², which decides nothing.
        distances = torch.addmm(own.square().sum(1), part, own.T, alpha=-2.0)
        codes[start : start + len(part), block] = distances.argmin(1).to(torch.uint8)
    return codes


def centroid_means(
    points: Tensor,
    codes: Tensor,
    centroids: Tensor,
    valid: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the (weighted) means of the points of every code.

    Parameters
    ----------
    points : Tensor
        float [blocks, rows, size].
    codes : Tensor
        uint8 [rows, blocks].
    centroids : Tensor
        float [blocks or 1, n, size], which stay where a code has no points.
    valid : Tensor
        float [blocks, size], 0 for the coordinates that are padding and do not count.
    weights : Tensor or None
        float [rows].
    """
    blocks, rows, size = points.shape
    lists, count, _ = centroids.shape
    index = codes.T.long()  # [blocks, rows]
    if lists > 1:
        index = index + torch.arange(blocks, device=codes.device).unsqueeze(1) * count
    index = index.reshape(-1)
    ones = points.new_ones(rows) if weights is None else weights
    counted = (valid.unsqueeze(1) * ones.view(1, -1, 1)).reshape(-1, size)
    total = points.new_zeros(lists * count, size).index_add_(0, index, counted)
    sums = points.new_zeros(lists * count, size)
    sums.index_add_(0, index, counted.mul_(points.reshape(-1, size)))
    means = sums / total.clamp(min=1e-30)
    return torch.where(total > 0, means, centroids.reshape(-1, size)).view_as(centroids)


def fit_norms(weight: Tensor, op: ProductCodes, norms: Tensor) -> Tensor:
    """Return the least-squares norm of every row for the codes and centroids of `op`.

    Parameters
    ----------
    weight : Tensor
        float32 [out, in].
    norms : Tensor
        float32 [out], which stay where the centroids of a row are all zero.

    Returns
    -------
    Tensor
        float32 [out], each exactly representable in float16.
    """
    shapes = op._decoded(op.codes, None).detach()
    square = shapes.square().sum(1)
    fitted = (weight * shapes).sum(1) / square.clamp(min=1e-30)
    return torch.where(square > 0, fitted, norms).half().float()


def _chunks(points: Tensor, count: int) -> Iterator[tuple[int, int, Tensor]]:
    """Yield block, first row and points [rows, size] of pieces that fit in memory."""
    rows = max(1, CHUNK_DISTANCES // count)
    for block in range(len(points)):
        for start in range(0, points.shape[1], rows):
            yield block, start, points[block, start : start + rows]


def _half(x: Tensor) -> Tensor:
    return x + (x.half().float() - x).detach()


def _check_options(
    centroids: Any, size: Any, shared: Any, norms: Any
) -> tuple[int, int, bool, bool]:
    if type(centroids) is not int or centroids not in CENTROIDS:
        raise TerselmError(f"centroids is {centroids!r}, expected one of {list(CENTROIDS)}")
    if type(size) is not int or not 0 < size <= MAX_SIZE:
        raise TerselmError(f"size is {size!r}, expected 1 to {MAX_SIZE}")
    for name, value in (("shared", shared), ("norms", norms)):
        if type(value) is not bool:
            raise TerselmError(f"{name} is {value!r}, expected true or false")
    return centroids, size, shared, norms
