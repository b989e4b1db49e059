"""`terselm predict`: the next word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terselm.cli.model_argument import check_is_text, chosen_model
from terselm.cli.options import Debug, Engine, Json, ModelOrUsual, check_engine
from terselm.cli.output import Output
from terselm.errors import TerselmError, UsageError

Found = tuple[list[tuple[str, float]], int, str]
"""Words and their probabilities, how many of the text are unknown, what the tokens are."""

Text = Annotated[
    str | None,
    typer.Argument(metavar="TEXT", help="What was said so far; always needed.", show_default=False),
]
Count = Annotated[int, typer.Option("-k", "--count", help="How many words.", min=1)]
Prefix = Annotated[
    str,
    typer.Option(
        "--prefix",
        help="Only words that begin so; in small letters where none does.",
        show_default=False,
    ),
]


def predict(
    model: ModelOrUsual = None,
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
    from terselm.report.tables import prediction_table, unit_of

    output = Output(json)
    predict_with = _by_library if check_engine(engine) else _by_torch
    said = model if text is None else text
    if said is None:
        raise UsageError("no TEXT; say what comes before the word to predict")
    if text is None:
        check_is_text(said)
    path = chosen_model(None if text is None else model, output.remark)
    predictions, unknown, tokens = predict_with(path, said, k, prefix)
    if not predictions and prefix != prefix.lower():
        predictions, unknown, tokens = predict_with(path, said, k, prefix.lower())
    unit = unit_of(tokens)
    if not predictions:
        raise TerselmError(f"no {unit} begins with {prefix!r}; try a shorter --prefix")
    if unknown:
        verb = "is" if unknown == 1 else "are"
        output.remark(f"{unknown} of the {unit}s {verb} not in the vocabulary")
    values = {
        "model": str(path),
        "text": said,
        "unknown": unknown,
        "predictions": [
            {"word": word, "probability": probability} for word, probability in predictions
        ],
    }
    output.result(values, prediction_table(predictions, unit))


def _by_library(path: Path, text: str, k: int, prefix: str) -> Found:
    from terselm.runtime.model import Model

    model = Model(path)
    choices = len(model) - (model.unknown_token is not None)
    if k > choices:
        raise UsageError(f"k is {k}; it must be from 1 to {choices}, the tokens to choose from")
    unknown = int((model.tokenize(text) == model.unknown_token).sum())
    tokens = model.describe().vocabulary_kind
    return model.predict(text, k, prefix=prefix), unknown, tokens


def _by_torch(path: Path, text: str, k: int, prefix: str) -> Found:
    from terselm.cli.loading import open_model
    from terselm.evaluate.predict import count_unknown
    from terselm.evaluate.predict import predict as most_likely

    model = open_model(path, "cpu")
    words = model.vocabulary.words
    left_out = [word for word in words if not word.startswith(prefix)]
    fitting = sum(word.startswith(prefix) for word in words if word != "<unk>")
    predictions: list[tuple[str, float]] = []
    if fitting:
        k = min(k, fitting) if prefix else k
        predictions = most_likely(model, text, k, exclude=left_out)
    return predictions, count_unknown(model, text), model.vocabulary.kind
