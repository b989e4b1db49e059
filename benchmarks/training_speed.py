"""Tokens a second: terselm's training loop against the plainest one over nn.LSTM.

    PYTHONPATH=src python benchmarks/training_speed.py [--quick]

Both train the same sizes on the same random text with the same optimizer and clipping. Every
measurement is a process of its own, in turns, so that neither inherits the other's memory and
a change of the machine's mood hits both. "plain" is left as torch is; "plain, buffers kept"
has the same setting of the C library that terselm makes (src/terselm/train/memory.py). The plain
loop computes in float32; terselm in that too, and in bfloat16 as it does by itself where the
processor can.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import describe_machine

RESULTS = Path(__file__).parent / "results" / "training_speed.json"
VOCABULARY = 10_000
BATCH = 20
OURS = {"terselm float32": "float32", "terselm bfloat16": "bfloat16"}
CONTENDERS = (*OURS, "plain", "plain, buffers kept")
SIZES = {
    "lstm-200, window 20": {"hidden": 200, "window": 20, "steps": 120},
    "lstm-200, window 35": {"hidden": 200, "window": 35, "steps": 80},
    "lstm-650, window 35": {"hidden": 650, "window": 35, "steps": 30},
}
QUICK_STEPS = 5
WARM_STEPS = 3


def plain(hidden: int, window: int, steps: int) -> float:
    """Seconds of `steps` of the loop that everyone writes first."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, hidden)
            self.lstm = nn.LSTM(hidden, hidden, 2)
            self.output = nn.Linear(hidden, VOCABULARY)

        def forward(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            outputs, state = self.lstm(self.embedding(tokens), state)
            return self.output(outputs), state

    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    text = torch.randint(VOCABULARY, ((WARM_STEPS + steps) * window + 1, BATCH))
    state = tuple(torch.zeros(2, BATCH, hidden) for _ in range(2))
    started = 0.0
    for step in range(WARM_STEPS + steps):
        if step == WARM_STEPS:
            started = time.perf_counter()
        inputs = text[step * window : (step + 1) * window]
        targets = text[step * window + 1 : (step + 1) * window + 1]
        optimizer.zero_grad()
        logits, state = model(inputs, state)
        state = tuple(part.detach() for part in state)
        loss = nn.functional.cross_entropy(logits.view(-1, VOCABULARY), targets.reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
    return time.perf_counter() - started


def ours(precision: str, hidden: int, window: int, steps: int) -> float:
    """Seconds that `fit` counts as training, for `steps` after a warm epoch."""
    import numpy as np
    import torch

    from terselm.models.config import ModelConfig
    from terselm.models.language_model import LanguageModel
    from terselm.text.build import vocabulary_from_words
    from terselm.train.config import TrainingConfig
    from terselm.train.loop import fit

    words = ["<eos>", "<unk>", *(f"w{number}" for number in range(VOCABULARY - 2))]
    torch.manual_seed(0)
    config = ModelConfig(cell="lstm", hidden=(hidden, hidden), embedding=hidden)
    model = LanguageModel(config, vocabulary_from_words(words))
    draw = np.random.default_rng(0)
    settings = {
        "learning_rate": 1.0,
        "epochs": 1,
        "batch": BATCH,
        "window": window,
        "precision": precision,
    }
    warm = draw.integers(VOCABULARY, size=WARM_STEPS * window * BATCH)
    fit(model, warm, TrainingConfig(**settings), device="cpu")
    text = draw.integers(VOCABULARY, size=steps * window * BATCH)
    result = fit(model, text, TrainingConfig(**settings), device="cpu")
    return len(text) / result.tokens_per_second


def measure(contender: str, size: dict[str, int], threads: int) -> float:
    """Tokens a second, in a process of its own."""
    command = [sys.executable, __file__, "--one", contender, json.dumps(size)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    answer = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout
    return BATCH * size["window"] * size["steps"] / float(answer.split()[-1])


def run_one(contender: str, size: dict[str, int]) -> None:
    if contender == "plain, buffers kept":
        from terselm.train.memory import keep_large_buffers

        keep_large_buffers()
    print(ours(OURS[contender], **size) if contender in OURS else plain(**size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps, nothing is written")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(options.one[0], json.loads(options.one[1]))
        return
    repeats = 1 if options.quick else options.repeats
    results = {}
    for name, size in SIZES.items():
        if options.quick:
            size = {**size, "steps": QUICK_STEPS}
        found: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
        for _ in range(repeats):
            for contender in CONTENDERS:
                found[contender].append(measure(contender, size, options.threads))
        medians = {contender: statistics.median(values) for contender, values in found.items()}
        results[name] = {
            **size,
            "tokens_per_second": {
                contender: {"median": round(medians[contender], 1), "all": values}
                for contender, values in found.items()
            },
            "over_plain": {who: round(medians[who] / medians["plain"], 3) for who in CONTENDERS},
        }
        shown = ", ".join(f"{who} {median:,.0f}" for who, median in medians.items())
        ratios = ", ".join(f"{results[name]['over_plain'][who]}" for who in OURS)
        print(f"{name}: {shown} tokens/s; terselm / plain {ratios}")
    if not options.quick:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "vocabulary": VOCABULARY,
            "batch": BATCH,
            "repeats": repeats,
            "machine": describe_machine(options.threads),
            "results": results,
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
