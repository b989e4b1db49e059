"""The shape of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from terselm.cells.base import CELLS, CellSizes
from terselm.errors import UsageError
from terselm.models.output import OUTPUTS

EXPECTED = "Input should be "
"""How pydantic starts to say what would do."""
PLAIN_TYPES = frozenset({"int", "float", "str", "bool"})
PLAIN_WORDS = {
    "int_": "a whole number",
    "float_": "a number",
    "bool_": "true or false",
    "string_type": "text",
}
"""What to say for the kinds of problems that begin so."""

Size = Annotated[int, Field(ge=1, le=2**20)]
Cutoff = Annotated[int, Field(ge=1, lt=2**31)]


class ModelConfig(BaseModel):
    """The sizes and kinds that a language model is built from.

    Attributes
    ----------
    cell : str
        A registered cell: "lstm", "gru", "rnn_tanh", "rnn_relu", and with a projection
        "projected_gru", "projected_rnn_tanh", "projected_rnn_relu".
    hidden : tuple of int
        Hidden units of each layer.
    embedding : int
        Size of the word vectors.
    projection : int or None
        Size of the recurrent projection of every layer, for cells that have one.
    tied : bool
        Whether the output layer uses the embedding matrix. Where the last layer's output has
        another size than the embedding, a projection stands between the two.
    output : str
        A registered output layer: "softmax" or "adaptive".
    cutoffs : tuple of int
        Of the adaptive output: ranks by frequency at which its clusters of rarer words start.
    division : int
        Of the adaptive output: how many times smaller each cluster's inner size is.
    cluster_sizes : tuple of int or None
        Of the adaptive output: the inner sizes themselves; None: as `division` says.
    output_bias : {"float32", "float16"}
        How the file stores the bias of the output layer; see `compress.methods.half_bias`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: str = "lstm"
    hidden: Annotated[tuple[Size, ...], Field(min_length=1, max_length=64)] = (200, 200)
    embedding: Size = 200
    projection: Size | None = None
    tied: bool = False
    output: str = "softmax"
    cutoffs: Annotated[tuple[Cutoff, ...], Field(max_length=16)] = ()
    division: Annotated[int, Field(ge=1, le=1024)] = 4
    cluster_sizes: tuple[Size, ...] | None = None
    output_bias: Literal["float32", "float16"] = "float32"

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.cell not in CELLS:
            raise ValueError(f"unknown cell {self.cell!r}; known: {', '.join(CELLS)}")
        if self.projection is None and CELLS.get(self.cell).needs_projection:
            raise ValueError(f"a {self.cell} cell needs a projection; give its size")
        if self.projection is not None:
            if not CELLS.get(self.cell).has_projection:
                with_one = [kind for kind in CELLS if CELLS.get(kind).has_projection]
                raise ValueError(
                    f"a {self.cell} cell has no projection; use {' or '.join(with_one)}"
                )
            if self.projection >= min(self.hidden):
                raise ValueError(
                    f"projection {self.projection} must be smaller than "
                    f"every hidden size {list(self.hidden)}"
                )
        if self.output not in OUTPUTS:
            raise ValueError(f"unknown output {self.output!r}; known: {', '.join(OUTPUTS)}")
        OUTPUTS.get(self.output).check(self)
        return self

    @model_serializer(mode="wrap")
    def _only_what_counts(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        if not self.cutoffs:
            for name in ("output", "cutoffs", "division", "cluster_sizes"):
                values.pop(name, None)
        if self.output_bias == "float32":
            values.pop("output_bias", None)
        return values

    @property
    def layers(self) -> int:
        """The number of recurrent layers."""
        return len(self.hidden)

    @property
    def output_size(self) -> int:
        """The size of the vector that the output layer reads."""
        return self.projection or self.hidden[-1]

    @property
    def has_output_projection(self) -> bool:
        """Whether a projection stands between the last layer and a tied embedding."""
        return self.tied and self.embedding != self.output_size

    def inner_sizes(self) -> tuple[int, ...]:
        """Return the inner size of each cluster of an adaptive output."""
        if self.cluster_sizes is not None:
            return self.cluster_sizes
        numbers = range(1, len(self.cutoffs) + 1)
        return tuple(self.output_size // self.division**number for number in numbers)

    def with_hidden(self, hidden: Sequence[int]) -> ModelConfig:
        """Return the configuration with other hidden sizes and everything else as it is.

        Raises
        ------
        UsageError
            If the sizes do not go with the rest.
        """
        values = self.model_dump() | {"hidden": tuple(hidden)}
        if self.cutoffs:
            values["cluster_sizes"] = self.inner_sizes()
        return make_config(values)

    def cell_sizes(self) -> list[CellSizes]:
        """Return the sizes of each layer's cell, first layer first."""
        sizes = []
        incoming = self.embedding
        for hidden in self.hidden:
            sizes.append(CellSizes(incoming, hidden, self.projection))
            incoming = self.projection or hidden
        return sizes


def make_config(values: dict[str, Any]) -> ModelConfig:
    """Return a checked configuration.

    Raises
    ------
    UsageError
        If a value is impossible; the message names the field.
    """
    try:
        return ModelConfig(**values)
    except ValidationError as error:
        raise UsageError(first_problem(error)) from None


def first_problem(error: ValidationError) -> str:
    """Return the first problem that pydantic found, as one line.

    Where an option may be one of several types, each has a problem of its own; they make one
    line, without pydantic's names for the types.
    """
    found: dict[str, dict[str, None]] = {}
    given: dict[str, str] = {}
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"] if not _names_a_type(part))
        found.setdefault(where, {})[_plain_words(problem["type"], problem["msg"])] = None
        if isinstance(problem["input"], str | int | float) and problem["type"] != "value_error":
            given[where] = f", not {problem['input']!r}"
    root = next(iter(found)).partition(".")[0]
    # The innermost place says most: one number of a list, where a list is possible.
    inside = [where for where in found if where.partition(".")[0] == root]
    where = max(inside, key=lambda place: place.count("."))
    messages = found[where]
    first, *others = messages
    message = ", or ".join([first, *(other.removeprefix(EXPECTED) for other in others)])
    if message.startswith(EXPECTED):
        message = f"should be {message.removeprefix(EXPECTED)}{given.get(where, '')}"
    return f"{where}: {message}" if where else message


def _plain_words(kind: str, message: str) -> str:
    """Return what pydantic says, without its names for types and for what is too much."""
    if kind == "extra_forbidden":
        return "is unknown"
    for begin, expected in PLAIN_WORDS.items():
        if kind.startswith(begin):
            return EXPECTED + expected
    return message.removeprefix("Value error, ")


def _names_a_type(part: str | int) -> bool:
    """Return whether a part of pydantic's place is a member of a union: "constrained-int"."""
    return isinstance(part, str) and (not part.isidentifier() or part in PLAIN_TYPES)
