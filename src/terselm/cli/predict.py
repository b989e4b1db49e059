"""`terselm predict`: the next word."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from terselm.cli.options import Debug, Engine, Json, ModelFile, check_engine
from terselm.cli.output import Output
from terselm.errors import UsageError

Text = Annotated[str, typer.Argument(metavar="TEXT", help="What was said so far.")]
Count = Annotated[int, typer.Option("-k", "--count", help="How many words.", min=1)]
Prefix = Annotated[
    str, typer.Option("--prefix", help="Only words that begin so.", show_default=False)
]


def predict(
    model: ModelFile,
    text: Text,
    k: Count = 5,
    prefix: Prefix = "",
    engine: Engine = "native",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict the next word after TEXT.

    **Example**: terselm predict small.safetensors "the company said" -k 5
    """
    from terselm.report.tables import prediction_table

    output = Output(json)
    predictions, unknown = (
        _by_library(model, text, k, prefix)
        if check_engine(engine)
        else _by_torch(model, text, k, prefix)
    )
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


def _by_library(path: Any, text: str, k: int, prefix: str) -> tuple[list[tuple[str, float]], int]:
    from terselm.runtime.model import Model

    model = Model(path)
    choices = len(model) - (model.unknown_token is not None)
    if k > choices:
        raise UsageError(f"k is {k}; it must be from 1 to {choices}, the tokens to choose from")
    unknown = int((model.tokenize(text) == model.unknown_token).sum())
    return model.predict(text, k, prefix=prefix), unknown


def _by_torch(path: Any, text: str, k: int, prefix: str) -> tuple[list[tuple[str, float]], int]:
    from terselm.cli.loading import open_model
    from terselm.evaluate.predict import count_unknown
    from terselm.evaluate.predict import predict as most_likely

    model = open_model(path, "cpu")
    words = model.vocabulary.words
    left_out = [word for word in words if not word.startswith(prefix)]
    fitting = sum(word.startswith(prefix) for word in words if word != "<unk>")
    predictions = most_likely(model, text, min(k, fitting) if prefix else k, exclude=left_out)
    return predictions, count_unknown(model, text)
