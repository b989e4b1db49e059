"""N-gram models of KenLM on PTB, for the picture of results: `python benchmarks/kenlm.py`.

Needs KenLM's lmplz, build_binary and query on the path.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import describe_machine

from terselm.files import write_bytes
from terselm.pipeline.kenlm import compare_with_kenlm
from terselm.text.corpus import open_corpus

RESULT = Path(__file__).parent / "results" / "kenlm.json"


def main() -> None:
    corpus = open_corpus("ptb")
    models: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for split in ("valid", "test"):
            found = compare_with_kenlm(corpus, Path(folder), print, split)
            if not found:
                sys.exit("KenLM's lmplz, build_binary and query are not on the path")
            for model in found:
                perplexity = model.pop("perplexity")
                models.setdefault(model["order"], model)[split] = perplexity
    result = {"data": "ptb", "machine": describe_machine(1), "models": list(models.values())}
    write_bytes(RESULT, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
