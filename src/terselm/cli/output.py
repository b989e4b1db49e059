"""Where a verb's results and remarks go."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from terselm.report.table import Table


class Output:
    """Prints a result once, as JSON or for people; remarks and progress go to stderr.

    Parameters
    ----------
    as_json : bool
        Whether stdout gets one JSON object and nothing else.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._remarks = Console(stderr=True, highlight=False)

    def remark(self, text: str) -> None:
        """Print a line on stderr."""
        self._remarks.print(text, markup=False, soft_wrap=True)

    def result(self, values: Mapping[str, Any], *renderables: RenderableType) -> None:
        """Print the result: `values` as JSON, or the renderables."""
        if self.as_json:
            text = json.dumps(_finite(values), ensure_ascii=False, allow_nan=False)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
            return
        console = Console(highlight=False)
        if not console.is_terminal:
            # A pipe has no width; tables must not be cut there.
            console = Console(highlight=False, width=160)
        for renderable in renderables:
            if isinstance(renderable, str):
                console.print(renderable, markup=False, soft_wrap=True)
            else:
                if isinstance(renderable, Table):
                    # A narrow terminal breaks lines; a number that is cut looks right and is not.
                    console.width = max(console.width, renderable.least_width)
                console.print(renderable)

    @contextmanager
    def progress(self, title: str) -> Iterator[Any]:
        """Show a bar on stderr while the block runs; nothing where stderr is no terminal.

        Yields
        ------
        callable
            `(done, total)`, to be called as the work goes on.
        """
        bar = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._remarks,
            transient=True,
            disable=not self._remarks.is_terminal,
        )
        with bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def _finite(value: Any) -> Any:
    """Return the same with null for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
