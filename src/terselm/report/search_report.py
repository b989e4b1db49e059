"""The report of a search: a page that opens offline, a table and pictures."""

from __future__ import annotations

import base64
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from terselm.files import write_bytes
from terselm.report import search_reading as reading
from terselm.report.search_figure import front_figure
from terselm.report.search_page import page_values
from terselm.report.search_plots import front_picture, parts_picture, sensitivity_picture
from terselm.report.search_tables import markdown_table
from terselm.report.templating import template_environment

PICTURES: dict[str, Callable[[Mapping[str, Any], Path], None]] = {
    "front": front_picture,
    "parts": parts_picture,
    "sensitivity": sensitivity_picture,
}


def write_report(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the page, the table and the pictures of a search into a folder.

    Parameters
    ----------
    results : mapping
        The results document of a search.
    folder : Path
        Must exist. Files of the same names are replaced, each whole or not at all.

    Returns
    -------
    list of Path
        What was written: report.html, table.md and front, parts and sensitivity as .svg and
        .png.

    Raises
    ------
    TerselmError
        If a file cannot be written.
    """
    written = [folder / "report.html", folder / "table.md"]
    write_bytes(written[0], render_page(results).encode())
    write_bytes(written[1], markdown_table(results).encode())
    for name, draw in PICTURES.items():
        for suffix in (".svg", ".png"):
            written.append(folder / f"{name}{suffix}")
            draw(results, written[-1])
    return written


def render_page(results: Mapping[str, Any], *, scripts: bool = True) -> str:
    """Return the page as HTML that asks for nothing outside itself.

    Every string of the results is escaped, also where it stands inside a script.

    Parameters
    ----------
    results : mapping
    scripts : bool
        Without them the page is a tenth as large, the front is a still picture, and nothing is
        sorted or found.
    """
    environment = template_environment(autoescape=True)
    environment.filters |= {
        "recipe": reading.recipe_line,
        "seconds": reading.seconds,
        "sortable": _sortable,
    }
    return environment.get_template("search.html.j2").render(
        page_values(results),
        results=results,
        figure=_inside_script(front_figure(results).to_json() or "{}") if scripts else "",
        plotly=get_plotlyjs() if scripts else "",
        picture=_picture_of_front(results),
    )


def _inside_script(document: str) -> str:
    """Return JSON that no string in it can break out of: "<" only stands in strings there."""
    json.loads(document)
    return document.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _picture_of_front(results: Mapping[str, Any]) -> str:
    """Return the still picture as a data address, for readers without scripts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "front.svg"
        front_picture(results, path)
        return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _sortable(value: float) -> str:
    return repr(value) if math.isfinite(value) else "1e308"
