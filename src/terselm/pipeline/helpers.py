"""The other processes of this machine that do trials of a search."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from terselm.errors import UsageError
from terselm.pipeline.workbench import Setting


@contextmanager
def helpers(
    setting: Setting, profile: Path | None, *, url: str, study: str, jobs: int
) -> Iterator[None]:
    """Run the other processes while the block runs, and keep to this one's share of the cores.

    Parameters
    ----------
    setting : Setting
    profile : Path or None
        The file that the setting's device profile comes from.
    url, study : str
        Address of the study, and its name there.
    jobs : int
        Processes, this one included.

    Raises
    ------
    UsageError
        If that is less than one.
    """
    if jobs < 1:
        raise UsageError(f"--jobs is {jobs}; it must be at least 1")
    command = [
        *(sys.executable, "-m", "terselm", "search", str(setting.model)),
        *("--data", setting.data, "--out", str(setting.folder), "--seed", str(setting.seed)),
        *("--storage", url, "--study", study, "--worker", "--worker-of", str(os.getpid())),
        *(["--kernels", setting.kernels] if setting.kernels else []),
        *(["--device-profile", str(profile)] if profile is not None else []),
    ]
    before = torch.get_num_threads()
    threads = _share(before, jobs)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        for _ in range(jobs - 1)
    ]
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def _share(threads: int, jobs: int) -> int:
    """Return the threads of each process: its share of the cores, no more than are allowed."""
    return max(1, min(threads, (os.cpu_count() or 1) // jobs))
