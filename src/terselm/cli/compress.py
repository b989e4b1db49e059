"""`terselm compress`: apply a recipe and say what each step cost."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terselm.cli.options import Debug, Device, Json, ModelFile, OptionalData, Out, Seed
from terselm.cli.output import Output
from terselm.errors import UsageError

if TYPE_CHECKING:
    from terselm.compress.apply import StepRecord
    from terselm.models.language_model import LanguageModel
    from terselm.text.token_cache import TokenizedSplit

RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="FILE|PRESET|METHOD",
        help="Recipe file, or a preset or a single method by its name.",
    ),
]
Split = Annotated[
    str,
    typer.Option("--split", help="Text of the printed perplexities: train, valid or test."),
]
CalibrationTokens = Annotated[
    int | None,
    typer.Option(
        "--calibration-tokens",
        help="Of the training text, for methods that look at it. [100000]",
        min=1,
        show_default=False,
    ),
]

LARGER = 1.001
"""How much more than before is worth a line; a recipe's text in the file is less."""


def compress(
    model: ModelFile,
    recipe: RecipeOption,
    out: Out,
    data: OptionalData = None,
    split: Split = "valid",
    calibration_tokens: CalibrationTokens = None,
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a model smaller by a recipe, and print bytes and perplexity after each step.

    Presets: lossless-ish (8 bits), balanced (low rank, 4 bits), small (narrower, with an epoch
    of recovery), tiny (narrower still, 3 bits, trained through the codes).

    **Example**: terselm compress lstm.safetensors --recipe balanced --data ptb --out s.safetensors
    """
    from terselm.cli.calibration import calibration_text, token_counts
    from terselm.cli.loading import open_model, prepare_output, split_of
    from terselm.cli.recovery import recovery
    from terselm.cli.text import check_split, read_small_file
    from terselm.compress.apply import compress as apply_recipe
    from terselm.compress.base import Context
    from terselm.compress.recipe import load_recipe
    from terselm.evaluate.perplexity import perplexity
    from terselm.models.checkpoint import lay_out, save
    from terselm.report.tables import compression_table

    output = Output(json)
    prepare_output(out, {"the model": model, "the recipe": recipe}, data)
    if Path(recipe).is_file():
        read_small_file(Path(recipe), "--recipe", "a YAML file of steps, or the name of a preset")
    steps = load_recipe(recipe)
    source = open_model(model, device)
    if data is not None:
        # Text that is not there is an error before the work, not after it.
        split_of(data, split, source.vocabulary)
    elif calibration_tokens is not None:
        raise UsageError("--calibration-tokens needs --data, the text that they are taken from")
    check_split(split)

    def measure(candidate: LanguageModel) -> float | None:
        if data is None:
            return None
        return perplexity(candidate, split_of(data, split, candidate.vocabulary).ids)

    before = lay_out(source).size
    rows: list[dict[str, Any]] = [
        {"step": "before", "bytes": before, "perplexity": measure(source)}
    ]

    def note(record: StepRecord, current: LanguageModel) -> None:
        found = measure(current)
        size = _size_with(current, split, found)
        method = steps.steps[record.number - 1].method
        larger = size > LARGER * rows[-1]["bytes"] and not method.enlarges
        rows.append({"step": record.description, "bytes": size, "perplexity": found})
        reached = "" if found is None else f", perplexity {found:.2f}"
        output.remark(f"{record.number}. {record.description}: {size:,} bytes{reached}")
        if larger:
            output.remark(f"step {record.number} made the file larger; leave it out, or change it")

    context = Context()
    calibration = None
    if data is not None:
        context = Context(
            recover=recovery(data, seed, output), count_tokens=partial(token_counts, data)
        )
        if any(step.method.reads_calibration() for step in steps.steps):
            calibration = calibration_text(data, source.vocabulary, output, calibration_tokens)
            context = replace(context, calibration=calibration.ids)
    result = apply_recipe(source, steps, context, note)
    words = result.model.vocabulary
    if data is not None and words is not source.vocabulary:
        output.remark(_new_words(split_of(data, split, words), split))
    result.model.provenance["perplexity"] = {split: rows[-1]["perplexity"]}
    after = save(result.model, out)
    rows[-1]["bytes"] = after
    values = {
        "model": str(model),
        "out": str(out),
        "bytes_before": before,
        "bytes_after": after,
        "untouched": list(result.untouched),
        "same_form": list(result.same_form),
        "calibration": None if calibration is None else calibration.as_dict(),
        "steps": rows,
    }
    left = [f"left untouched: {', '.join(result.untouched) or 'nothing'}"]
    if result.same_form:
        left.append(f"stored as before, with other values: {', '.join(result.same_form)}")
    output.result(values, compression_table(rows), *left, f"wrote {out}")


def _size_with(model: LanguageModel, split: str, perplexity: float | None) -> int:
    """Return the bytes of the model's file with this perplexity in its provenance."""
    from terselm.models.checkpoint import lay_out

    before = model.provenance
    model.provenance = {**before, "perplexity": {split: perplexity}}
    size = lay_out(model).size
    model.provenance = before
    return size


def _new_words(tokens: TokenizedSplit, split: str) -> str:
    return (
        f"the vocabulary changed: {tokens.unknown:,} of {len(tokens):,} tokens of {split} are now "
        "read as <unk>, and perplexities do not compare with those before"
    )
