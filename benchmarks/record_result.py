"""Measure a trained or compressed model once and write its result file.

    python benchmarks/record_result.py MODEL --data ptb --experiment FILE --out RESULT.json

The test split is read here and nowhere before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml
from machine import describe_machine

import terselm
from terselm.evaluate.perplexity import evaluate
from terselm.text.corpus import open_corpus
from terselm.text.token_cache import tokenize


def training_seconds(model: Path) -> float | None:
    """Seconds of the run whose metrics lie beside the model."""
    metrics = model.with_name(f"{model.name}.train") / "metrics.jsonl"
    if not metrics.exists():
        return None
    last = metrics.read_text().splitlines()[-1]
    return round(json.loads(last)["seconds"], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--experiment", type=Path, help="the file that made it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--remark", help="anything a reader must know")
    options = parser.parse_args()
    model = terselm.load(options.model)
    corpus = open_corpus(options.data)
    splits: dict[str, Any] = {}
    for split in ("valid", "test"):
        measured = evaluate(model, tokenize(corpus, split, model.vocabulary))
        splits[split] = measured.as_dict()
        print(f"{split}: perplexity {measured.perplexity:.2f}")
    experiment = options.experiment
    report = {
        "model": options.model.name,
        "bytes": options.model.stat().st_size,
        "sha256": hashlib.sha256(options.model.read_bytes()).hexdigest(),
        "parameters": model.parameter_count(),
        "experiment": yaml.safe_load(experiment.read_text()) if experiment else None,
        "experiment_file": experiment.as_posix() if experiment else None,
        "provenance": model.provenance,
        "training_seconds": training_seconds(options.model),
        "results": splits,
        "remark": options.remark,
        "machine": describe_machine(),
    }
    options.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
