r"""The ten most likely words with a preview of the output layer and without: agreement and time.

    TERSELM_DATA=data python benchmarks/top_k_preview.py MODEL ... --words 60000 \
        --out benchmarks/results/top-k-preview

Writes OUT.json and OUT.md. Each model reads the beginning of PTB's validation text; after each
token the ten most likely words are asked for, with and without a preview in turns, one thread.
A time is a step and the ten words, as Python sees it.

With --words N a model is measured a second time with its output layer, in 8 bits, grown to N
words: each new row is the row of a word of the model with noise of half its size, and its bias is
lower by ln(N / words). Random rows would not do: all words would be about as likely, and no bound
could leave any out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine

from terselm.compress.apply import compress
from terselm.compress.recipe import Recipe
from terselm.files import write_bytes
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.models.checkpoint import load, save
from terselm.models.language_model import LanguageModel
from terselm.report.table import Column, Table
from terselm.runtime import Model
from terselm.text.build import vocabulary_from_words

POSITIONS, WARM_UP, WORDS = 2000, 20, 10
SETTINGS = [(4, "exact"), (3, "exact"), (2, "exact"), (4, "fast"), (3, "fast"), (2, "fast")]


def output_of(model: LanguageModel) -> LinearOp:
    return model.weights()[model.ties().get("output", "output")]


def grown(path: Path, words: int) -> LanguageModel:
    """Return a model of so many words whose output layer looks as if it was trained."""
    model = load(path)
    torch.manual_seed(0)
    old = len(model.vocabulary)
    bias, weight = model.output.bias.detach(), output_of(model).dense().detach()
    source = torch.randint(old, (words - old,))
    new = weight[source]
    noise = torch.randn_like(new) / math.sqrt(new.shape[1])
    new = new + 0.5 * noise * new.norm(dim=1, keepdim=True)
    invented = (f"new{number}" for number in range(words - old))
    vocabulary = vocabulary_from_words([*model.vocabulary.words, *invented])
    larger = LanguageModel(model.config, vocabulary).eval()
    for name, op in model.weights().items():
        if name not in ("embedding", "output"):
            larger.replace_weight(name, op)
    for mine, other in zip(larger.cells, model.cells, strict=True):
        mine.load_state_dict(other.state_dict())
    embedding = model.embedding.dense().detach()
    larger.replace_weight("embedding", Dense(torch.cat([embedding, embedding[source]])))
    larger.replace_weight("output", Dense(torch.cat([weight, new])))
    with torch.no_grad():
        larger.output.bias.copy_(torch.cat([bias, bias[source] - math.log(words / old)]))
    recipe = Recipe.from_list(
        [{"method": "quantize", "bits": 8, "weights": ["embedding", "output"]}]
    )
    return compress(larger, recipe).model


def compare(path: Path, tokens: list[int], bits: int, mode: str) -> dict[str, Any]:
    """Return the figures of one model and one preview; "left out" where it saves too little."""
    full = Model(path)
    begin = time.perf_counter()
    previewed = Model(path, preview=bits, preview_mode=mode)
    opened = time.perf_counter() - begin
    if previewed.preview == 0:
        return {"left_out": True}
    times: dict[str, list[float]] = {"without": [], "with": []}
    agree = dict.fromkeys(("top1", "top3", "top10"), 0)
    errors = []
    states = {"without": full.state(), "with": previewed.state()}
    models = {"without": full, "with": previewed}
    for number, token in enumerate(tokens):
        found: dict[str, list[tuple[int, float]]] = {}
        for name in ("without", "with") if number % 2 else ("with", "without"):
            begin_ns = time.perf_counter_ns()
            models[name].step(states[name], token)
            found[name] = models[name].top(states[name], WORDS)
            if number >= WARM_UP:
                times[name].append((time.perf_counter_ns() - begin_ns) / 1e3)
        for key, size in (("top1", 1), ("top3", 3), ("top10", 10)):
            sets = [{word for word, _ in found[name][:size]} for name in found]
            agree[key] += sets[0] == sets[1]
        exact = dict(found["without"])
        errors += [abs(score - exact[word]) for word, score in found["with"] if word in exact]
    return {
        **{key: count / len(tokens) for key, count in agree.items()},
        "log_probability_error": {"mean": float(np.mean(errors)), "largest": float(np.max(errors))},
        "microseconds": {name: round(float(np.median(each)), 1) for name, each in times.items()},
        "fastest_tenth": {
            name: round(float(np.percentile(each, 10)), 1) for name, each in times.items()
        },
        "open_seconds": round(opened, 2),
        "working_bytes": {name: model.working_bytes() for name, model in models.items()},
    }


def measure(path: Path, text: str, positions: int) -> dict[str, Any]:
    """Return the figures of one model by its previews."""
    tokens = Model(path).tokenize(text)[:positions].tolist()
    about = Model(path).describe()
    results: dict[str, Any] = {"vocabulary": about.vocabulary_size, "positions": len(tokens)}
    results["output"] = output_of(load(path)).spec()["kind"]
    results["previews"] = {
        f"{bits} bits, {mode}": compare(path, tokens, bits, mode) for bits, mode in SETTINGS
    }
    return results


def table_of(results: dict[str, Any]) -> str:
    names = ["model", "preview", "top 1", "top 3", "top 10", "mean error", "largest error"]
    names += ["µs without", "µs with", "MB more"]
    columns = [Column(name, "left" if place < 2 else "right") for place, name in enumerate(names)]
    rows = []
    for model, result in results.items():
        for name, row in result["previews"].items():
            if "left_out" in row:
                rows.append((model, name, *["–"] * 8))
                continue
            error, memory = row["log_probability_error"], row["working_bytes"]
            rows.append(
                (
                    model,
                    name,
                    *(f"{100 * row[key]:.2f} %" for key in ("top1", "top3", "top10")),
                    f"{error['mean']:.4f}",
                    f"{error['largest']:.4f}",
                    *(f"{row['microseconds'][key]:,.0f}" for key in ("without", "with")),
                    f"{(memory['with'] - memory['without']) / 1e6:.1f}",
                )
            )
    return Table(columns, rows).markdown() + "\n"


@contextmanager
def models_of(options: argparse.Namespace) -> Iterator[dict[str, Path]]:
    """Give the files to measure by the names they have in the results."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {path.stem: path for path in options.models}
        if options.words:
            large = Path(folder) / "large.safetensors"
            save(grown(options.models[0], options.words), large)
            paths[f"{options.models[0].stem}, {options.words:,} words"] = large
        yield paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--words", type=int, help="also the first model with so many words")
    parser.add_argument("--positions", type=int, default=POSITIONS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = (Path(os.environ["TERSELM_DATA"]) / "ptb" / "ptb.valid.txt").read_text()
    results: dict[str, Any] = {}
    with models_of(options) as paths:
        for name, path in paths.items():
            results[name] = measure(path, text[: 20 * options.positions], options.positions)
            print(name, json.dumps(results[name]), flush=True)
            report = {"machine": describe_machine(), "models": results}
            data = (json.dumps(report, indent=1) + "\n").encode()
            write_bytes(options.out.with_suffix(".json"), data)
            write_bytes(options.out.with_suffix(".md"), table_of(results).encode())


if __name__ == "__main__":
    main()
