"""`terselm reproduce`, from experiment files to the table."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from terselm.cli.main import main
from terselm.evaluate.native import evaluate_file
from terselm.experiments.experiment import Experiment
from terselm.experiments.schedule import Plan, _runs, jobs_that_fit
from terselm.models.checkpoint import load
from terselm.text.corpus import open_corpus
from tests.experiments.conftest import TRAIN, WriteSuite

PUBLISHED = {"where": "Table 1", "megabytes": 10, "perplexity": 1000.0}
SUITE: dict[str, dict[str, Any]] = {
    "dense": {"train": TRAIN, "published": PUBLISHED},
    "small": {
        "start": "dense",
        "compress": [
            {"method": "low_rank", "weights": "output", "rank": 3},
            {"method": "recover", "epochs": 1, "batch": 4, "distill": True},
            {"method": "quantize", "weights": "*", "bits": 8},
        ],
        "published": {**PUBLISHED, "row": 1},
    },
    "taught": {"train": {**TRAIN, "hidden": 4}, "teacher": "dense", "seeds": [0, 1]},
}


def command(suite: Path, out: Path, data: Path, *more: str) -> list[str]:
    begin = [sys.executable, "-m", "terselm", "reproduce", str(suite), "--out", str(out)]
    return [*begin, "--data", str(data), *more]


def wait_for(words: str, log: Path, process: subprocess.Popen[Any]) -> None:
    """Wait until the log of a run says so."""
    deadline = time.monotonic() + 120
    while not (log.exists() and words in log.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)


@dataclass(frozen=True)
class Done:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def reproduce(suite: Path, out: Path, data: Path, *more: str) -> Done:
    """Do the command in this process, where PyTorch is loaded already."""
    said, remarked = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(remarked),
        pytest.raises(SystemExit) as caught,
    ):
        main(command(suite, out, data, "--jobs", "1", *more)[3:])
    return Done(int(caught.value.code or 0), said.getvalue(), remarked.getvalue())


def results(out: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in (out / "results").iterdir()}


def test_runs_everything_once(tmp_path: Path, corpus: Path, write_suite: WriteSuite):
    folder, out = write_suite(SUITE), tmp_path / "out"
    first = reproduce(folder, out, corpus, "--json")
    assert first.returncode == 0, first.stderr
    # A model that teaches a seed is trained with that seed too.
    assert set(results(out)) == {"dense", "dense-seed-1", "small", "taught", "taught-seed-1"}
    small = results(out)["small"]
    path = out / "models" / "small.safetensors"
    assert small["bytes"] == path.stat().st_size < results(out)["dense"]["bytes"]
    found = evaluate_file(path, open_corpus(corpus), "test").perplexity
    assert small["test"]["perplexity"] == pytest.approx(found, rel=1e-9)
    recipe = load(path).provenance["recipe"]
    assert [step["method"] for step in recipe] == ["low_rank", "recover", "quantize"]
    shown = {row["name"]: row for row in json.loads(first.stdout)["suite"]}
    assert shown["dense"]["verdict"] == "met"
    assert shown["taught"]["seeds"] == [0, 1]
    assert "| Table 1 | small |" in (out / "table.md").read_text()
    assert "epoch 2/2" in (out / "logs" / "dense.log").read_text()

    written = {path: path.stat().st_mtime_ns for path in out.rglob("results/*.json")}
    again = reproduce(folder, out, corpus)
    assert again.returncode == 0 and "begun" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in written} == written

    # Another title runs nothing; another setting runs the row and what is made from it.
    write_suite({"taught": {**SUITE["taught"], "title": "Taught"}})
    assert "begun" not in reproduce(folder, out, corpus).stderr
    write_suite({"small": {**SUITE["small"], "compress": SUITE["small"]["compress"][::2]}})
    changed = reproduce(folder, out, corpus)
    assert [line for line in changed.stderr.splitlines() if "begun" in line] == [
        f"small: begun, log in {out / 'logs' / 'small.log'}"
    ]


def test_other_text_is_learned_anew(tmp_path: Path, corpus: Path, write_suite: WriteSuite):
    small = {"start": "dense", "compress": SUITE["small"]["compress"][2:]}
    folder, out = write_suite({"dense": {"train": TRAIN}, "small": small}), tmp_path / "out"
    assert reproduce(folder, out, corpus).returncode == 0
    first = results(out)
    train = corpus / "train.txt"
    train.write_text(train.read_text() + "nine nine nine\n")
    (corpus / "notes.md").write_text("no text to learn")
    assert reproduce(folder, out, corpus).stderr.count("begun") == 2
    second = results(out)
    assert all(second[name]["text"] != first[name]["text"] for name in ("dense", "small"))
    assert all(second[name]["key"] == first[name]["key"] for name in ("dense", "small"))
    # The table alone takes what is there.
    table = reproduce(folder, out, tmp_path / "gone", "--table-only", "--json")
    assert table.returncode == 0, table.stderr


def test_steps_do_not_read_the_test_text(tmp_path: Path, corpus: Path, write_suite: WriteSuite):
    small = {**SUITE["small"], "published": None, "budget": {"megabytes": 1, "mark": 1000.0}}
    suite = {"dense": {"train": TRAIN}, "small": small}
    done = reproduce(write_suite(suite), tmp_path / "out", corpus, "--json")
    assert done.returncode == 0, done.stderr
    found = results(tmp_path / "out")
    assert "test" not in found["dense"] and "test" in found["small"]
    shown = {row["name"]: row for row in json.loads(done.stdout)["suite"]}
    assert shown["dense"]["verdict"] == "run" and shown["dense"]["test_perplexity"] is None
    assert shown["small"]["verdict"] == "met"
    # A step that gets a budget is measured, not made anew.
    model = tmp_path / "out" / "models" / "dense.safetensors"
    before = model.stat().st_mtime_ns
    folder = write_suite({"dense": {"train": TRAIN, "budget": {"megabytes": 1, "mark": 1000.0}}})
    assert reproduce(folder, tmp_path / "out", corpus).returncode == 0
    assert "test" in results(tmp_path / "out")["dense"]
    assert model.stat().st_mtime_ns == before


def test_teachers_and_what_they_write(tmp_path: Path, corpus: Path, write_suite: WriteSuite):
    learn = {"method": "recover", "epochs": 1, "batch": 4, "distill": True, "distill_weight": 1}
    rows = {
        "dense": {"train": TRAIN},
        "wide": {"train": {**TRAIN, "hidden": 12, "embedding": 8}},
        "alone": {"start": "dense", "teacher": "wide", "compress": [learn]},
        "pupil": {"start": "dense", "teacher": ["dense", "wide"], "compress": [learn]},
        "beginner": {"train": TRAIN, "teacher": ["dense", "wide"]},
        "reader": {"train": TRAIN, "teacher": ["dense", "wide"], "generated": 3000},
        "stranger": {
            "start": "dense",
            "teacher": "wide",
            "generated": 100,
            "compress": [
                {"method": "prune_vocabulary", "keep": 5},
                {"method": "recover", "epochs": 1, "batch": 4},
            ],
        },
    }
    done = reproduce(write_suite(rows), tmp_path / "out", corpus, "--json")
    assert done.returncode == 1
    assert "stranger: failed" in done.stderr and "the teachers' words" in done.stderr
    del rows["stranger"]
    found = {name: each["valid"]["perplexity"] for name, each in results(tmp_path / "out").items()}
    assert set(found) == set(rows)
    assert found["pupil"] != found["alone"]
    assert len({found["dense"], found["beginner"], found["reader"]}) == 3

    # Of a run that is done, checkpoints and generated text are not kept.
    (of_reader,) = (tmp_path / "out" / "work").glob("reader-*")
    kept = {path.name for path in of_reader.rglob("*") if path.is_file()}
    assert kept == {"lock", "metrics.jsonl"}

    def steps(name: str) -> int:
        (path,) = (tmp_path / "out" / "work").glob(f"{name}-*/training/metrics.jsonl")
        return int(json.loads(path.read_text().splitlines()[-1])["step"])

    assert steps("reader") > 2 * steps("beginner")


def test_a_row_that_fails_does_not_stop_the_others(
    tmp_path: Path, corpus: Path, write_suite: WriteSuite
):
    folder = write_suite(
        {
            "bad": {"train": {**TRAIN, "window": 10_000_000, "batch": 3_000_000}},
            "after": {"start": "bad", "compress": [{"method": "quantize", "bits": 8}]},
            "good": {"train": TRAIN},
            "huge": {"train": {**TRAIN, "hidden": 1_000_000}},
            "other-words": {"train": {**TRAIN, "vocabulary_size": 9}, "teacher": "good"},
        }
    )
    done = reproduce(folder, tmp_path / "out", corpus)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 0
    assert "4 runs failed" in done.stderr and "since bad failed" in done.stderr
    assert "huge: failed: " in done.stderr and "other-words: failed: vocab" in done.stderr
    assert set(results(tmp_path / "out")) == {"good"}


def test_only_some_rows_and_the_table_alone(tmp_path: Path, corpus: Path, write_suite: WriteSuite):
    folder, out = write_suite(SUITE), tmp_path / "out"
    table = reproduce(folder, out, corpus, "--table-only")
    assert table.returncode == 0 and table.stdout.count("not run") == 2
    assert not (out / "results").exists()
    assert reproduce(folder, out, corpus, "--rows", "dense").returncode == 0
    assert set(results(out)) == {"dense"}
    unknown = reproduce(folder, out, corpus, "--rows", "dens")
    assert unknown.returncode == 2 and "did you mean 'dense'" in unknown.stderr


def test_a_row_that_is_done_needs_nothing(tmp_path: Path, corpus: Path, write_suite: WriteSuite):
    folder, out = write_suite(SUITE), tmp_path / "out"
    assert reproduce(folder, out, corpus, "--rows", "small").returncode == 0
    (out / "models" / "dense.safetensors").unlink()
    again = reproduce(folder, out, corpus, "--rows", "small")
    assert again.returncode == 0 and "begun" not in again.stderr


def test_only_some_seeds(tmp_path: Path, corpus: Path, write_suite: WriteSuite):
    folder, out = write_suite(SUITE), tmp_path / "out"
    done = reproduce(folder, out, corpus, "--rows", "taught", "--seeds", "1")
    assert done.returncode == 0, done.stderr
    # And what they need, with the seed that they need it with.
    assert set(results(out)) == {"dense-seed-1", "taught-seed-1"}
    for seeds, words in (("1,7", "no row has seed 7; they have 0, 1"), ("one", "not 'one'")):
        wrong = reproduce(folder, out, corpus, "--seeds", seeds)
        assert wrong.returncode == 2 and words in wrong.stderr


def test_seeds_share_what_their_teachers_wrote_and_said(
    tmp_path: Path, corpus: Path, write_suite: WriteSuite
):
    recover = {"method": "recover", "epochs": 2, "batch": 4, "distill": True}
    suite = {
        "dense": {"train": TRAIN, "seeds": [0, 1, 2]},
        "pupil": {
            "start": "dense",
            "start_seed": 0,
            "teacher": ["dense", "dense-seed-1"],
            "teacher_seed": 0,
            "generated": 500,
            "generated_seed": 7,
            "compress": [{**recover, "distill_samples": 9}],
            "seeds": [0, 2],
        },
    }
    folder, out = write_suite(suite), tmp_path / "out"
    assert reproduce(folder, out, corpus, "--rows", "pupil", "--seeds", "0").returncode == 0
    assert set(results(out)) == {"dense", "dense-seed-1", "pupil"}
    (text,) = (out / "lessons").glob("text-*.npy")
    (samples,) = (out / "lessons").glob("samples-*")
    assert np.load(text).shape == (500,)
    done = reproduce(folder, out, corpus, "--rows", "pupil", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    assert set(results(out)) == {"dense", "dense-seed-1", "pupil", "pupil-seed-2"}
    # None is left to be taught.
    assert not samples.exists() and not (out / "lessons").exists()


def test_needed_rows_are_run_with_the_seeds_that_they_are_needed_with(tmp_path: Path):
    many = Experiment(title="many", train=TRAIN, seeds=[0, 1])
    fixed = Experiment(title="fixed", train=TRAIN, teacher="many", teacher_seed=0, seeds=[0, 1])
    suite = {"many": many, "fixed": fixed}

    def runs(rows: list[str], seeds: frozenset[int] | None) -> list[tuple[str, int]]:
        return _runs(Plan(suite, rows, tmp_path, "ptb", "cpu", 1, seeds))

    assert runs(["fixed"], None) == [("many", 0), ("fixed", 0), ("fixed", 1)]
    assert runs(["fixed"], frozenset([1])) == [("many", 0), ("fixed", 1)]
    assert runs(["many", "fixed"], frozenset([1])) == [("many", 0), ("many", 1), ("fixed", 1)]
    # What is done needs nothing any more.
    plan = Plan(suite, ["fixed"], tmp_path, "ptb", "cpu", 1, None)
    assert _runs(plan, ["fixed"]) == [("many", 0), ("fixed", 1)]
    assert _runs(plan, ["fixed", "fixed-seed-1"]) == []


def test_an_interrupted_run_goes_on(tmp_path: Path, corpus: Path, write_suite: WriteSuite):
    long = {"train": {**TRAIN, "epochs": 60}}
    folder, out = write_suite({"long": long}), tmp_path / "out"
    process = subprocess.Popen(
        command(folder, out, corpus), stderr=subprocess.PIPE, start_new_session=True
    )
    log = out / "logs" / "long.log"
    wait_for("epoch 3/60", log, process)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not (out / "results").exists()

    done = reproduce(folder, out, corpus)
    assert done.returncode == 0, done.stderr
    whole = tmp_path / "whole"
    assert reproduce(folder, whole, corpus).returncode == 0
    model = "models/long.safetensors"
    assert (out / model).read_bytes() == (whole / model).read_bytes()
    assert log.read_text().count("epoch 3/60") == 1


def test_an_interrupt_finds_a_process_without_a_run(
    tmp_path: Path, corpus: Path, write_suite: WriteSuite
):
    # Two at once, of which one is done: its process waits for another run.
    folder = write_suite(
        {"long": {"train": {**TRAIN, "epochs": 100_000}}, "short": {"train": TRAIN}}
    )
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(folder, out, corpus, "--jobs", "2"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = out / "logs" / "long.log"
    wait_for("epoch 3/", log, process)
    deadline = time.monotonic() + 120
    while not (out / "results" / "short.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)  # for the process in its place
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    assert "interrupted; --resume goes on" in log.read_text()


def test_runs_where_temporary_files_lie_deep(tmp_path: Path, corpus: Path, write_suite: WriteSuite):
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    done = subprocess.run(
        command(write_suite({"dense": {"train": TRAIN}}), tmp_path / "out", corpus),
        env={**os.environ, "TMPDIR": str(deep)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert set(results(tmp_path / "out")) == {"dense"}


def test_a_killed_command_leaves_no_process_behind(
    tmp_path: Path, corpus: Path, write_suite: WriteSuite
):
    folder = write_suite({"long": {"train": {**TRAIN, "epochs": 100_000}}})
    out = tmp_path / "out"
    process = subprocess.Popen(command(folder, out, corpus), start_new_session=True)
    log = out / "logs" / "long.log"
    wait_for("epoch 3/", log, process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 120
    while "interrupted; --resume goes on" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_commands_in_one_folder_share_the_work(
    tmp_path: Path, corpus: Path, write_suite: WriteSuite
):
    suite = {
        "base": {"train": {**TRAIN, "epochs": 60}},
        "small": {
            "start": "base",
            "compress": [{"method": "quantize", "weights": "*", "bits": 8}],
        },
    }
    folder, out = write_suite(suite), tmp_path / "out"
    first = subprocess.Popen(
        command(folder, out, corpus, "--rows", "base"), stderr=subprocess.PIPE, text=True
    )
    log = out / "logs" / "base.log"
    wait_for("epoch 1/60", log, first)
    second = reproduce(folder, out, corpus)
    assert first.wait(60) == 0 and second.returncode == 0, second.stderr
    assert "base: another process is at work on it in this folder" in second.stderr
    assert log.read_text().count("epoch 60/60") == 1
    assert set(results(out)) == {"base", "small"}


def test_as_many_at_once_as_fit():
    small = Experiment(title="small", train=TRAIN)
    cores = len(os.sched_getaffinity(0))
    huge = Experiment(title="huge", train={**TRAIN, "hidden": 1_000_000})
    after = Experiment(title="after", start="huge", compress=[{"method": "quantize", "bits": 4}])
    suite = {**{str(number): small for number in range(99)}, "huge": huge, "after": after}
    assert jobs_that_fit(suite, ["7"], "cpu") == 1
    assert 1 <= jobs_that_fit(suite, list(suite)[:99], "cpu") <= cores
    assert jobs_that_fit(suite, ["7", "after"], "cpu") == 1


def test_a_run_whose_process_is_killed_does_not_stop_the_others(
    tmp_path: Path, corpus: Path, write_suite: WriteSuite
):
    long = {"train": {**TRAIN, "epochs": 10_000}}
    folder, out = write_suite({"a-long": long, "short": {"train": TRAIN}}), tmp_path / "out"
    process = subprocess.Popen(
        command(folder, out, corpus, "--jobs", "1"), stderr=subprocess.PIPE, text=True
    )
    log = out / "logs" / "a-long.log"
    wait_for("epoch 1/", log, process)
    command_itself = psutil.Process(process.pid)
    helpers = command_itself.children()
    runs = [each for each in command_itself.children(recursive=True) if each not in helpers]
    # Where no server begins them, they are children themselves.
    for each in runs or [each for each in helpers if "spawn_main" in str(each.cmdline())]:
        each.kill()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "a-long: failed: a process was killed" in said and "Traceback" not in said
    assert set(results(out)) == {"short"}


def test_a_run_whose_parent_went_before_it_began_stops_at_once():
    code = """
import multiprocessing.process as process, os
from terselm.experiments.processes import stop_with_parent
end, other = os.pipe()
os.close(other)
process._parent_process = process._ParentProcess("parent", 1, end)
stop_with_parent()
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == -signal.SIGTERM
