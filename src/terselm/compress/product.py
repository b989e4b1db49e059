"""The mathematics of product quantization, apart from models and files."""

from __future__ import annotations

import torch
from torch import Tensor

from terselm.compress.clustering import usable_weights
from terselm.linear.product_codes import (
    ProductCodes,
    blocks_of,
    centroid_means,
    fit_norms,
    nearest_centroids,
    over,
    valid_columns,
)

ITERATIONS = 12
SAMPLE = 2**15
"""Sub-vectors that one list of centroids is learned from, at most."""
SEED = 0


def product_codes(
    weight: Tensor,
    size: int,
    centroids: int,
    *,
    norms: bool = False,
    shared: bool = False,
    row_weights: Tensor | None = None,
    column_weights: Tensor | None = None,
) -> ProductCodes:
    """Cut the rows into blocks of columns and cluster the blocks.

    k-means from points drawn with k-means++ (Arthur & Vassilvitskii 2007), with a fixed seed.

    Parameters
    ----------
    weight : Tensor
        float [out, in], finite.
    size : int
        Columns of a block.
    centroids : {16, 256}
        Centroids a block.
    norms : bool
        Cluster rows of length 1 and store their lengths.
    shared : bool
        One list of centroids for all blocks of columns.
    row_weights, column_weights : Tensor or None
        Importance of rows [out] and of columns [in], not negative.
    """
    rows, columns = weight.shape
    matrix = weight.float()
    lengths = None
    importance = torch.ones(rows) if row_weights is None else usable_weights(row_weights).float()
    if norms:
        lengths = matrix.norm(dim=1).half().float()
        matrix = over(matrix, lengths)
    # Distances that count a column more are plain ones once the column is stretched.
    stretch = torch.ones(columns)
    if column_weights is not None:
        stretch = usable_weights(column_weights).float().sqrt()
    points = blocks_of(matrix * stretch, size)  # [blocks, rows, size]
    counted = importance if lengths is None else importance * lengths.square().clamp(min=1e-12)
    valid = valid_columns(columns, size)
    found = cluster(points, centroids, valid, counted, shared)
    codes = nearest_centroids(points, found, valid)
    shrink = 1.0 / blocks_of(stretch.unsqueeze(0), size).clamp(min=1e-6)  # [blocks, 1, size]
    if shared:
        # Blocks stretch differently: the shared centroids are fitted again, unstretched.
        found = centroid_means(blocks_of(matrix, size), codes, found, valid, counted)
    else:
        found = found * shrink
    op = ProductCodes(codes, found.half().float(), columns, lengths)
    if lengths is None:
        return op
    return ProductCodes(codes, op.centroids, columns, fit_norms(weight.float(), op, lengths))


def cluster(points: Tensor, count: int, valid: Tensor, weights: Tensor, shared: bool) -> Tensor:
    """Return centroids of least weighted squared distance.

    Parameters
    ----------
    points : Tensor
        float [blocks, rows, size].
    count : int
        Centroids a list.
    valid : Tensor
        float [blocks, size], 0 for the coordinates that are padding.
    weights : Tensor
        float [rows], positive.
    shared : bool
        One list for all blocks.

    Returns
    -------
    Tensor
        float32 [blocks or 1, count, size].
    """
    generator = torch.Generator().manual_seed(SEED)
    rows, size = points.shape[1:]
    if shared:
        # Of one list for all blocks only whole blocks may decide, if there are any.
        whole = max(1, int(valid.all(dim=1).sum()))
        points, weights = points[:whole].reshape(1, -1, size), weights.repeat(whole)
        valid, rows = valid[:1], points.shape[1]
    if rows > SAMPLE:
        sample = torch.randperm(rows, generator=generator)[:SAMPLE]
        points, weights = points[:, sample], weights[sample]
    points = points.contiguous()
    found = spread_start(points, count, weights, generator)
    for _ in range(ITERATIONS):
        codes = nearest_centroids(points, found, valid)
        found = centroid_means(points, codes, found, valid, weights)
    return found


def spread_start(points: Tensor, count: int, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Return points drawn by weight and squared distance to those drawn before (k-means++).

    Where all distances are zero, the points drawn last are zeros that nothing needs.
    """
    blocks, rows, size = points.shape
    found = points.new_zeros(blocks, count, size)
    distance = points.new_full((blocks, rows), float("inf"))
    chances = weights.expand(blocks, rows)
    every = torch.arange(blocks)
    for number in range(count):
        if number:
            chances = distance * weights
        alive = chances.sum(1) > 0
        if not alive.any():
            break
        # The search among running sums draws one point of each block.
        running = chances.double().cumsum(1)
        mark = torch.rand(blocks, 1, generator=generator, dtype=torch.float64) * running[:, -1:]
        place = torch.searchsorted(running, mark, right=True).squeeze(1).clamp(max=rows - 1)
        drawn = points[every, place]  # [blocks, size]
        found[:, number] = torch.where(alive.unsqueeze(1), drawn, found[:, number])
        gap = (points - drawn.unsqueeze(1)).square().sum(2)
        distance = torch.minimum(distance, gap)
    return found
