"""The page of results, docs/results.md, from committed result files of `terselm reproduce`.

    python benchmarks/results_page.py

The result files are those of results/paper and results/frontier; a row without one, or with one
that an older version of its experiment file made, is "not run".
"""

from __future__ import annotations

import json
from collections.abc import Iterable
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

KENLM = RESULTS / "kenlm.json"


def _all_named(name: str, *points: FrontierPoint) -> Series:
    return Series(name, points, named=points)


BEST_PRINTED = _all_named(
    "best printed, size estimated",
    FrontierPoint("Chirkova 2018", 1_200_000, 109.2),
    FrontierPoint("Xu 2018, 2 bits", 1_900_000, 91.9),
    FrontierPoint("Xu 2018, 3 bits", 2_800_000, 87.9),
    FrontierPoint("Inan 2017", 10_600_000, 82.7),
)

HEAD = """# Results

Word-level Penn Treebank, static evaluation: no cache, no dynamic evaluation. A merged model is
several networks in one file, all of which counts. Bytes are those of the file that ships,
vocabulary, scales and header in it. Perplexity and microseconds
(one thread, all log-probabilities) are those of the C library. Most times were taken while another
run trained beside it; [runtime.md](runtime.md#speed) has those of an idle machine. Every row is an
experiment file under [benchmarks/experiments](../benchmarks/experiments); its result file under
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

*Met* says nothing of equal training: some rows had more epochs, or dropout, that the dense model of
the same size did not have, and one stores its biases in 16 bits. The notes below the table say
which.
"""

PICTURE = """### What the picture shows

Blue points are files measured here, named where they are models of the frontier. Squares are rows
of the paper, with the megabytes that it printed. The others are no files of terselm:

* **best printed**: perplexities as printed, sizes our estimates from the bits of the parameters,
  without vocabulary and header. Chirkova et al. 2018, about 1.2 MB: 0.59 M non-zero weights at two
  bytes each, their positions not counted; the paper that is reproduced here has the same perplexity
  in its Table 2 (LSTM-SparseVD) with 3.30 M parameters and no size. Xu et al. 2018, one layer of
  300 units: 1.9 and 2.8 MB are the upper ends of 1.7 to 1.9 MB (weights in 2 bits) and 2.5 to 2.8
  MB (3 bits). Inan et al. 2017, 10.6 MB: 2.65 M parameters in float32.
* **KenLM**: 3- and 5-gram models with modified Kneser-Ney smoothing in 8-bit tries
  (`benchmarks/kenlm.py`):
  {kenlm}.
"""

FRONTIER = """## The frontier

```
terselm reproduce frontier --out frontier
```

Least perplexity within a budget of true bytes: mean and sample standard deviation over the seeds,
bytes of the largest of their files. *ppl* is perplexity; *mark* is the test perplexity that was to
be reached within the budget, *stretch* a better one that was hoped for.
"""

ENTROPY = """### What a coder could still take out

A part's entropy is that of its symbols taken alone (codes by matrix, scales as 16-bit numbers, the
rest byte by byte). The words are front-coded already. Off the whole files
({models}), xz takes {xz};
with every part at its entropy they would lose {parts}.
Nothing of this is done to the files: one that is read in place, by a program with a megabyte of
memory, is worth more (`benchmarks/entropy_check.py`).
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
    """Return where the rows were run, and which of them from files that were not committed."""
    runs = [run for row in rows for run in row.runs]
    found = {
        f"{run['machine']['cpu']}, {run['machine']['cores']} cores, torch {run['machine']['torch']}"
        for run in runs
    }
    dirty = sorted({run["name"] for run in runs if (run["commit"] or "").endswith("-dirty")})
    if not found:
        return ""
    text = f"Run on: {'; '.join(sorted(found))}."
    if dirty:
        names = ", ".join(f"`{name}`" for name in dirty)
        text += f"\n\nRun with changes in the checkout that were not committed: {names}."
    return f"{text}\n"


def kenlm_models() -> list[dict[str, Any]]:
    """Return what was measured of KenLM's models; that of two words would stretch the picture."""
    models: list[dict[str, Any]] = json.loads(KENLM.read_text())["models"]
    return [each for each in models if each["order"] > 2]


def kenlm_text() -> str:
    """Return bytes and perplexities of KenLM's models."""
    return ";\n  ".join(
        f"{each['bytes']:,} bytes, valid {each['valid']:.2f}, test {each['test']:.2f}"
        for each in kenlm_models()
    )


def entropy_text() -> str:
    """Return what coders would take off each file, by the result file."""
    found = json.loads((RESULTS / "entropy.json").read_text())["models"]
    whole, parts = [], []
    for model in found.values():
        taken = sum(part["bytes"] - part["entropy_bytes"] for part in model["parts"].values())
        whole.append(1 - model["xz_bytes"] / model["bytes"])
        parts.append(taken / model["bytes"])
    return ENTROPY.format(xz=_each(whole), parts=_each(parts), models=_listed(found))


def _each(shares: list[float]) -> str:
    return f"{_listed([f'{100 * share:.1f}' for share in shares])} %"


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def others() -> list[Series]:
    """Return what is no model of terselm and no row of the paper."""
    kenlm = [
        FrontierPoint(f"{each['order']}-gram", each["bytes"], each["test"])
        for each in kenlm_models()
    ]
    return [BEST_PRINTED, _all_named("KenLM", *kenlm)]


def main() -> None:
    paper = rows_in("paper")
    text = [HEAD]
    budgets: list[Row] = []
    if (EXPERIMENTS / "frontier").is_dir():
        frontier = rows_in("frontier")
        budgets = [row for row in frontier if row.budget is not None]
        text += [FRONTIER, frontier_markdown(frontier), machines(frontier)]
        text += [STEPS, steps_markdown(frontier)]
        entropy = RESULTS / "entropy.md"
        if entropy.exists():
            text += [entropy_text(), entropy.read_text()]
    text += [PAPER, markdown(paper), machines(paper)]
    title = "Perplexity on PTB test against size"
    if draw([*paper, *budgets], RESULTS / "results", title, others(), budgets):
        text.insert(1, "![Perplexity against bytes](../benchmarks/results/results.png)\n")
        text.append(PICTURE.format(kenlm=kenlm_text()))
    write_bytes(ROOT / "docs" / "results.md", "\n".join(text).rstrip().encode() + b"\n")


if __name__ == "__main__":
    main()
