"""`terselm verify`: whether a file is whole and still says what another one says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terselm.cli.options import Debug, Json, ModelFile
from terselm.cli.output import Output
from terselm.zoo import model_path

Against = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="MODEL",
        help="The model it was made from: a file, or zoo:NAME. Goes with --data.",
        parser=model_path,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR|FILE|NAME",
        help="Text, as for train; its validation part is what both are compared on. "
        "Goes with --against.",
        show_default=False,
    ),
]


def verify(
    model: ModelFile,
    against: Against = None,
    data: Data = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a model file: checksum, description, every tensor.

    With --against and --data, also how often both models agree on the next word and how far
    their distributions are apart (Kullback-Leibler divergence in nats).

    **Example**: terselm verify small.safetensors --against lstm.safetensors --data ptb
    """
    from terselm.cli.loading import open_model, split_of
    from terselm.errors import UsageError
    from terselm.evaluate.agreement import agreement

    output = Output(json)
    if (against is None) != (data is None):
        raise UsageError("--against and --data go together: agreement is measured on text")
    language_model = open_model(model, "cpu")
    values: dict[str, object] = {"model": str(model), "bytes": model.stat().st_size, "whole": True}
    lines = [f"{model}: whole, checksum and every tensor as described"]
    if against is not None and data is not None:
        reference = open_model(against, "cpu")
        tokens = split_of(data, "valid", language_model.vocabulary)
        with output.progress("agreement") as advance:
            measured = agreement(language_model, reference, tokens, progress=advance)
        values |= measured.as_dict()
        lines.append(
            f"agrees with {against} on the first word {measured.top1:.1%}, "
            f"divergence {measured.kl_divergence:.4f} nats over {measured.tokens:,} tokens"
        )
    output.result(values, *lines)
