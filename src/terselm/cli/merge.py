"""`terselm merge`: several models in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terselm.cli.options import Debug, Json, Out
from terselm.cli.output import Output
from terselm.errors import UsageError
from terselm.zoo import model_path

Models = Annotated[
    list[Path],
    typer.Argument(
        metavar="MODEL",
        help="Two or more model files, or zoo:NAME, of the same vocabulary and kind of cell.",
        show_default=False,
        parser=model_path,
    ),
]
Text = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR|FILE|NAME",
        help="Text, as for train: its validation part fits the weights and gives perplexities.",
        show_default=False,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="W,W,...",
        help="How much each counts. Left out: what fits validation text best, or without --data "
        "all the same.",
        show_default=False,
    ),
]


def merge(
    models: Models,
    out: Out,
    data: Text = None,
    weights: Weights = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make one model that predicts as several do together, as large as they together.

    Its scores are the weighted sum of theirs. Models that were trained apart, or are of different
    sizes, gain most; compressed ones stay compressed.

    **Example**: terselm merge a.safetensors b.safetensors --data ptb --out both.safetensors
    """
    from terselm.cli.loading import open_model, prepare_output, split_of
    from terselm.evaluate.mixture import fit_weights
    from terselm.evaluate.perplexity import perplexity
    from terselm.models.checkpoint import save
    from terselm.models.merging import merge as merge_models
    from terselm.report.tables import merging_table

    output = Output(json)
    for path in models:
        prepare_output(out, {"one of the models": path}, data)
    given = [1 / len(models)] * len(models) if weights is None else _numbers(weights)
    sources = [open_model(path, "cpu") for path in models]
    ids = None if data is None else split_of(data, "valid", sources[0].vocabulary).ids
    # Before the fit, so that what does not go together is refused before the work.
    merged = merge_models(sources, given)
    if weights is None and ids is not None:
        output.remark("fitting weights on validation text")
        given = fit_weights(sources, ids)
        merged = merge_models(sources, given)
    found = [None if ids is None else perplexity(model, ids) for model in (*sources, merged)]
    if found[-1] is not None:
        merged.provenance["perplexity"] = {"valid": found[-1]}
    size = save(merged, out)
    rows = [
        {"model": str(path), "bytes": path.stat().st_size, "weight": weight, "perplexity": each}
        for path, weight, each in zip(models, given, found, strict=False)
    ]
    values = {"out": str(out), "bytes": size, "perplexity": found[-1], "models": rows}
    whole = {"model": str(out), "bytes": size, "weight": None, "perplexity": found[-1]}
    output.result(values, merging_table([*rows, whole]), f"wrote {out}")


def _numbers(text: str) -> list[float]:
    """Return the numbers of --weights."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--weights is {text!r}; give numbers with commas between them: 0.5,0.4"
        ) from None
