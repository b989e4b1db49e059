"""`terselm compress`: apply a recipe and say what each step cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from terselm.cli.options import Debug, Device, Json, ModelFile, OptionalData, Out, Seed
from terselm.cli.output import Output

if TYPE_CHECKING:
    from terselm.compress.apply import StepRecord
    from terselm.models.language_model import LanguageModel

CALIBRATION_TOKENS = 100_000
"""From the start of the training text, for methods that look at inputs."""

RecipeOption = Annotated[
    str, typer.Option("--recipe", metavar="FILE|PRESET", help="Recipe file or preset.")
]
Split = Annotated[str, typer.Option("--split", help="Text of the printed perplexities.")]


def compress(
    model: ModelFile,
    recipe: RecipeOption,
    out: Out,
    data: OptionalData = None,
    split: Split = "valid",
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a model smaller by a recipe, and print bytes and perplexity after each step.

    Presets: lossless-ish (8 bits), balanced (4 bits), small (low rank, recovery, 8 bits).

    **Example**: terselm compress lstm.safetensors --recipe balanced --data ptb --out s.safetensors
    """
    from terselm.cli.loading import open_model, prepare_output, split_of
    from terselm.cli.recovery import recovery
    from terselm.compress.apply import compress as apply_recipe
    from terselm.compress.base import Context
    from terselm.compress.recipe import load_recipe
    from terselm.evaluate.perplexity import perplexity
    from terselm.models.checkpoint import lay_out, save
    from terselm.report.tables import compression_table

    output = Output(json)
    prepare_output(out)
    steps = load_recipe(recipe)
    source = open_model(model, device)
    tokens = None if data is None else split_of(data, split, source.vocabulary)

    def measure(candidate: LanguageModel) -> float | None:
        if tokens is None:
            return None
        return perplexity(candidate, tokens.ids)

    before = lay_out(source).size
    rows: list[dict[str, Any]] = [
        {"step": "before", "bytes": before, "perplexity": measure(source)}
    ]

    def note(record: StepRecord, current: LanguageModel) -> None:
        row = {"step": record.description, "bytes": record.bytes, "perplexity": measure(current)}
        rows.append(row)
        reached = "" if row["perplexity"] is None else f", perplexity {row['perplexity']:.2f}"
        output.remark(f"{record.number}. {record.description}: {record.bytes:,} bytes{reached}")

    context = Context()
    if data is not None:
        calibration = split_of(data, "train", source.vocabulary).ids[:CALIBRATION_TOKENS]
        context = Context(recover=recovery(data, seed, output), calibration=calibration)
    result = apply_recipe(source, steps, context, note)
    result.model.provenance["perplexity"] = {split: rows[-1]["perplexity"]}
    after = save(result.model, out)
    rows[-1]["bytes"] = after
    values = {
        "model": str(model),
        "out": str(out),
        "bytes_before": before,
        "bytes_after": after,
        "untouched": list(result.untouched),
        "steps": rows,
    }
    untouched = ", ".join(result.untouched) or "nothing"
    output.result(
        values,
        compression_table(rows),
        f"left untouched: {untouched}",
        f"wrote {out}",
    )
