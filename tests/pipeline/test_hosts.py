"""Trials in PostgreSQL with several workers, and as tasks of Ray: the real servers."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from terselm.pipeline.run import Workers, open_study
from tests.pipeline.conftest import Trained

REASON = "NEEDS POSTGRESQL: install Debian's package postgresql"


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, the newest version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a database of a server of our own."""
    folder = programs()
    if folder is None:
        if os.environ.get("CI"):
            pytest.fail(REASON)
        pytest.skip(REASON)
    # Not in pytest's folder, which is closed to other users whenever a run begins.
    place = Path(tempfile.mkdtemp(prefix="terselm-postgres-"))
    # The server refuses to run as root.
    user = "postgres" if getpass.getuser() == "root" else getpass.getuser()
    before = []
    if getpass.getuser() == "root":
        shutil.chown(place, "postgres")
        before = ["runuser", "-u", "postgres", "--"]
    port = free_port()

    def call(*command: str) -> None:
        done = subprocess.run([*before, *command], capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr

    data = place / "data"
    call(str(folder / "initdb"), "-D", str(data), "-U", user, "-A", "trust", "--no-sync")
    options = f"-p {port} -k {place} -h 127.0.0.1 -F"
    log = str(place / "log")
    call(str(folder / "pg_ctl"), "-D", str(data), "-o", options, "-l", log, "-w", "start")
    try:
        call(str(folder / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", user, "trials")
        yield f"postgresql://{user}@127.0.0.1:{port}/trials"
    finally:
        call(str(folder / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(place)


def started(trained: Trained, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-m", "terselm", "search", str(trained.model)),
        *("--data", str(trained.data), "--out", str(out), *more),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


BUDGET = ("--max-size", "20%", "--time-limit", "60s", "--rounds", "1", "--json")


@pytest.mark.slow
def test_workers_share_a_study_and_one_that_is_killed_loses_its_trial_only(
    trained: Trained, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("psycopg")
    where = ("--storage", postgres, "--study", "shared")
    main = started(trained, tmp_path / "main", *where, *BUDGET)
    workers = [
        started(trained, tmp_path / f"worker{number}", *where, "--worker") for number in range(2)
    ]
    victim = workers[0]
    assert victim.stderr is not None
    for line in victim.stderr:
        if line[:6].strip().isdigit():
            break  # it has finished a trial, and is about to begin another
    time.sleep(0.3)
    victim.send_signal(signal.SIGKILL)
    out, errors = main.communicate(timeout=300)
    assert main.returncode == 0, errors
    workers[1].communicate(timeout=60)
    assert workers[1].returncode == 0
    results = json.loads(out)
    assert results["met"]
    study = open_study(tmp_path, trained.model, Workers(storage=postgres, study="shared"), 0)
    # Two workers may sample the same plan at the same moment; what was asked for is done once.
    keys = [each.key for each in study.candidates() if each.origin != "sampled"]
    assert len(keys) == len(set(keys))
    assert not study.has_waiting()
    for each in results["front"]:
        assert (tmp_path / "main" / each["file"]).stat().st_size == each["bytes"]
    by_worker = list((tmp_path / "worker1" / "models").glob("*.safetensors"))
    assert by_worker, "the other worker did nothing"


@pytest.mark.slow
def test_trials_as_tasks_of_ray(trained: Trained, tmp_path: Path):
    pytest.importorskip("ray")
    process = started(trained, tmp_path / "out", "--ray", "local", *BUDGET)
    out, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    results = json.loads(out)
    assert results["met"]
    assert any(each["trained"] for each in results["candidates"])
    for each in results["front"]:
        assert (tmp_path / "out" / each["file"]).stat().st_size == each["bytes"]


def test_a_cluster_that_does_not_answer(trained: Trained, tmp_path: Path):
    pytest.importorskip("ray")
    process = started(trained, tmp_path / "out", "--ray", "127.0.0.1:1", *BUDGET)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "no cluster answers" in errors
