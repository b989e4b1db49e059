#!/usr/bin/env python3
"""Put a run of `terselm reproduce` into the zoo: its model, its result and its card.

python tools/add_to_zoo.py DIR RUN NAME --suite frontier

What it was made from is read in benchmarks/results, or in DIR where it is not there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from terselm.experiments.experiment import key_of
from terselm.experiments.store import label_of, model_file, result_file, stored_result
from terselm.experiments.suite import Suite, find_suite, load_suite
from terselm.files import write_bytes
from terselm.report.experiment_card import experiment_card
from terselm.zoo import CARD, MODEL, RESULT

ROOT = Path(__file__).resolve().parent.parent
ZOO = ROOT / "zoo"
COMMITTED = ROOT / "benchmarks" / "results"


def read_result(folder: Path, suite: Suite, name: str, seed: int) -> dict[str, Any]:
    """Return the result of a run as the suite now says it is made."""
    label = label_of(name, seed)
    result = stored_result(folder, label, key_of(name, seed, suite))
    if result is None:
        raise SystemExit(f"{label}: {folder} has no model and result of it as {name}.yaml now is")
    return result


def committed_result(folder: Path, suite: Suite, name: str, seed: int) -> dict[str, Any] | None:
    """Return the committed result of a run, or None if there is none that holds."""
    path = folder / f"{label_of(name, seed)}.json"
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return result if result.get("key") == key_of(name, seed, suite) else None


def needed_results(
    folder: Path, suite: Suite, result: dict[str, Any], committed: Path
) -> list[dict[str, Any]]:
    """Return the results of the runs that a run took models from, and of theirs, each once."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    waiting = [result]
    while waiting:
        last = waiting.pop()
        for run in suite[last["name"]].needed_runs(last["seed"]):
            if run not in found:
                known = committed_result(committed, suite, *run)
                found[run] = known or read_result(folder, suite, *run)
                waiting.append(found[run])
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that --out named")
    parser.add_argument("run", help="the row of the suite")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("name", help="in the zoo")
    parser.add_argument("--suite", required=True)
    parser.add_argument("--licence")
    options = parser.parse_args()
    suite = load_suite(find_suite(options.suite))
    if options.run not in suite:
        raise SystemExit(f"{options.suite} has no row {options.run}")
    result = read_result(options.folder, suite, options.run, options.seed)
    needed = needed_results(options.folder, suite, result, COMMITTED / options.suite)
    card = experiment_card(result, options.name, options.suite, options.licence, needed)
    target = ZOO / options.name
    target.mkdir(parents=True, exist_ok=True)
    label = label_of(options.run, options.seed)
    write_bytes(target / MODEL, model_file(options.folder, label).read_bytes())
    write_bytes(target / RESULT, result_file(options.folder, label).read_bytes())
    write_bytes(target / CARD, card.encode())
    print(f"{target}: {(target / MODEL).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
