"""In which numbers matrices are multiplied, and one matrix with many vectors in turn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def product_type(x: Tensor) -> torch.dtype:
    """Return what autocast asks for where it is on, else x's own type."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def repeated_product(weight: Tensor, rows: int) -> Callable[[Tensor], Tensor]:
    """Return the function x ↦ x Wᵀ, for a matrix that is multiplied at every step of a sequence.

    On CPU a matrix is arranged for the processor in each product: in bfloat16 that takes as long as
    the product itself where x has few rows, in float32 a fifth of it. Here it is done once. Without
    gradients.

    Parameters
    ----------
    weight : Tensor
        W [out, in].
    rows : int
        How many x will have; it changes the speed, not the result.
    """
    transposed = weight.t()
    if weight.device.type != "cpu" or not _arranges(weight.dtype):
        return lambda x: x @ transposed
    operators = torch.ops.mkldnn
    arranged = operators._reorder_linear_weight(weight.contiguous(), rows)

    def product(x: Tensor) -> Tensor:
        found: Tensor = operators._linear_pointwise(x, arranged, None, "none", [], "")
        return found

    return product


def _arranges(numbers: torch.dtype) -> bool:
    """Return whether torch has the operators, which it does not document, for this processor."""
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if not torch.backends.mkldnn.is_available():
        return False
    operators = torch.ops.mkldnn
    if not all(hasattr(operators, name) for name in names):
        return False
    if numbers == torch.bfloat16:
        return bool(operators._is_mkldnn_bf16_supported())
    return numbers == torch.float32
