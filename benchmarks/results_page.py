"""The page of results, docs/results.md, from committed result files of `terselm reproduce`.

    python benchmarks/results_page.py

The result files are those of results/paper and results/frontier; a row without one, or with one
that an older version of its experiment file made, is "not run".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from terselm.experiments.experiment import key_of
from terselm.experiments.picture import draw
from terselm.experiments.suite import load_suite
from terselm.experiments.table import Row, frontier_markdown, markdown, rows_of, steps_markdown
from terselm.files import write_bytes
from terselm.report.plots import FrontierPoint
from terselm.report.results_plot import Series

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
EXPERIMENTS = ROOT / "benchmarks" / "experiments"

KENLM = Series(
    "KenLM, Kneser-Ney",
    [
        FrontierPoint("3-gram, 8-bit trie", 3_200_000, 148.6),
        FrontierPoint("5-gram, 8-bit trie", 9_400_000, 141.2),
    ],
)
BEST_PRINTED = Series(
    "best printed at such a size",
    [
        FrontierPoint("Chirkova et al. 2018", 1_200_000, 109.2),
        FrontierPoint("Xu et al. 2018, 2 bits", 1_900_000, 91.9),
        FrontierPoint("Xu et al. 2018, 3 bits", 2_800_000, 87.9),
        FrontierPoint("Inan et al. 2017, float32", 10_600_000, 82.7),
    ],
)

HEAD = """# Results

Word-level Penn Treebank, static evaluation: no cache, no dynamic evaluation, no ensembles. Bytes
are those of the file that ships, vocabulary, scales and header in it. Perplexity and microseconds
(one thread, all log-probabilities) are those of the C library. Every row is an experiment file
under [benchmarks/experiments](../benchmarks/experiments); its result file under
[benchmarks/results](../benchmarks/results) has versions, machine, seed, key and seconds, and
`benchmarks/results_page.py` made this page from those. The test text was read once for each run.
"""

PAPER = """## The paper's tables

```
terselm reproduce paper --out paper
```

Beside each row what the paper printed. *met*: at or below its perplexity, in a file that is at
most 1 % larger than it printed (print counts parameters alone, and rounds); *not run*: nothing was
measured, so nothing is said. The paper's milliseconds are those of a phone's GPU and are not
comparable.
"""

FRONTIER = """## The frontier

```
terselm reproduce frontier --out frontier
```

Least perplexity within a budget of true bytes: mean and sample standard deviation over the seeds,
bytes of the largest of their files.
"""

ENTROPY = """### What a coder could still take out

A part's entropy is that of its symbols taken alone (codes by matrix, scales as 16-bit numbers, the
rest byte by byte). The words are front-coded already. Nothing of this is done to the files: a file
that is read in place, by a program with a megabyte of memory, is worth more than its last 7 %
(`benchmarks/entropy_check.py`).
"""

STEPS = """### Steps on the way

Each is an experiment file; those that did not help are here too. Validation text, by which the
steps were chosen.
"""


def results_in(folder: Path, suite: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the results whose experiment is still the one in the suite, by label."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        name, seed = result["name"], result["seed"]
        if name in suite and result["key"] == key_of(name, seed, suite):
            found[path.stem] = result
    return found


def rows_in(name: str) -> list[Row]:
    suite = load_suite(EXPERIMENTS / name)
    return rows_of(suite, list(suite), results_in(RESULTS / name, suite))


def machines(rows: list[Row]) -> str:
    """Return one line on where the rows were run."""
    found = {
        f"{run['machine']['cpu']}, {run['machine']['cores']} cores, torch {run['machine']['torch']}"
        for row in rows
        for run in row.runs
    }
    return f"Run on: {'; '.join(sorted(found))}." if found else ""


def main() -> None:
    paper = rows_in("paper")
    text = [HEAD]
    others = [BEST_PRINTED, KENLM]
    rows = list(paper)
    if (EXPERIMENTS / "frontier").is_dir():
        frontier = rows_in("frontier")
        rows += [row for row in frontier if row.budget is not None]
        text += [FRONTIER, frontier_markdown(frontier), machines(frontier), ""]
        text += [STEPS, steps_markdown(frontier)]
        entropy = RESULTS / "entropy.md"
        if entropy.exists():
            text += [ENTROPY, entropy.read_text()]
    text += [PAPER, markdown(paper), machines(paper)]
    pictures = draw(rows, RESULTS / "results", "Perplexity on PTB test against size", others)
    if pictures:
        text.insert(1, "![Perplexity against bytes](../benchmarks/results/results.png)\n")
    write_bytes(ROOT / "docs" / "results.md", "\n".join(text).rstrip().encode() + b"\n")


if __name__ == "__main__":
    main()
