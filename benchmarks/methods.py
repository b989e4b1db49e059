"""Every compression method on one trained model: bytes against perplexity.

    python benchmarks/methods.py MODEL --data ptb --steps 1200 --out benchmarks/results/methods-NAME

Writes OUT.json (a row is measured once and kept; run again to go on), OUT.md and OUT.png.
Without --full, perplexity is that of the first --steps steps of 20 parallel streams of the
validation text, which is fast and the same for all rows. With --recover each row is followed by
the same short training, and so is the dense model, as the control.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from machine import describe_machine

import terselm
from terselm.cli.loading import split_of
from terselm.cli.output import Output
from terselm.cli.recovery import recovery
from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.recipe import Recipe
from terselm.errors import TerselmError
from terselm.evaluate.perplexity import perplexity
from terselm.files import write_bytes
from terselm.models.checkpoint import lay_out
from terselm.models.language_model import LanguageModel
from terselm.report.methods_plot import MethodLine, methods_plot
from terselm.report.table import Column, Table
from terselm.text.batches import TokenStreams
from terselm.text.token_cache import TokenizedSplit

EXPERIMENTS = Path(__file__).parent / "experiments" / "methods.yaml"
STREAMS, WINDOW = 20, 100
CALIBRATION_TOKENS = 100_000


def short_perplexity(model: LanguageModel, split: TokenizedSplit, steps: int) -> float:
    """Perplexity of the first steps of 20 parallel streams."""
    streams = TokenStreams(split.ids, model.vocabulary.start_id, STREAMS, WINDOW)
    state = model.initial_state(STREAMS)
    total, count = 0.0, 0
    with torch.inference_mode():
        for index in range(min(len(streams), -(-steps // WINDOW))):
            inputs, targets = streams.window(index)
            nats, state = model.negative_log_likelihood(inputs, targets, state)
            total += float(nats.double().sum())
            count += nats.numel()
    return math.exp(total / count)


def load_rows(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())["rows"] if path.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--full", action="store_true", help="the whole validation text")
    parser.add_argument("--recover", type=int, metavar="SECONDS", help="train each row so long")
    parser.add_argument("--only", help="families, separated by commas")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    source = terselm.load(options.model)
    train = split_of(options.data, "train", source.vocabulary)
    valid = split_of(options.data, "valid", source.vocabulary)
    context = Context(
        recover=recovery(options.data, 0, Output(as_json=False)),
        calibration=train.ids[:CALIBRATION_TOKENS],
    )

    def measure(model: LanguageModel) -> float:
        if options.full:
            return perplexity(model, valid.ids)
        return short_perplexity(model, valid, options.steps)

    result_file = options.out.with_suffix(".json")
    rows = load_rows(result_file)
    experiments = yaml.safe_load(EXPERIMENTS.read_text())
    experiments.insert(0, {"label": "dense", "family": "dense", "steps": []})
    tail = []
    if options.recover:
        tail = [{"method": "recover", "epochs": 1, "time_limit": float(options.recover)}]
    for experiment in experiments:
        label, family = experiment["label"], experiment["family"]
        steps = [*experiment["steps"], *tail]
        if rows.get(label, {}).get("steps") == steps:
            continue
        if options.only and family not in ("dense", *options.only.split(",")):
            continue
        started = time.monotonic()
        try:
            model = source
            if steps:
                model = compress(source, Recipe.from_list(steps), context).model
        except TerselmError as error:
            rows[label] = {"family": family, "steps": steps, "error": str(error)}
            print(f"{label}: {error}")
            continue
        rows[label] = {
            "family": family,
            "steps": steps,
            "bytes": lay_out(model).size,
            "perplexity": measure(model),
            "seconds": round(time.monotonic() - started, 1),
        }
        print(f"{label}: {rows[label]['bytes']:,} bytes, {rows[label]['perplexity']:.2f}")
        report = {
            "model": options.model.name,
            "protocol": "whole validation text" if options.full else f"{options.steps} steps",
            "recover_seconds": options.recover,
            "machine": describe_machine(),
            "rows": rows,
        }
        write_bytes(result_file, (json.dumps(report, indent=1) + "\n").encode())
    write_bytes(options.out.with_suffix(".md"), table_of(rows).encode())
    draw(rows, options.out.with_suffix(".png"), options.model.stem)


def table_of(rows: dict[str, Any]) -> str:
    dense = rows["dense"]
    columns = [Column("recipe", "left"), Column("bytes"), Column("perplexity"), Column("ratio")]
    lines = []
    for label, row in rows.items():
        if "error" in row:
            lines.append((label, "", "", row["error"]))
            continue
        ratio = row["perplexity"] / dense["perplexity"]
        lines.append((label, f"{row['bytes']:,}", f"{row['perplexity']:.2f}", f"{ratio:.4f}"))
    return Table(columns, lines).markdown() + "\n"


def draw(rows: dict[str, Any], path: Path, name: str) -> None:
    families: dict[str, list[tuple[int, float]]] = {}
    for row in rows.values():
        if "error" not in row:
            point = (row["bytes"], row["perplexity"])
            families.setdefault(row["family"], []).append(point)
    lines = [MethodLine(family, sorted(points)) for family, points in families.items()]
    methods_plot(lines, path, title=f"Every method on {name}")


if __name__ == "__main__":
    main()
