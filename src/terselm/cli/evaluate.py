"""`terselm evaluate`: perplexity and accuracy of a model on text."""

from __future__ import annotations

from typing import Annotated

import typer

from terselm.cli.options import (
    Data,
    Debug,
    Device,
    Engine,
    Json,
    Kernels,
    ModelFile,
    Threads,
    check_engine,
)
from terselm.cli.output import Output
from terselm.errors import UsageError

Split = Annotated[str, typer.Option("--split", help="train, valid or test.")]


def evaluate(
    model: ModelFile,
    data: Data,
    split: Split = "valid",
    engine: Engine = "native",
    threads: Threads = 1,
    kernels: Kernels = None,
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure perplexity, bits a character and accuracy.

    One stream with the state carried over; every token is a target once. The 95 % interval is
    that of the mean over the text.

    **Example**: terselm evaluate lstm.safetensors --data ptb --split test
    """
    from terselm.report.tables import evaluation_table, unit_of

    output = Output(json)
    native = check_engine(engine)
    if native and device != "auto":
        raise UsageError(f"--device {device} is for --engine torch; the C library runs on the CPU")
    if not native and (threads != 1 or kernels is not None):
        raise UsageError("--threads and --kernels are for --engine native")
    with output.progress(f"evaluate {split}") as advance:
        if native:
            from terselm.cli.text import corpus_with
            from terselm.evaluate.native import evaluate_file
            from terselm.runtime.model import Model

            corpus = corpus_with(data, split)
            evaluation = evaluate_file(
                model, corpus, split, threads=threads, kernels=kernels, progress=advance
            )
            kind = Model(model, trusted=True).describe().vocabulary_kind
        else:
            from terselm.cli.loading import open_model, split_of
            from terselm.evaluate.perplexity import evaluate as measure

            language_model = open_model(model, device)
            tokens = split_of(data, split, language_model.vocabulary)
            evaluation = measure(language_model, tokens, progress=advance)
            kind = language_model.vocabulary.kind
    values = {"model": str(model), "split": split, "engine": engine, **evaluation.as_dict()}
    output.result(values, evaluation_table(evaluation, split, unit_of(kind)))
