"""`terselm evaluate`: perplexity and accuracy of a model on text."""

from __future__ import annotations

from typing import Annotated

import typer

from terselm.cli.options import Data, Debug, Device, Json, ModelFile
from terselm.cli.output import Output

Split = Annotated[str, typer.Option("--split", help="valid or test.")]


def evaluate(
    model: ModelFile,
    data: Data,
    split: Split = "valid",
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure perplexity, bits a character and accuracy.

    One stream with the state carried over; every token is a target once. The 95 % interval is
    that of the mean over the text.

    **Example**: terselm evaluate lstm.safetensors --data ptb --split test
    """
    from terselm.cli.loading import open_model, split_of
    from terselm.evaluate.perplexity import evaluate as measure
    from terselm.report.tables import evaluation_table

    output = Output(json)
    language_model = open_model(model, device)
    tokens = split_of(data, split, language_model.vocabulary)
    with output.progress(f"evaluate {split}") as advance:
        evaluation = measure(language_model, tokens, progress=advance)
    values = {"model": str(model), "split": split, **evaluation.as_dict()}
    output.result(values, evaluation_table(evaluation, split))
