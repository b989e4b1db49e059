"""`terselm data`: get public corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terselm.cli.options import Debug, Json
from terselm.cli.output import Output

Name = Annotated[str, typer.Argument(metavar="NAME", help="ptb or tinyshakespeare.")]
Folder = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder; the user's cache by default.")
]


def build_app() -> typer.Typer:
    """Return the `data` group of verbs."""
    app = typer.Typer(help="Get public corpora.", no_args_is_help=True)
    app.command("get")(get)
    app.callback()(_group)
    return app


def _group() -> None:
    """Get public corpora."""


def get(name: Name, out: Folder = None, json: Json = False, debug: Debug = False) -> None:
    """Download a corpus, check its checksums, resume where a download broke off.

    PTB is free for research use only.

    **Example**: terselm data get ptb
    """
    from terselm.text.download import get_dataset

    output = Output(json)
    with output.progress(f"get {name}") as advance:
        folder = get_dataset(name, out, progress=advance)
    output.result({"name": name, "folder": str(folder)}, f"{name} is in {folder}")
