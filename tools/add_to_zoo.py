#!/usr/bin/env python3
"""Put a run of `terselm reproduce` into the zoo: its model, its result and its card.

python tools/add_to_zoo.py DIR RUN NAME --suite frontier
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from terselm.experiments.work import model_file, result_file
from terselm.files import write_bytes
from terselm.report.experiment_card import experiment_card
from terselm.zoo import CARD, MODEL, RESULT

ZOO = Path(__file__).resolve().parent.parent / "zoo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that --out named")
    parser.add_argument("run", help="the name of its files in models/ and results/")
    parser.add_argument("name", help="in the zoo")
    parser.add_argument("--suite", required=True)
    parser.add_argument("--licence")
    options = parser.parse_args()
    text = result_file(options.folder, options.run).read_text(encoding="utf-8")
    target = ZOO / options.name
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model_file(options.folder, options.run), target / MODEL)
    write_bytes(target / RESULT, text.encode())
    card = experiment_card(json.loads(text), options.name, options.suite, options.licence)
    write_bytes(target / CARD, card.encode())
    print(f"{target}: {(target / MODEL).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
