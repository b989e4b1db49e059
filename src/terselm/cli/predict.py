"""`terselm predict`: the next word."""

from __future__ import annotations

from typing import Annotated

import typer

from terselm.cli.options import Debug, Json, ModelFile
from terselm.cli.output import Output

Text = Annotated[str, typer.Argument(metavar="TEXT", help="What was said so far.")]
Count = Annotated[int, typer.Option("-k", "--count", help="How many words.", min=1)]


def predict(
    model: ModelFile, text: Text, k: Count = 5, json: Json = False, debug: Debug = False
) -> None:
    """Predict the next word after TEXT.

    **Example**: terselm predict small.safetensors "the company said" -k 5
    """
    from terselm.cli.loading import open_model
    from terselm.evaluate.predict import count_unknown
    from terselm.evaluate.predict import predict as most_likely
    from terselm.report.tables import prediction_table

    output = Output(json)
    language_model = open_model(model, "cpu")
    predictions = most_likely(language_model, text, k=k)
    unknown = count_unknown(language_model, text)
    if unknown:
        output.remark(f"{unknown} of the words are not in the vocabulary")
    values = {
        "text": text,
        "unknown": unknown,
        "predictions": [
            {"word": word, "probability": probability} for word, probability in predictions
        ],
    }
    output.result(values, prediction_table(predictions))
