"""Every engine on the same models, one thread: microseconds a token, and with many states.

    python benchmarks/runtime_speed.py --out benchmarks/results/runtime-speed

Writes OUT.json, OUT.md and OUT.png. A token is read and the log-probabilities of all words are
computed. The weights are random; nobody's time depends on them. Engines take turns in short
rounds, so that whatever else the machine does meets all of them; medians are over all rounds.
The floor is what the matrices of a token take to be read at the bandwidth that `tlm-bench`
measures for this footprint.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engines import (
    Step,
    UnavailableError,
    onnxruntime_step,
    openvino_step,
    quantized_onnx,
    terselm_step,
    torch_step,
)
from kept_rows import kept
from machine import describe_machine
from onnx_steps import write_step
from runtime_marks import marks_table

from terselm.compress.apply import compress
from terselm.compress.recipe import Recipe
from terselm.files import write_bytes
from terselm.models.checkpoint import save
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.report.table import Column, Table
from terselm.runtime import kernel_names
from terselm.text.build import vocabulary_from_words

ROUNDS, STEPS, WARM_UP = 10, 20, 5
BATCH = 64
BENCH = Path(__file__).resolve().parent.parent / "native" / "build" / "plain" / "tlm-bench"

SIZES: dict[str, dict[str, Any]] = {
    "LSTM 2×200": {"cell": "lstm", "hidden": (200, 200), "embedding": 200},
    "LSTM 2×650": {"cell": "lstm", "hidden": (650, 650), "embedding": 650},
    "LSTM 2×1500": {"cell": "lstm", "hidden": (1500, 1500), "embedding": 1500},
    "LSTM 2×650, low rank 128": {
        "cell": "lstm",
        "hidden": (650, 650),
        "embedding": 128,
        "projection": 128,
    },
    "GRU 2×650": {"cell": "gru", "hidden": (650, 650), "embedding": 650},
    "LSTM 2×650, 60,000 words": {
        "cell": "lstm",
        "hidden": (650, 650),
        "embedding": 650,
        "words": 60_000,
    },
}
RECIPES = {
    "terselm 8 bits": [{"method": "quantize", "bits": 8}],
    "terselm 4 bits": [{"method": "quantize", "bits": 4, "group": 32}],
}


def random_model(settings: dict[str, Any]) -> LanguageModel:
    torch.manual_seed(0)
    options = dict(settings)
    words = options.pop("words", 10_000)
    vocabulary = vocabulary_from_words(
        ["<eos>", "<unk>", *(f"w{number}" for number in range(words - 2))]
    )
    return LanguageModel(ModelConfig(**options), vocabulary).eval()


def makers(model: LanguageModel, folder: Path, batch: int) -> dict[str, Callable[[], Step]]:
    """Return what makes each engine, by its name."""
    graph = folder / f"step-{batch}.onnx"
    write_step(model, graph, batch)
    made: dict[str, Callable[[], Step]] = {}
    for name, recipe in RECIPES.items():
        path = folder / f"{name.replace(' ', '-')}.safetensors"
        if not path.exists():
            save(compress(model, Recipe.from_list(recipe)).model, path)
        made[name] = lambda path=path: terselm_step(path, batch)
        if batch == 1 and "avx512vnni" in kernel_names():
            made[f"{name}, AVX2"] = lambda path=path: terselm_step(path, batch, "avx2")
    dense = folder / "dense.safetensors"
    if not dense.exists():
        save(model, dense)
    made["terselm float32"] = lambda: terselm_step(dense, batch)
    made["onnxruntime float32"] = lambda: onnxruntime_step(graph)
    made["onnxruntime 8 bits"] = lambda: onnxruntime_step(quantized_onnx(graph))
    made["PyTorch float32"] = lambda: torch_step(model, quantized=False)
    made["PyTorch 8 bits"] = lambda: torch_step(model, quantized=True)
    made["OpenVINO"] = lambda: openvino_step(graph)
    return made


def timed(engines: dict[str, Step], batch: int, words: int, rounds: int) -> dict[str, list[float]]:
    """Return microseconds of every step by engine, the engines taking turns."""
    random = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        tokens = random.integers(0, words, (STEPS + WARM_UP, batch))
        for name, step in engines.items():
            for number, row in enumerate(tokens):
                begin = time.perf_counter_ns()
                step(row)
                if number >= WARM_UP:
                    times[name].append((time.perf_counter_ns() - begin) / 1e3)
    return times


def floor_of(path: Path) -> dict[str, Any]:
    """Return what tlm-bench says of bandwidth and floor; nothing where it is not built."""
    if not BENCH.exists():
        return {}
    run = subprocess.run(
        [str(BENCH), str(path), "--json"], capture_output=True, text=True, check=True
    )
    profile: dict[str, Any] = json.loads(run.stdout)
    profile["model"].pop("path")  # of a temporary folder
    return profile


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Return the figures of one size."""
    model = random_model(SIZES[name])
    words = len(model.vocabulary)
    result: dict[str, Any] = {"engines": {}, "unavailable": {}}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for batch in (1, BATCH):
            engines: dict[str, Step] = {}
            for engine, make in makers(model, folder, batch).items():
                try:
                    engines[engine] = make()
                except UnavailableError as error:
                    result["unavailable"][engine] = str(error)
            times = timed(engines, batch, words, rounds if batch == 1 else max(1, rounds // 5))
            for engine, found in times.items():
                row = result["engines"].setdefault(engine, {})
                median = float(np.median(found))
                if batch == 1:
                    row["microseconds"] = round(median, 1)
                    row["p95"] = round(float(np.percentile(found, 95)), 1)
                else:
                    row["tokens_per_second"] = round(batch / median * 1e6)
            del engines
        for recipe in RECIPES:
            path = folder / f"{recipe.replace(' ', '-')}.safetensors"
            result["engines"][recipe]["file_bytes"] = path.stat().st_size
            result["engines"][recipe]["profile"] = floor_of(path)
    return result


def table_of(results: dict[str, Any]) -> str:
    columns = [Column("engine", "left"), *(Column(size) for size in results)]
    names = list(dict.fromkeys(name for size in results.values() for name in size["engines"]))
    rows = []
    for name in names:
        cells = []
        for size in results.values():
            row = size["engines"].get(name, {})
            cells.append(f"{row['microseconds']:,.0f}" if "microseconds" in row else "–")
        rows.append((name, *cells))
    batch = []
    for name in names:
        cells = []
        for size in results.values():
            row = size["engines"].get(name, {})
            cells.append(f"{row['tokens_per_second']:,}" if "tokens_per_second" in row else "–")
        batch.append((name, *cells))
    return (
        "Microseconds a token, median, one thread:\n\n"
        + Table(columns, rows).markdown()
        + f"\n\nTokens a second, {BATCH} states together, one thread:\n\n"
        + Table(columns, [row for row in batch if any(cell != "–" for cell in row[1:])]).markdown()
        + "\n\nWhat was aimed at:\n\n"
        + marks_table(results)
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="sizes, separated by semicolons")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    import onnxruntime
    import openvino

    result_file = options.out.with_suffix(".json")
    setting = {
        "machine": describe_machine(),
        "kernels": kernel_names()[0],
        "versions": {
            "onnxruntime": onnxruntime.__version__,
            "openvino": openvino.__version__,
            "torch": torch.__version__,
        },
        "rounds": options.rounds,
    }
    # A whole run takes the place of whatever is there.
    sizes = kept(result_file, setting).get("sizes", {}) if options.only else {}
    for name in options.only.split(";") if options.only else SIZES:
        sizes[name] = measure(name, options.rounds)
        sizes = {each: sizes[each] for each in SIZES if each in sizes}
        report = {**setting, "sizes": sizes}
        write_bytes(result_file, (json.dumps(report, indent=1) + "\n").encode())
        write_bytes(options.out.with_suffix(".md"), table_of(sizes).encode())
        print(name, json.dumps(sizes[name]["engines"]), sizes[name]["unavailable"], flush=True)


if __name__ == "__main__":
    main()
