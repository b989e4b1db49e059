"""`terselm bench`: how long a model file takes here."""

from __future__ import annotations

from typing import Annotated

import typer

from terselm.cli.options import Debug, Json, Kernels, ModelFile, Threads
from terselm.cli.output import Output

Steps = Annotated[int, typer.Option("--steps", help="Tokens timed one by one.", min=10)]
Batch = Annotated[
    int,
    typer.Option(
        "--batch",
        help="States stepped together, for tokens a second (tlm-bench takes 32 unless told).",
        min=1,
        max=4096,
    ),
]


def bench(
    model: ModelFile,
    steps: Steps = 1000,
    batch: Batch = 64,
    threads: Threads = 1,
    kernels: Kernels = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Time MODEL with the C library on this machine.

    A token is read and the log-probabilities of all words are computed.

    **Example**: terselm bench small.safetensors
    """
    from terselm.report.tables import timing_table
    from terselm.runtime.timing import measure

    output = Output(json)
    timing = measure(model, steps=steps, batch=batch, threads=threads, kernels=kernels)
    output.result({"model": str(model), **timing.as_dict()}, timing_table(timing))
