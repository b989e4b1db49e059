"""`terselm import`: a model trained elsewhere becomes a terselm file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terselm.cli.options import Debug, Json, Out
from terselm.cli.output import Output

Source = Annotated[Path, typer.Argument(metavar="SRC", help="State dict: .safetensors or .pt.")]
Kind = Annotated[str | None, typer.Option("--from", help="Layout; found by itself if left out.")]
VocabularyFile = Annotated[
    Path | None,
    typer.Option(
        "--vocabulary",
        metavar="FILE",
        help="One word a line, `<eos>` among them; the first line is id 0.",
    ),
]
VocabularyData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR|FILE|NAME",
        help="The corpus it was trained on: ids in order of appearance.",
    ),
]
StoredType = Annotated[
    str, typer.Option("--type", help="float32 or float16: how the weights are stored.")
]
Nonlinearity = Annotated[
    str, typer.Option("--nonlinearity", help="Of a plain RNN, which its weights do not tell.")
]


def import_model(
    source: Source,
    out: Out,
    kind: Kind = None,
    vocabulary: VocabularyFile = None,
    data: VocabularyData = None,
    stored_type: StoredType = "float32",
    nonlinearity: Nonlinearity = "tanh",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Import a state dict of pytorch/examples word_language_model.

    Nothing in the source is run: pickled modules are refused, tensors are read.

    **Example**: terselm import model.safetensors --vocabulary words.txt --out lstm.safetensors
    """
    from terselm.cli.loading import prepare_output
    from terselm.importers.base import import_with_notes as read
    from terselm.models.checkpoint import save

    output = Output(json)
    prepare_output(out, {"SRC": source, "the vocabulary": vocabulary}, data)
    imported = read(
        source,
        kind=kind,
        vocabulary=vocabulary,
        data=data,
        stored_type=stored_type,
        nonlinearity=nonlinearity,
    )
    model = imported.model
    for note in imported.notes:
        output.remark(f"note: {note}")
    size = save(model, out)
    config = model.config
    values = {
        "out": str(out),
        "bytes": size,
        "cell": config.cell,
        "layers": config.layers,
        "hidden": list(config.hidden),
        "vocabulary_size": len(model.vocabulary),
        "parameters": model.parameter_count(),
    }
    sizes = "-".join(str(hidden) for hidden in config.hidden)
    output.result(
        values,
        f"{out}: {config.cell} {sizes}, {len(model.vocabulary):,} words, "
        f"{model.parameter_count():,} parameters, {size:,} bytes",
    )
