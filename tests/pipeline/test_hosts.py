"""Trials in PostgreSQL with several workers, and as tasks of Ray: the real servers."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from terselm.cli.main import main
from terselm.errors import TerselmError, UsageError
from terselm.models.checkpoint import load, save
from terselm.pipeline import helpers as helpers_module
from terselm.pipeline import run as run_module
from terselm.pipeline.budget import Budget
from terselm.pipeline.device import read_profile
from terselm.pipeline.fingerprint import check_fingerprint, fingerprint
from terselm.pipeline.helpers import helpers
from terselm.pipeline.run import Silent, Workers, open_study, search, work
from terselm.pipeline.study import Study
from terselm.pipeline.workbench import Setting, Workbench
from tests.pipeline.conftest import Trained, search_command

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
    where = ("--data", str(trained.data), "--out", str(out))
    command = search_command(str(trained.model), *where, *more)
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
    _, errors = workers[1].communicate(timeout=120)
    assert workers[1].returncode == 0, errors
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
    # A cluster on a busy machine takes its time to start.
    patient = ("180s" if option == "60s" else option for option in BUDGET)
    process = started(trained, tmp_path / "out", "--ray", "local", *patient)
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


class Process:
    """A process that is only noted."""

    started: list[tuple[list[str], dict[str, str]]]

    def __init__(self, command: list[str], *, env: dict[str, str], stdout: int) -> None:
        self.started.append((command, env))

    def terminate(self) -> None:
        pass

    def wait(self) -> None:
        pass


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """Commands and environments of the helpers, none of which is really started."""
    Process.started = []
    monkeypatch.setattr(helpers_module.subprocess, "Popen", Process)
    return Process.started


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    values = {
        "device_profile": 1,
        "machine": {"cpu": "a device"},
        "kernels": "portable",
        "model": {"bytes_read": 1000},
        "step_and_probabilities_us": {"median": 10.0},
    }
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(values))
    return path


def test_helpers_take_times_of_the_same_device(
    trained: Trained,
    profile: Path,
    processes: list[tuple[list[str], dict[str, str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    out = tmp_path / "out"
    setting = Setting(trained.model, str(trained.data), out, profile=read_profile(profile))
    with helpers(setting, profile, url=f"sqlite:///{tmp_path}/trials", study="search", jobs=2):
        ((command, _),) = processes
    benches: list[Workbench] = []
    monkeypatch.setattr(run_module, "serve", lambda bench, *others: benches.append(bench))
    with pytest.raises(SystemExit) as caught:
        main(command[3:])
    assert not caught.value.code
    (bench,) = benches
    assert bench.setting == setting


def test_every_process_takes_its_share_of_the_cores(
    trained: Trained,
    processes: list[tuple[list[str], dict[str, str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    setting = Setting(trained.model, str(trained.data), tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    before = torch.get_num_threads()
    try:
        for allowed, share in ((6, 2), (1, 1)):
            torch.set_num_threads(allowed)
            with helpers(setting, None, url="sqlite://", study="search", jobs=3):
                assert torch.get_num_threads() == share
            assert torch.get_num_threads() == allowed
            assert [each["OMP_NUM_THREADS"] for _, each in processes] == [str(share)] * 2
            processes.clear()
    finally:
        torch.set_num_threads(before)


def test_a_study_has_times_of_one_device(trained: Trained, profile: Path, tmp_path: Path):
    here = Setting(trained.model, str(trained.data), tmp_path)
    there = replace(here, profile=read_profile(profile))
    study = Study(f"sqlite:///{tmp_path / 'trials'}", "older", 0)
    older = fingerprint(Workbench(here))
    del older["profile"]
    study.note("fingerprint", older)
    check_fingerprint(study, Workbench(here))
    with pytest.raises(UsageError, match="another device profile"):
        check_fingerprint(study, Workbench(there))
    study = Study(f"sqlite:///{tmp_path / 'trials'}", "newer", 0)
    check_fingerprint(study, Workbench(there))
    check_fingerprint(study, Workbench(there))


@pytest.mark.parametrize("budget", [Budget("100%"), Budget("1%")], ids=["met", "impossible"])
def test_no_worker_waits_for_a_search_that_ended_at_once(
    budget: Budget, trained: Trained, tmp_path: Path
):
    workers = Workers(storage=f"sqlite:///{tmp_path / 'study'}", study="search")
    with suppress(TerselmError):
        search(trained.model, budget, data=str(trained.data), out=tmp_path / "out", workers=workers)
    with pytest.raises(UsageError, match="is over"):
        work(
            trained.model,
            data=str(trained.data),
            out=tmp_path / "worker",
            seed=0,
            kernels=None,
            device_profile=None,
            workers=workers,
            parent=None,
            watcher=Silent(),
        )


def test_files_of_another_search_are_not_taken(trained: Trained, tmp_path: Path):
    model = load(trained.model)
    model.output.bias.data += 0.1
    other = tmp_path / "other.safetensors"
    save(model, other)
    text, out = str(trained.data), tmp_path / "out"

    def search_for(model: Path, storage: str, **options: Any) -> dict[str, Any]:
        workers = Workers(storage=f"sqlite:///{tmp_path / storage}", study="search")
        return search(model, Budget("100%"), data=text, out=out, workers=workers, **options)

    assert search_for(trained.model, "first")["fits"]
    assert search_for(trained.model, "first")["fits"]
    kept = (out / "source-nats.npy").read_bytes()
    with pytest.raises(UsageError, match="files of another search, of another model file"):
        search_for(other, "second")
    with pytest.raises(UsageError, match="files of another search, of another seed"):
        search_for(trained.model, "first", seed=1)
    with pytest.raises(UsageError, match="files of another search, of another study"):
        search_for(trained.model, "second")
    with pytest.raises(UsageError, match="files of another search, of another model file"):
        work(
            other,
            data=text,
            out=out,
            seed=0,
            kernels=None,
            device_profile=None,
            workers=Workers(storage=f"sqlite:///{tmp_path / 'second'}", study="search"),
            parent=None,
            watcher=Silent(),
        )
    assert (out / "source-nats.npy").read_bytes() == kept
