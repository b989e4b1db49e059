"""The shape of a language model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from terselm.cells.base import CELLS, CellSizes
from terselm.errors import UsageError

Size = Annotated[int, Field(ge=1, le=2**20)]


class ModelConfig(BaseModel):
    """The sizes and kinds that a language model is built from.

    Attributes
    ----------
    cell : str
        A registered cell: "lstm", "gru", "rnn_tanh", "rnn_relu".
    hidden : tuple of int
        Hidden units of each layer.
    embedding : int
        Size of the word vectors.
    projection : int or None
        Size of the recurrent projection of every layer, for cells that have one.
    tied : bool
        Whether the output layer uses the embedding matrix. It needs the size of the last
        layer's output to be that of the embedding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: str = "lstm"
    hidden: Annotated[tuple[Size, ...], Field(min_length=1, max_length=64)] = (200, 200)
    embedding: Size = 200
    projection: Size | None = None
    tied: bool = False

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.cell not in CELLS:
            raise ValueError(f"unknown cell {self.cell!r}; known: {', '.join(CELLS)}")
        if self.projection is not None:
            if not CELLS.get(self.cell).has_projection:
                raise ValueError(f"a {self.cell} cell has no projection; use lstm")
            if self.projection >= min(self.hidden):
                raise ValueError(
                    f"projection {self.projection} must be smaller than "
                    f"every hidden size {list(self.hidden)}"
                )
        if self.tied and self.embedding != self.output_size:
            raise ValueError(
                f"a tied output needs an embedding of the size of the last layer's output: "
                f"embedding {self.embedding}, output {self.output_size}"
            )
        return self

    @property
    def layers(self) -> int:
        """The number of recurrent layers."""
        return len(self.hidden)

    @property
    def output_size(self) -> int:
        """The size of the vector that the output layer reads."""
        return self.projection or self.hidden[-1]

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
    """Return the first problem that pydantic found, as one line."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
