"""The options that mean the same in every verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terselm.errors import UsageError
from terselm.zoo import model_path


def _note_debug(context: typer.Context, value: bool) -> bool:
    root = context.find_root()
    if isinstance(root.obj, dict):
        root.obj["debug"] = value
    return value


ModelFile = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A terselm model file, or zoo:NAME.",
        show_default=False,
        parser=model_path,
    ),
]
ModelOrUsual = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="A terselm model file, or zoo:NAME; the smallest word model of the zoo if left out.",
        show_default=False,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DIR|FILE|NAME",
        help="Text: a folder with train/valid/test files, one text file (split 80/10/10), "
        "or a name: ptb, tinyshakespeare, python-docs.",
        show_default=False,
    ),
]
OptionalData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR|FILE|NAME",
        help="Text, as for train. Needed for perplexities and for recover steps.",
        show_default=False,
    ),
]
Out = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="Where to write.", show_default=False)
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Seed = Annotated[
    int, typer.Option("--seed", help="Seed of everything random.", min=0, max=2**32 - 1)
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show a traceback on errors.", callback=_note_debug, is_eager=True
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine", help="native: the C library, what ships. torch: PyTorch, activations in float."
    ),
]
Threads = Annotated[
    int, typer.Option("--threads", help="Threads of the C library.", min=1, max=256)
]
Kernels = Annotated[
    str | None,
    typer.Option(
        "--kernels",
        help="avx512vnni, avx2, neondot, neon or portable; the fastest if left out.",
        show_default=False,
    ),
]


def check_engine(engine: str) -> bool:
    """Return whether it is the C library.

    Raises
    ------
    UsageError
        If the name is neither native nor torch.
    """
    if engine not in ("native", "torch"):
        raise UsageError(f"--engine is {engine!r}; use native or torch")
    return engine == "native"
