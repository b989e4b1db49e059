"""What each process of `test_distributed` runs: python -m tests.train.several_processes FOLDER.

Trains the tiny run, plain and with everything on, once in one go and once in two parts, and
leaves weights and perplexities in FOLDER/rank-N.pt.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from terselm.train.distributed import end_process
from tests.train.tiny_run import EVERYTHING, train, weights


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    found: dict[str, Any] = {}
    for name, settings in (("plain", {}), ("everything", EVERYTHING)):
        whole = train(None, {**settings, "epochs": 3})
        train(None, {**settings, "epochs": 2}, folder=folder / name)
        resumed = train(None, {**settings, "epochs": 3}, folder=folder / name, resume=True)
        found[name] = {
            "whole": weights(whole.model),
            "resumed": weights(resumed.model),
            "perplexity": resumed.valid_perplexity,
        }
    torch.save(found, folder / f"rank-{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main()
    end_process(0)
