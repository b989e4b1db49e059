"""`terselm export`: a model for a place without files."""

from __future__ import annotations

from typing import Annotated

import typer

from terselm.cli.options import Debug, Json, ModelFile, Out
from terselm.cli.output import Output

Target = Annotated[
    str,
    typer.Option("--to", metavar="TARGET", help="c-array: C source.", show_default=False),
]
Name = Annotated[
    str | None,
    typer.Option("--name", help="What names in the result begin with; from --out if left out."),
]


def export(
    model: ModelFile,
    to: Target,
    out: Out,
    name: Name = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a model for microcontrollers: C source that needs no files and no malloc.

    RAM is what the C library takes with pointers of 64 bits; with 32 it is less.

    **Example**: terselm export small.safetensors --to c-array --out model.h
    """
    from terselm.cli.loading import prepare_output
    from terselm.exporters.base import export_model
    from terselm.report.tables import export_table

    prepare_output(out, {"the model": model})
    exported = export_model(model, out, target=to, name=name)
    needs = exported.needs
    values = {
        "model": str(model),
        "out": str(out),
        "name": exported.name,
        "bytes": out.stat().st_size,
        "flash": exported.flash,
        "ram": {
            "model": needs.model,
            "opening": needs.opening,
            "context": needs.context,
            "state": needs.state,
            "total": needs.total,
        },
    }
    Output(json).result(values, export_table(exported), f"{out}: {exported.name}_open() opens it")
