"""`terselm quickstart`: the whole way in a few minutes, on text that is always there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terselm.cli.options import Debug, Json, Seed
from terselm.cli.output import Output

if TYPE_CHECKING:
    from terselm.models.language_model import LanguageModel

Folder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for the models and the picture.")
]
Data = Annotated[str, typer.Option("--data", metavar="DIR|FILE|NAME", help="Text, as for train.")]
Epochs = Annotated[int, typer.Option("--epochs", help="Passes over the text.", min=1)]

MODEL = {"cell": "lstm", "hidden": (192, 192), "embedding": 192, "tied": True}
VOCABULARY_SIZE = 5000
TRAINING = {
    "optimizer": "adam",
    "learning_rate": 0.004,
    "schedule": "cosine",
    "batch": 32,
    "window": 35,
    "dropout": 0.2,
}
RECIPES: dict[str, list[dict[str, Any]]] = {
    "8 bits": [{"method": "quantize", "bits": 8}],
    "4 bits": [{"method": "quantize", "bits": 4, "group": 32}],
    "low rank, recovered, 4 bits": [
        {"method": "low_rank", "rank": 0.5},
        {"method": "recover", "epochs": 1, "learning_rate": 0.002},
        {"method": "quantize", "bits": 4, "group": 32},
    ],
}
PROMPTS = ("return the", "if the file", "this method is")


def quickstart(
    out: Folder = Path("terselm-quickstart"),
    data: Data = "python-docs",
    epochs: Epochs = 7,
    seed: Seed = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a small LSTM, compress it three ways, show what each costs, predict words.

    The text is the documentation of Python's own standard library, so nothing is downloaded.

    **Example**: terselm quickstart
    """
    from terselm.cli.loading import prepare_folder, split_of
    from terselm.cli.recovery import recovery
    from terselm.compress.apply import compress
    from terselm.compress.base import Context
    from terselm.compress.recipe import Recipe
    from terselm.evaluate.perplexity import evaluate
    from terselm.evaluate.predict import predict
    from terselm.models.checkpoint import load, save
    from terselm.report.plots import FrontierPoint, frontier_plot
    from terselm.report.tables import comparison_table, prediction_table

    output = Output(json)
    prepare_folder(out)
    started = time.monotonic()
    dense = _train(data, epochs, seed, output)
    test = split_of(data, "test", dense.vocabulary)
    rows: list[dict[str, Any]] = []

    def keep(label: str, model: LanguageModel) -> LanguageModel:
        path = out / f"{label.replace(',', '').replace(' ', '-')}.safetensors"
        size = save(model, path)
        # What is measured is what the file gives back.
        again = load(path)
        measured = evaluate(again, test)
        rows.append(
            {
                "model": label,
                "bytes": size,
                "perplexity": measured.perplexity,
                "top1_accuracy": measured.top1_accuracy,
                "top3_accuracy": measured.top3_accuracy,
                "file": str(path),
            }
        )
        output.remark(f"{label}: {size:,} bytes, test perplexity {measured.perplexity:.2f}")
        return again

    smallest = keep("dense", dense)
    context = Context(recover=recovery(data, seed, output))
    for label, items in RECIPES.items():
        result = compress(dense, Recipe.from_list(items), context)
        smallest = keep(label, result.model)
    picture = out / "bytes-and-perplexity.png"
    points = [FrontierPoint(row["model"], row["bytes"], row["perplexity"]) for row in rows]
    frontier_plot(points, picture)
    predictions = {prompt: predict(smallest, prompt, k=5) for prompt in PROMPTS}
    values = {
        "models": rows,
        "predictions": {
            prompt: [{"word": word, "probability": share} for word, share in found]
            for prompt, found in predictions.items()
        },
        "picture": str(picture),
        "seconds": round(time.monotonic() - started, 1),
    }
    shown: list[Any] = ["", comparison_table(rows), "", "What the smallest one says next:"]
    for prompt, found in predictions.items():
        shown += [f"\n{prompt} ...", prediction_table(found)]
    shown += [
        f"\nPicture: {picture}",
        f'Next: terselm inspect "{rows[-1]["file"]}"',
        f"Took {values['seconds']:.0f} seconds.",
    ]
    output.result(values, *shown)


def _train(data: str, epochs: int, seed: int, output: Output) -> LanguageModel:
    import torch

    from terselm.cli.loading import split_of
    from terselm.evaluate.perplexity import validation_perplexity
    from terselm.models.config import make_config
    from terselm.models.language_model import LanguageModel
    from terselm.text.build import build_vocabulary
    from terselm.text.corpus import open_corpus
    from terselm.train.config import make_training_config
    from terselm.train.loop import fit
    from terselm.train.progress import ProgressObserver

    corpus = open_corpus(data)
    vocabulary = build_vocabulary(corpus, "words", size=VOCABULARY_SIZE, lowercase=True)
    train, valid = split_of(data, "train", vocabulary), split_of(data, "valid", vocabulary)
    sizes = "-".join(str(size) for size in MODEL["hidden"])  # type: ignore[attr-defined]
    output.remark(
        f"text: {corpus.name}, {len(train.ids):,} training tokens, {len(vocabulary):,} words"
    )
    output.remark(f"training an LSTM {sizes} for {epochs} epochs")
    torch.manual_seed(seed)
    model = LanguageModel(make_config(MODEL), vocabulary)
    config = make_training_config({**TRAINING, "epochs": epochs, "seed": seed})
    result = fit(
        model,
        train.ids,
        config,
        validate=lambda candidate: validation_perplexity(candidate, valid.ids),
        observer=ProgressObserver("train"),
        device="cpu",
    )
    if result.stopped == "interrupted":
        raise KeyboardInterrupt
    result.model.provenance = {
        "data": corpus.name,
        "training": result.config.model_dump(mode="json"),
    }
    return result.model
