"""`terselm reproduce`: the tables of the paper and of the frontier, by one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from terselm.cli.options import Debug, Device, Json
from terselm.cli.output import Output
from terselm.errors import TerselmError, UsageError

if TYPE_CHECKING:
    from terselm.experiments.schedule import Plan
    from terselm.experiments.table import Row


def reproduce(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help="paper, frontier, shakespeare, smoke, or a folder of experiment files.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Folder for models and results.", show_default=False
        ),
    ],
    rows: Annotated[
        str | None,
        typer.Option(
            "--rows",
            help="Only these rows of the table, with commas: lstm-200,gru-650.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            help="Only the runs with these seeds of training, with commas: 0,2.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[str, typer.Option("--data", metavar="DIR|FILE|NAME", help="Text.")] = "ptb",
    device: Device = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", help="Runs at once. [what fits memory and cores]", min=1, show_default=False
        ),
    ] = None,
    table_only: Annotated[
        bool, typer.Option("--table-only", help="Run nothing; make the table of what is there.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train, compress and measure the rows of a table, and write it.

    What is done is not done again unless its experiment file changes; what was interrupted goes
    on; several commands may share DIR. In DIR: table.md, table.json, plot.png, plot.svg; results/,
    models/ and logs/ with a file a run.

    **Example**: terselm reproduce paper --rows lstm-200,lstm-200-8-bits --out paper
    """
    from terselm.cli.loading import choose_device, prepare_folder
    from terselm.experiments.schedule import (
        Plan,
        jobs_that_fit,
        run_all,
        stored_results,
        texts_of,
    )
    from terselm.experiments.suite import chosen_rows, chosen_seeds, find_suite, load_suite

    output = Output(json)
    found = load_suite(find_suite(suite))
    names = chosen_rows(found, [name.strip() for name in rows.split(",")] if rows else [])
    where = choose_device(device)
    prepare_folder(out)
    at_once = jobs or jobs_that_fit(found, names, where)
    some = chosen_seeds(found, names, _numbers(seeds)) if seeds else None
    texts = {} if table_only else texts_of(found, data)
    plan = Plan(found, names, out, data, where, at_once, some, texts)
    failed: dict[str, str] = {}
    if not table_only:
        failed = run_all(plan, output.remark).failed
    # The table has every row of the suite, also those that were run another time.
    whole = replace(plan, rows=list(found), seeds=None)
    _write(whole, stored_results(whole), output)
    if failed:
        listed = "; ".join(f"{label}: {why}" for label, why in failed.items())
        raise TerselmError(f"{len(failed)} runs failed: {listed}")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds: expected numbers with commas, not {text!r}") from None


def _write(plan: Plan, results: dict[str, dict[str, object]], output: Output) -> None:
    import json as encoder

    from terselm.experiments.picture import draw
    from terselm.experiments.table import frontier_markdown, markdown, rows_of
    from terselm.files import atomic_write

    rows = rows_of(plan.suite, plan.rows, results)
    frontier = [row for row in rows if row.budget is not None]
    text = frontier_markdown(frontier) if frontier else markdown(rows)
    values = {"suite": [_as_dict(row) for row in rows]}
    for name, content in {
        "table.md": text,
        "table.json": encoder.dumps(values, indent=1, allow_nan=False) + "\n",
    }.items():
        with atomic_write(plan.folder / name) as file:
            file.write(content.encode())
    pictures = draw(rows, plan.folder / "plot", "Perplexity on test text against size")
    written = [plan.folder / "table.md", *pictures]
    output.result(values, text, f"wrote {', '.join(map(str, written))}")


def _as_dict(row: Row) -> dict[str, object]:
    return {
        "name": row.name,
        "title": row.title,
        "verdict": row.verdict(),
        "bytes": row.bytes,
        "valid_perplexity": row.perplexity("valid"),
        "test_perplexity": row.perplexity("test"),
        "test_spread": row.spread("test"),
        "microseconds_per_token": row.microseconds,
        "seeds": [run["seed"] for run in row.runs],
        "published": None if row.published is None else row.published.model_dump(),
    }
