#!/usr/bin/env python3
"""Put a run of `terselm reproduce` into the zoo: its model, its result and its card.

python tools/add_to_zoo.py DIR RUN NAME --suite frontier
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from terselm.experiments.experiment import Experiment
from terselm.experiments.work import label_of, model_file, result_file
from terselm.files import write_bytes
from terselm.report.experiment_card import experiment_card
from terselm.zoo import CARD, MODEL, RESULT

ZOO = Path(__file__).resolve().parent.parent / "zoo"


def read_result(folder: Path, run: str) -> dict[str, Any]:
    return json.loads(result_file(folder, run).read_text(encoding="utf-8"))


def needed_results(folder: Path, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results of the runs that a run took models from, and of theirs, each once."""
    found: dict[str, dict[str, Any]] = {}
    waiting = [result]
    while waiting:
        last = waiting.pop()
        for name, seed in Experiment(**last["experiment"]).needed_runs(last["seed"]):
            label = label_of(name, seed)
            if label not in found:
                found[label] = read_result(folder, label)
                waiting.append(found[label])
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that --out named")
    parser.add_argument("run", help="the name of its files in models/ and results/")
    parser.add_argument("name", help="in the zoo")
    parser.add_argument("--suite", required=True)
    parser.add_argument("--licence")
    options = parser.parse_args()
    result = read_result(options.folder, options.run)
    needed = needed_results(options.folder, result)
    card = experiment_card(result, options.name, options.suite, options.licence, needed)
    target = ZOO / options.name
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model_file(options.folder, options.run), target / MODEL)
    shutil.copyfile(result_file(options.folder, options.run), target / RESULT)
    write_bytes(target / CARD, card.encode())
    print(f"{target}: {(target / MODEL).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
