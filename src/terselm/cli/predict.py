"""`terselm predict`: the next word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terselm.cli.options import Debug, Engine, Json, ModelOrSmallest, check_engine
from terselm.cli.output import Output
from terselm.errors import UsageError

Text = Annotated[
    str | None,
    typer.Argument(metavar="TEXT", help="What was said so far.", show_default=False),
]
Count = Annotated[int, typer.Option("-k", "--count", help="How many words.", min=1)]
Prefix = Annotated[
    str, typer.Option("--prefix", help="Only words that begin so.", show_default=False)
]


def predict(
    model: ModelOrSmallest,
    text: Text = None,
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
    from terselm.zoo import PREFIX, model_path

    output = Output(json)
    if text is None and (model.startswith(PREFIX) or model.endswith(".safetensors")):
        raise UsageError(f"no TEXT after {model}; say what comes before the word to predict")
    path = model_path(PREFIX if text is None else model)
    text = model if text is None else text
    predictions, unknown = (
        _by_library(path, text, k, prefix)
        if check_engine(engine)
        else _by_torch(path, text, k, prefix)
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


def _by_library(path: Path, text: str, k: int, prefix: str) -> tuple[list[tuple[str, float]], int]:
    from terselm.runtime.model import Model

    model = Model(path)
    choices = len(model) - (model.unknown_token is not None)
    if k > choices:
        raise UsageError(f"k is {k}; it must be from 1 to {choices}, the tokens to choose from")
    unknown = int((model.tokenize(text) == model.unknown_token).sum())
    return model.predict(text, k, prefix=prefix), unknown


def _by_torch(path: Path, text: str, k: int, prefix: str) -> tuple[list[tuple[str, float]], int]:
    from terselm.cli.loading import open_model
    from terselm.evaluate.predict import count_unknown
    from terselm.evaluate.predict import predict as most_likely

    model = open_model(path, "cpu")
    words = model.vocabulary.words
    left_out = [word for word in words if not word.startswith(prefix)]
    fitting = sum(word.startswith(prefix) for word in words if word != "<unk>")
    predictions = most_likely(model, text, min(k, fitting) if prefix else k, exclude=left_out)
    return predictions, count_unknown(model, text)
