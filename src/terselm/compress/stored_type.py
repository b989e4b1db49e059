"""The type that what is made from a matrix is stored in."""

from __future__ import annotations

from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.linear.sparse_base import FloatValues


def stored_type_of(leaf: LinearOp) -> str:
    """Return the type of a leaf's numbers in the file, float32 where they are codes.

    Factors, cores and values that stay are stored as their matrix was, or a model of float16
    would grow.
    """
    return leaf.stored_type if isinstance(leaf, Dense | FloatValues) else "float32"
