"""`terselm report`: the page of a search once more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terselm.cli.options import Debug, Json, Out
from terselm.cli.output import Output
from terselm.errors import UsageError


def report(
    results: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", help="The results.json of a search.", show_default=False),
    ],
    out: Out,
    scripts: Annotated[
        bool,
        typer.Option(
            "--scripts/--no-scripts",
            help="Without scripts the page is small and the front a still picture.",
        ),
    ] = True,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make the page of a search from its results.json.

    **Example**: terselm report lstm-search/results.json --no-scripts --out small.html
    """
    import json as decoder

    from jinja2 import TemplateError

    from terselm.cli.loading import prepare_output
    from terselm.cli.text import read_small_file
    from terselm.files import write_bytes
    from terselm.report.search_report import render_page

    prepare_output(out, {"the results file": results})
    text = read_small_file(results, "", "the results.json of a search")
    try:
        values = decoder.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"{results} is not JSON; give the results.json of a search") from None
    try:
        page = render_page(values, scripts=scripts)
    except (LookupError, TypeError, AttributeError, ValueError, TemplateError) as error:
        raise UsageError(
            f"{results}: not the results of a search of this version: {error}"
        ) from None
    write_bytes(out, page.encode())
    size = out.stat().st_size
    Output(json).result({"out": str(out), "bytes": size}, f"wrote {out}: {size:,} bytes")
