"""What each preset makes of one trained model: bytes and perplexity of the file that it writes.

    python benchmarks/presets.py MODEL --data ptb --files FOLDER --out RESULTS.json

The models are written to FOLDER. A preset is measured once and kept; run again to go on.
Perplexity is that of the whole validation text in one stream. With --test the test text is read
too: once, when all is decided.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from kept_rows import kept
from machine import describe_machine

import terselm
from terselm.cli.loading import split_of
from terselm.cli.output import Output
from terselm.cli.recovery import recovery
from terselm.compress.apply import compress
from terselm.compress.base import CALIBRATION_TOKENS, Context
from terselm.compress.recipe import load_recipe
from terselm.evaluate.perplexity import evaluate
from terselm.files import write_bytes
from terselm.models.checkpoint import save
from terselm.models.language_model import LanguageModel
from terselm.pipeline.fingerprint import digest_of

PRESETS = ("lossless-ish", "balanced", "small", "tiny")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--files", type=Path, required=True, help="folder for the models")
    parser.add_argument("--only", help="presets, separated by commas")
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    source = terselm.load(options.model)
    train = split_of(options.data, "train", source.vocabulary)
    context = Context(
        recover=recovery(options.data, 0, Output(as_json=False)),
        calibration=train.ids[:CALIBRATION_TOKENS],
    )
    setting = {
        "model": options.model.name,
        "model_digest": digest_of(options.model),
        "data": options.data,
    }
    known = {row["name"]: row for row in kept(options.out, setting).get("rows", [])}

    def note(name: str, **values: Any) -> None:
        known[name] = {"name": name, **known.get(name, {}), **values}
        print(name, values, flush=True)
        order = [known[each] for each in ("dense", *PRESETS) if each in known]
        report = {
            **setting,
            "command": "terselm compress MODEL --recipe PRESET --data ptb --out FILE",
            "machine": describe_machine(),
            "rows": order,
        }
        write_bytes(options.out, (json.dumps(report, indent=1) + "\n").encode())

    def measure(name: str, path: Path) -> None:
        model = terselm.load(path)
        row = known.get(name, {})
        if "valid_perplexity" not in row:
            note(name, bytes=path.stat().st_size, valid_perplexity=of_split(model, "valid"))
        if options.test and "test_perplexity" not in row:
            note(name, test_perplexity=of_split(model, "test"))

    def of_split(model: LanguageModel, split: str) -> float:
        return evaluate(model, split_of(options.data, split, model.vocabulary)).perplexity

    measure("dense", options.model)
    for name in options.only.split(",") if options.only else PRESETS:
        recipe = load_recipe(name)
        path = options.files / f"{options.model.stem}-{name}.safetensors"
        if known.get(name, {}).get("recipe") != recipe.as_list() or not path.exists():
            known.pop(name, None)
            started = time.monotonic()
            save(compress(source, recipe, context).model, path)
            seconds = round(time.monotonic() - started, 1)
            note(name, recipe=recipe.as_list(), seconds=seconds)
        measure(name, path)


if __name__ == "__main__":
    main()
