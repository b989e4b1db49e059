"""The page of method results, docs/methods.md, from the result files of methods.py.

    python benchmarks/methods_page.py

Their tables and pictures are made anew from the same files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from methods import TITLES, draw, table_of

from terselm.files import write_bytes
from terselm.report.table import Column, Table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MODELS = ("methods-lstm-650", "methods-lstm-200", "methods-shakespeare-256")
PRESETS = "lstm-650-presets.json"

HEAD = """# What each method costs

Every method of terselm on three trained models: bytes of the file against perplexity on
validation text. `benchmarks/methods.py` measured the rows ([experiments/methods.yaml][rows] has
the recipes), `benchmarks/methods_page.py` wrote this page from its result files.

* The LSTM 650-650 is that of the [paper's table](results.md#the-papers-tables), which is trained
  out (test perplexity 75.83; the paper prints 82.07). The LSTM 200-200 was trained briefly
  elsewhere and imported: more training makes it better whatever is done to it. Its file is not in
  this repository, and it is another model than the one of [results.md](results.md).
* The presets were measured on the same LSTM 650-650: all of the validation and of the test text, by
  PyTorch.
* Perplexities are PyTorch's, of the model in memory; those of the C library differ by its rounding
  of inputs (0.04 % on the LSTM 650-650 in 4 bits, see
  [runtime.md](runtime.md#what-is-exact-and-what-rounds)).
* **bytes** are those of the file before any training after the step, where that was measured; after
  it a file differs by at most {differ} bytes, since its header says how it was made.
* **ratio** is to the dense model, without any training after the step.
* **textbook** is the ratio that the textbook version of the method reached on the same model, text
  and share of bytes or weights ([textbook.py](../benchmarks/textbook.py) is that version). The
  levels of its codes lie beside zero and not on it, which on the two models of words costs a little
  less than ours at 4 bits in groups of 32.
* **recovered** is the perplexity after training on the first {share:.0%} of the training text
  (AdamW at 0.0005, codes trained straight-through, masks and ranks fixed). The LSTM 650-650 had its
  fill of that text, so there the compressed model learns what the dense one says of it; the dense
  model, which has nothing to learn from itself, is the control that **ratio to control** refers
  to. On the two others the compressed model learns from the text, and so did the dense one, as
  the control. A training that makes validation perplexity worse is undone, and the figure is that
  from before. One seed. Rows that say "training, then" spend the same training on text before the
  codes are made; rows of "a whole epoch" train on the whole text.
* Calibration text is the first {calibration:,} tokens of the training text. Values of pruned
  matrices are float16 where the row's recipe says so; factors are float32.
* Tensor trains were not measured on the LSTM 650-650: their decompositions and their training
  take hours there, and on the two smaller models they lose to low rank of the same bytes.
* `prune_vocabulary` is not in the tables, since it changes what is predicted, nor is
  `sparse_variational`, which needs tens of epochs.

## Which one to take

* You have a budget: let `terselm search` find it ([search.md](search.md)).
* Bytes alone: 8 bits cost next to nothing on the three models below (at most 0.01 %), `gptq` in
  groups of 32 with 4 bits 0.1 to 0.7 %, with 3 bits 0.6 to 2.5 %, with 2 bits in groups of 16 1.9
  to 7.9 %.
* Time, too: `rank_budget`, then `gptq`: fewer numbers are read. At half the parameters
  `rank_budget` costs 1.5 to 6.5 % before any training.
* Text and time to train: `recover` between the two, as the presets `small` and `tiny` do. A model
  that is trained out takes whole epochs: within a fifth of one the LSTM 650-650 won back most of
  what was lost where that was much (two bits by `binary_codes`, 12 to 3 %; 70 % pruned by
  `magnitude`, 14 to 3 %; a quarter of the units, 46 to 5 %), and little or nothing where it was
  below 3 %.
* Several models of the same words: `terselm merge`, before or after each is compressed. Trained
  apart they err in different places. An LSTM 832 and an LSTM 704 in 4 and 3 bits, at 82.3 and 84.3
  on PTB's validation text, are at 74.4 together, in 4.8 MB (`step-5mb-merged` in
  [results.md](results.md#steps-on-the-way)); two students of the same teachers gain little (81.7,
  from 82.2).
* Not for speed: a token of an LSTM 650-650 took 350 µs in 4 bits, 2,840 by `kmeans` in 3 bits and
  4,358 with 90 % pruned ([results.json](searches/5mb/results.json)).

[rows]: ../benchmarks/experiments/methods.yaml
"""


def load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def protocol_of(result: dict[str, Any]) -> str:
    protocol = result["protocol"]
    if "steps" in protocol:
        protocol = f"first {protocol} of 20 parallel streams of the validation text"
    training = f"Dropout {result['dropout']} in the training of recovered rows."
    if result.get("distill"):
        training = "The dense model taught the recovered rows, without dropout."
    return f"Perplexity: {protocol}. {training}"


def section(name: str) -> list[str]:
    result = load(name)
    title = TITLES[result["model"].removesuffix(".safetensors")]
    table = table_of(result["rows"])
    write_bytes(RESULTS / f"{name}.md", table.encode())
    draw(result["rows"], RESULTS / name, title)
    machine = result["machine"]
    text = [
        f"## {title}",
        "",
        protocol_of(result),
        f"Machine: {machine['processor']}, torch {machine['torch']}.",
        "",
        f"![without training](../benchmarks/results/{name}.png)",
    ]
    if "recovered" in result["rows"]["dense"]:
        text += ["", f"![with recovery](../benchmarks/results/{name}-recovered.png)"]
    return [*text, "", table]


def presets() -> list[str]:
    result = load(PRESETS.removesuffix(".json"))
    columns = [Column("preset", "left"), Column("bytes"), Column("validation"), Column("test")]
    rows = [
        (
            row["name"],
            f"{row['bytes']:,}",
            f"{row['valid_perplexity']:.2f}",
            f"{row['test_perplexity']:.2f}" if "test_perplexity" in row else "",
        )
        for row in result["rows"]
    ]
    return [
        "## The presets, on the LSTM 650-650",
        "",
        Table(columns, rows).markdown(),
        "",
    ]


def main() -> None:
    results = [load(name) for name in MODELS]
    differ = max(
        abs(row["recovered"]["bytes"] - row["bytes"])
        for result in results
        for row in result["rows"].values()
        if "bytes" in row and "recovered" in row
    )
    head = HEAD.format(
        share=results[0]["recover"],
        calibration=results[0]["calibration_tokens"],
        differ=differ,
    )
    parts = [head, *presets()]
    for name in MODELS:
        parts += section(name)
    write_bytes(ROOT / "docs" / "methods.md", ("\n".join(parts).rstrip() + "\n").encode())


if __name__ == "__main__":
    main()
