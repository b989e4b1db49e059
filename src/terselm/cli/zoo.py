"""`terselm zoo`: the models that come along."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terselm.cli.options import Debug, Json
from terselm.cli.output import Output

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `terselm zoo list` has it.")]
File = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Where to write the model; its card goes beside it. [NAME.safetensors]",
        show_default=False,
    ),
]


def build_app() -> typer.Typer:
    """Return the `zoo` group of verbs."""
    app = typer.Typer(help="Models that come along.", no_args_is_help=True)
    app.command("list")(list_models)
    app.command("get")(get)
    app.callback()(_group)
    return app


def _group() -> None:
    """Models that come along: everywhere a MODEL is asked for, zoo:NAME is one of them."""


def list_models(json: Json = False, debug: Debug = False) -> None:
    """List the models, the smallest first.

    **Example**: terselm zoo list
    """
    from terselm.report.tables import zoo_table
    from terselm.zoo import entries

    found = [entry.as_dict() for entry in entries()]
    Output(json).result({"models": found}, zoo_table(found))


def get(name: Name, out: File = None, json: Json = False, debug: Debug = False) -> None:
    """Copy a model and its card.

    **Example**: terselm zoo get ptb-1mb --out small.safetensors
    """
    from terselm.cli.loading import prepare_output
    from terselm.zoo import copy_model, find

    entry = find(name)
    target = out or Path(f"{name}.safetensors")
    prepare_output(target, {"the model of the zoo": entry.model})
    written = [str(path) for path in copy_model(entry, target)]
    Output(json).result({"name": name, "written": written}, f"wrote {', '.join(written)}")
