"""What every stored form of a matrix can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from terselm.errors import TerselmError
from terselm.registry import Registry

FORMS: Registry[type[LinearOp]] = Registry("stored form", "terselm.linear")


@dataclass(frozen=True)
class Cost:
    """What one matrix costs.

    Attributes
    ----------
    bytes : int
        Bytes of its tensors in the file, fillers not counted.
    macs : int
        Multiply-accumulate operations of one product with one vector.
    bytes_read : int
        Bytes of weights read for one product with one vector.
    """

    bytes: int
    macs: int
    bytes_read: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.bytes + other.bytes, self.macs + other.macs, self.bytes_read + other.bytes_read
        )


class LinearOp(nn.Module):
    """A matrix W [out_features, in_features] in one stored form; computes x Wᵀ, without bias.

    A cell or an output layer holds these and never asks how they are stored. A form that is
    made of others (low rank) holds them as children, so forms compose.
    """

    kind: ClassVar[str]

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.out_features = out_features
        self.in_features = in_features

    @property
    def shape(self) -> tuple[int, int]:
        """(out_features, in_features)."""
        return self.out_features, self.in_features

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ, float32 [..., out_features], for x float32 [..., in_features]."""
        return nn.functional.linear(x, self.dense())

    def dense(self) -> Tensor:
        """Return the matrix this form stands for, float32 [out, in], differentiable."""
        raise NotImplementedError

    def rows(self, ids: Tensor) -> Tensor:
        """Return the rows `ids` of the matrix, float32 [*ids.shape, in_features].

        Parameters
        ----------
        ids : Tensor
            int64, any shape, each in [0, out_features).
        """
        raise NotImplementedError

    def children_by_name(self) -> dict[str, LinearOp]:
        """Return the forms this one is made of; empty for a leaf."""
        return {}

    def with_children(self, children: Mapping[str, LinearOp]) -> LinearOp:
        """Return a form of this kind made of other children; a leaf returns itself."""
        return self

    def map_leaves(self, fn: Callable[[LinearOp, str], LinearOp], name: str = "") -> LinearOp:
        """Return this form with every leaf replaced by `fn(leaf, its name)`.

        This is how methods compose: quantizing a low-rank form quantizes both factors.
        """
        children = self.children_by_name()
        if not children:
            return fn(self, name)
        return self.with_children(
            {key: child.map_leaves(fn, f"{name}.{key}") for key, child in children.items()}
        )

    def leaves(self, name: str = "") -> dict[str, LinearOp]:
        """Return the leaves by name."""
        children = self.children_by_name()
        if not children:
            return {name: self}
        found: dict[str, LinearOp] = {}
        for key, child in children.items():
            found |= child.leaves(f"{name}.{key}" if name else key)
        return found

    def options(self) -> dict[str, Any]:
        """Return what the spec needs beyond kind, shape and children; JSON."""
        return {}

    def spec(self) -> dict[str, Any]:
        """Return the description that goes into the file, as JSON values."""
        spec: dict[str, Any] = {"kind": self.kind, "shape": list(self.shape), **self.options()}
        for key, child in self.children_by_name().items():
            spec[key] = child.spec()
        return spec

    def tensors(self) -> dict[str, Tensor]:
        """Return exactly the tensors that the file stores, packed, by name."""
        found: dict[str, Tensor] = {}
        for key, child in self.children_by_name().items():
            for name, tensor in child.tensors().items():
                found[f"{key}.{name}"] = tensor
        return found

    @classmethod
    def from_file(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LinearOp:
        """Build the form from its spec and its stored tensors.

        Raises
        ------
        TerselmError
            If a field or a tensor is missing, or its type, size or content is impossible.
        """
        raise NotImplementedError

    def cost(self) -> Cost:
        """Return the cost of the stored form."""
        children = self.children_by_name().values()
        return sum((child.cost() for child in children), Cost(0, 0, 0))

    def parameter_count(self) -> int:
        """Return how many numbers the form stores (codes and factors; not scales)."""
        return sum(child.parameter_count() for child in self.children_by_name().values())

    def settle(self) -> None:
        """Round trained parameters to what the file can hold; called when training ends."""
        for child in self.children_by_name().values():
            child.settle()

    def training_state(self) -> dict[str, Any]:
        """Return what training changes in a leaf beside its parameters, for a checkpoint.

        Tensors, numbers, strings and containers of these.
        """
        return {}

    def kept_state(self) -> dict[str, Any]:
        """Return of `training_state` what is kept with the best weights, to go back to them.

        Nothing, where what is evaluated follows from the weights alone.
        """
        return {}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `training_state` returned, when the parameters are back already.

        Raises
        ------
        ValueError
            If the state is that of a leaf with other options.
        """

    def extra_repr(self) -> str:
        """Return the shape, for printing."""
        return f"{self.out_features}x{self.in_features}"


def op_from_file(spec: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> LinearOp:
    """Build the form that `spec` describes from the tensors whose names start with `name`.

    Raises
    ------
    TerselmError
        If the spec or a tensor is not as the form needs it; the message starts with `name`.
    """
    if not isinstance(spec, Mapping):
        raise TerselmError(f"{name}: its description is not a JSON object")
    kind = spec.get("kind")
    if not isinstance(kind, str) or kind not in FORMS:
        raise TerselmError(f"{name}: unknown stored form {kind!r}; a newer terselm may know it")
    prefix = f"{name}."
    own = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    try:
        return FORMS.get(kind).from_file(spec, own)
    except TerselmError as error:
        raise TerselmError(f"{name}: {error}") from None


def read_shape(spec: Mapping[str, Any]) -> tuple[int, int]:
    """Return the shape in a spec, checked."""
    shape = spec.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(type(size) is int and 0 < size < 2**31 for size in shape)
    ):
        raise TerselmError(f"shape is {shape!r}, expected two positive integers")
    return shape[0], shape[1]


def read_tensor(
    tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> Tensor:
    """Return the stored tensor `name`, after checking its type and shape."""
    if name not in tensors:
        raise TerselmError(f"tensor {name!r} is missing")
    tensor = tensors[name]
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        raise TerselmError(
            f"tensor {name!r} is {tensor.dtype} {list(tensor.shape)}, "
            f"expected {dtype} {list(shape)}"
        )
    return tensor


def read_finite(
    tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> Tensor:
    """Return the stored float tensor `name`, after checking that it has no NaN or infinity."""
    tensor = read_tensor(tensors, name, dtype, shape)
    if not torch.isfinite(tensor).all():
        raise TerselmError(f"tensor {name!r} holds NaN or infinite values")
    return tensor


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the bytes of all the tensors together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
