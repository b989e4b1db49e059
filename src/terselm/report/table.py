"""A table, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

Alignment = Literal["left", "right"]
SPACE = 2
"""Characters between columns: the box's and the padding."""


@dataclass(frozen=True)
class Column:
    """The head of a column.

    Attributes
    ----------
    title : str
        May be of several lines.
    align : {"left", "right"}
        Numbers stand right.
    wrap : bool
        Whether its texts may go on in a second line where the terminal is narrow.
    """

    title: str
    align: Alignment = "right"
    wrap: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of finished text. `rich` prints it as it is; `markdown()` is for files.

    Attributes
    ----------
    columns : sequence of Column
    rows : sequence of sequence of str
        Each as long as `columns`.
    total : sequence of str
        A last row that sums up, set off; empty for none.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    total: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        for row in [*self.rows, *([self.total] if self.total else [])]:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} in a table of {len(self.columns)} columns")

    def __rich__(self) -> RichTable:
        table = RichTable(
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_edge=False,
            show_footer=bool(self.total),
        )
        for number, column in enumerate(self.columns):
            footer = Text(self.total[number]) if self.total else ""
            table.add_column(
                Text(column.title),
                justify=column.align,
                footer=footer,
                no_wrap=not column.wrap,
                overflow="fold",
            )
        for row in self.rows:
            # Text, not markup: a name may hold brackets.
            table.add_row(*(Text(cell) for cell in row))
        return table

    @property
    def least_width(self) -> int:
        """The width below which `rich` would cut digits or letters off, in characters."""
        lines = [*self.rows, *([self.total] if self.total else [])]
        width = 0
        for number, column in enumerate(self.columns):
            texts = [column.title, *(line[number] for line in lines)]
            pieces = [text.split() if column.wrap else text.split("\n") for text in texts]
            width += SPACE + max(len(piece) for each in pieces for piece in [*each, ""])
        return width

    def markdown(self) -> str:
        """Return the table in GitHub's Markdown, columns padded, no newline at the end."""
        rows = [*self.rows, *([self.total] if self.total else [])]
        cells = [[_escaped(cell) for cell in row] for row in rows]
        titles = [_escaped(column.title.replace("\n", " ")) for column in self.columns]
        widths = [
            max(3, *(len(line[number]) for line in [titles, *cells]))
            for number in range(len(titles))
        ]
        rules = [
            "-" * (width - 1) + ":" if column.align == "right" else "-" * width
            for column, width in zip(self.columns, widths, strict=True)
        ]
        return "\n".join(self._line(line, widths) for line in [titles, rules, *cells])

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = (
            cell.rjust(width) if column.align == "right" else cell.ljust(width)
            for cell, width, column in zip(cells, widths, self.columns, strict=True)
        )
        return "| " + " | ".join(padded) + " |"


def _escaped(cell: str) -> str:
    # Leading spaces, which show what belongs to what, are lost in Markdown unless they are hard.
    inner = cell.lstrip(" ")
    return "\N{NO-BREAK SPACE}" * (len(cell) - len(inner)) + inner.replace("|", "\\|")
