"""Two processes on the CPU train as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from terselm.errors import UsageError
from terselm.train.distributed import AcceleratedWorkers, Workers, start_workers
from tests.conftest import REPOSITORY
from tests.train.tiny_run import train, weights


def two_processes(folder: Path, what: str) -> list[dict[str, Any]]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    # `accelerate launch` starts several CPU processes only through MPI; on GPUs it uses this.
    launch = ["torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    program = ["-m", "tests.train.several_processes", str(folder), what]
    subprocess.run(
        [sys.executable, "-m", *launch, *program],
        cwd=REPOSITORY,
        env=environment,
        check=True,
        timeout=300,
    )
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["plain", "everything"])
def test_two_processes(what: str, tmp_path):
    first, second = two_processes(tmp_path, what)
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), f"{name} differs between processes"
        # Resumed, with hidden and random state of each process.
        assert torch.equal(value, first["whole"][name]), f"{name} differs after a resume"
    assert first["perplexity"] == second["perplexity"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoint.pt",
        "metrics.jsonl",
    ]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert sum('"valid_perplexity"' in line for line in lines) == 3
    if what == "plain":
        # The same streams, half of them in each process: the same gradients, but for rounding.
        alone = train(None, {"epochs": 3})
        for name, value in weights(alone.model).items():
            torch.testing.assert_close(first["weights"][name], value, atol=1e-4, rtol=1e-3)
        assert first["perplexity"] == pytest.approx(alone.valid_perplexity, rel=1e-4)


def test_one_process_does_without_accelerate(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert type(start_workers("cpu")) is Workers
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ImportError):
        start_workers("cpu")


def test_one_process_agrees_with_itself():
    workers = Workers("cpu")
    assert workers.agree(2, step=1, last=False) == 2
    assert workers.gather("a") == ["a"]
    assert workers.on_main(lambda: 3) == 3
    assert issubclass(AcceleratedWorkers, Workers)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_here():
    with pytest.raises(UsageError, match="CUDA"):
        start_workers("cuda")
