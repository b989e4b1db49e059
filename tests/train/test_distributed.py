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


def two_processes(folder: Path) -> list[dict[str, Any]]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    # `accelerate launch` starts several CPU processes only through MPI; on GPUs it uses this.
    launch = ["torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    program = ["-m", "tests.train.several_processes", str(folder)]
    subprocess.run(
        [sys.executable, "-m", *launch, *program],
        cwd=REPOSITORY,
        env=environment,
        check=True,
        timeout=300,
    )
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
def test_two_processes(tmp_path):
    ranks = two_processes(tmp_path)
    for name in ("plain", "everything"):
        first, second = (rank[name] for rank in ranks)
        for weight, value in first["resumed"].items():
            assert torch.equal(value, second["resumed"][weight]), f"{weight} differs by process"
            # Hidden state and random state of each process are resumed.
            assert torch.equal(value, first["whole"][weight]), f"{weight} differs by a resume"
        assert first["perplexity"] == second["perplexity"]
        files = sorted(path.name for path in (tmp_path / name).iterdir())
        assert files == ["checkpoint.pt", "lock", "metrics.jsonl"]
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        assert sum('"valid_perplexity"' in line for line in lines) == 3
    # The same streams, half of them in each process: the same gradients, but for rounding.
    alone = train(None, {"epochs": 3})
    for weight, value in weights(alone.model).items():
        found = ranks[0]["plain"]["resumed"][weight]
        torch.testing.assert_close(found, value, atol=1e-4, rtol=1e-3)
    assert ranks[0]["plain"]["perplexity"] == pytest.approx(alone.valid_perplexity, rel=1e-4)


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
