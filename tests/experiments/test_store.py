"""What a folder of runs keeps, and what of it still holds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from terselm.experiments import store
from terselm.experiments.store import (
    Clock,
    begin_work,
    digests_of,
    end_work,
    model_file,
    publish,
    result_file,
    stored_result,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path


def put(folder: Path, content: bytes, key: str = "k", text: str = "t") -> None:
    model = folder / "work" / "model"
    model.write_bytes(content)
    publish(folder, "run", model, {"key": key, "text": text, "bytes": len(content)})


def test_what_was_published_holds(folder: Path):
    assert stored_result(folder, "run", "k") is None
    put(folder, b"model")
    result = stored_result(folder, "run", "k", "t")
    assert result is not None and result["bytes"] == 5
    assert stored_result(folder, "run", "k") == result
    assert model_file(folder, "run").read_bytes() == b"model"
    assert not (folder / "work" / "model").exists()


def test_another_key_another_text_another_model(folder: Path):
    put(folder, b"model")
    assert stored_result(folder, "run", "other", "t") is None
    assert stored_result(folder, "run", "k", "other") is None
    # As where a command was killed between the two files.
    model_file(folder, "run").write_bytes(b"lemod")
    assert stored_result(folder, "run", "k", "t") is None
    put(folder, b"model")
    model_file(folder, "run").unlink()
    assert stored_result(folder, "run", "k", "t") is None


def test_what_was_made_from_a_model_that_is_another_now(folder: Path):
    """It may be gone: a run that is done needs nothing."""

    def put_base(content: bytes) -> None:
        (folder / "work" / "base").write_bytes(content)
        publish(folder, "base", folder / "work" / "base", {"key": "b"})

    put_base(b"one")
    made_from = digests_of([model_file(folder, "base")])
    (folder / "work" / "small").write_bytes(b"from one")
    publish(folder, "small", folder / "work" / "small", {"key": "s", "made_from": made_from})
    assert stored_result(folder, "small", "s") is not None
    model_file(folder, "base").unlink()
    assert stored_result(folder, "small", "s") is not None
    put_base(b"two")
    assert stored_result(folder, "small", "s") is None
    put_base(b"one")
    assert stored_result(folder, "small", "s") is not None


@pytest.mark.parametrize("text", ["", "[]", "{", "7"])
def test_a_result_that_cannot_be_read_does_not_hold(folder: Path, text: str):
    put(folder, b"model")
    result_file(folder, "run").write_text(text)
    assert stored_result(folder, "run", "k") is None


def test_results_from_before_text_and_model_were_kept(folder: Path):
    put(folder, b"model")
    result_file(folder, "run").write_text(json.dumps({"key": "k"}))
    assert stored_result(folder, "run", "k", "t") == {"key": "k"}


def test_work_on_another_text_begins_anew(folder: Path):
    work = folder / "work" / "run"
    (work / "training").mkdir(parents=True)
    begin_work(work, "one")
    for name in ("lock", "training/checkpoint.pt", "training/metrics.jsonl"):
        (work / name).touch()
    begin_work(work, "one")
    assert (work / "training" / "checkpoint.pt").exists()
    begin_work(work, "two")
    assert {path.name for path in work.iterdir()} == {"lock", "text"}
    begin_work(work, "two", {"base": "1", "other": "2"})
    (work / "trained.safetensors").touch()
    begin_work(work, "two", {"other": "2", "base": "1"})
    assert (work / "trained.safetensors").exists()
    begin_work(work, "two", {"base": "3", "other": "2"})
    assert not (work / "trained.safetensors").exists()


def test_work_that_is_done_leaves_little(folder: Path):
    work = folder / "work" / "run"
    (work / "recovery-1").mkdir(parents=True)
    begin_work(work, "one")
    names = ("lock", "seconds.json", "generated.npy", "recovery-1/checkpoint.pt")
    for name in (*names, "recovery-1/metrics.jsonl"):
        (work / name).touch()
    end_work(work)
    kept = {str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()}
    assert kept == {"lock", "recovery-1/metrics.jsonl"}


def test_seconds_of_a_process_that_was_killed_count(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(store, "SECONDS_BETWEEN_TICKS", 0.01)
    path = tmp_path / "seconds.json"
    path.write_text("100")
    clock = Clock(path)
    with clock:
        deadline = time.monotonic() + 60
        while not float(path.read_text()) > 100:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # A process that is killed here leaves this file, which is whole at any time.
        assert 100 < float(path.read_text()) < 160
    assert clock.seconds == float(path.read_text()) > 100
