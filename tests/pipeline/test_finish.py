"""What is left of a search: models, results and figures that belong together."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from terselm.errors import TerselmError
from terselm.pipeline import finish as finish_module
from terselm.pipeline import workbench as workbench_module
from terselm.pipeline.budget import Budget, Limits
from terselm.pipeline.finish import finish
from terselm.pipeline.job import Job
from terselm.pipeline.measurement import Candidate
from terselm.pipeline.results import document, message_of, pick
from terselm.pipeline.search import Request
from terselm.pipeline.sensitivity import Sensitivity
from terselm.pipeline.study import Study
from terselm.pipeline.work import do_job
from terselm.pipeline.workbench import Setting, Workbench
from tests.pipeline.conftest import Trained
from tests.pipeline.test_front import candidate

EIGHT = [{"method": "quantize", "weights": "*", "bits": 8}]


class Ended:
    """A search that has tried what it is told."""

    def __init__(self, trained: Trained, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.bench = Workbench(Setting(trained.model, str(trained.data), folder))
        self.study = Study(f"sqlite:///{folder / 'search.sqlite3'}", "search", 0)
        self.source = self.bench.measure_source()
        self.said: list[str] = []

    def tried(self, number: int, bits: int) -> Candidate:
        job = Job("planned", f"{bits} bits", [{"method": "quantize", "weights": "*", "bits": bits}])
        found = do_job(self.bench, replace(job, whole_text=True), number)
        assert found.measured is not None
        return Candidate(
            number, job.origin, job.label, job.recipe, found.measured, found.file, 1.0,
            digest=found.digest,
        )  # fmt: skip

    def finish(self, budget: Budget | None, *candidates: Candidate) -> dict[str, Any]:
        limits = Limits() if budget is None else budget.limits(self.source)
        search: Any = SimpleNamespace(
            **vars(self),
            request=Request(budget),
            limits=limits,
            sensitivity=Sensitivity(1, ()),
            watcher=SimpleNamespace(phase=self.said.append),
            elapsed=lambda: 1.0,
        )
        return finish(search, list(candidates))

    def models(self) -> dict[str, int]:
        """Bytes of what is handed over, by folder."""
        found = self.folder.glob("*/model.safetensors")
        return {path.parent.name: path.stat().st_size for path in found}


@pytest.fixture
def ended(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ended:
    monkeypatch.setattr(finish_module, "write_report", lambda *values: [])
    monkeypatch.setattr(finish_module, "compare_with_kenlm", lambda *values: None)
    return Ended(trained, tmp_path / "out")


def test_a_model_that_is_no_longer_the_answer_is_taken_away(ended: Ended):
    eight = ended.tried(1, 8)
    assert ended.finish(Budget("50%"), eight)["chosen"] == 1
    assert ended.models() == {"chosen": eight.measured.bytes}
    (ended.folder / "chosen" / "notes.txt").write_text("of a user")
    assert ended.finish(None, eight)["answers"]
    assert ended.models().keys() == ended.finish(None, eight)["answers"].keys()
    assert [path.name for path in (ended.folder / "chosen").iterdir()] == ["notes.txt"]
    results = ended.finish(Budget("1%"), eight)
    assert (results["chosen"], results["nearest"]) == (None, 1)
    assert ended.models() == {} and not (ended.folder / "smallest").exists()


def test_no_model_lies_there_that_the_results_disown(ended: Ended, monkeypatch: pytest.MonkeyPatch):
    eight, three = ended.tried(1, 8), ended.tried(2, 3)
    ended.finish(Budget("50%"), eight)
    known = ended.models()

    def full(folder: Path, results: dict[str, Any]) -> None:
        known.update(ended.models())
        raise OSError("no space left")

    monkeypatch.setattr(finish_module, "write_results", full)
    with pytest.raises(OSError, match="no space"):
        ended.finish(Budget(f"{three.measured.bytes}"), eight, three)
    assert known == {"chosen": three.measured.bytes}


@pytest.mark.parametrize("lies_here", [False, True])
def test_figures_are_those_of_the_file_that_lies_here(ended: Ended, lies_here: bool):
    eight, three = ended.tried(1, 8), ended.tried(2, 3)
    elsewhere = replace(eight.measured, perplexity=1.5, bytes=7, memory=7)
    theirs = replace(eight, measured=elsewhere, digest="of their file")
    if not lies_here:
        (ended.folder / eight.file).unlink()
    results = ended.finish(Budget(f"{three.measured.bytes}"), theirs, three)
    by_number = {each["number"]: each for each in results["candidates"]}
    assert by_number[1]["bytes"] == eight.measured.bytes
    assert by_number[1]["perplexity"] == pytest.approx(eight.measured.perplexity)
    assert by_number[1]["file"] == eight.file and (ended.folder / eight.file).exists()
    # By the other host's figures it had been the answer.
    assert results["chosen"] == 2
    assert json.loads((ended.folder / "results.json").read_text())["chosen"] == 2


def test_what_lies_here_is_not_measured_again(ended: Ended, monkeypatch: pytest.MonkeyPatch):
    eight = ended.tried(1, 8)
    monkeypatch.setattr(Workbench, "measure", None)
    ended.finish(Budget("50%"), eight)
    ended.finish(Budget("50%"), replace(eight, digest=""))  # of an older study


def test_every_reading_of_the_test_text_counts(ended: Ended):
    eight = ended.tried(1, 8)
    assert ended.finish(Budget("1%"), eight)["test"] is None
    readings = [ended.finish(Budget("50%"), eight)["test"]["readings"] for _ in range(2)]
    assert readings == [1, 2]


def test_a_model_that_gives_nan_is_not_possible(ended: Ended, monkeypatch: pytest.MonkeyPatch):
    job = Job("planned", "8 bits", EIGHT)
    for value in (math.nan, math.inf):
        monkeypatch.setattr(
            workbench_module, "nats_of", lambda path, ids, v=value, **o: np.full(len(ids), v)
        )
        found = do_job(ended.bench, job, 1)
        assert found.measured is None and "is not a number that can be stated" in found.reason
        bench = Workbench(replace(ended.bench.setting, folder=ended.folder / f"{value}"))
        bench.setting.folder.mkdir()
        with pytest.raises(TerselmError, match=r"small\.safetensors: the perplexity is not a num"):
            bench.measure_source()


@pytest.mark.parametrize("whole_text", [False, True])
def test_a_huge_perplexity_is_a_candidates_own(
    ended: Ended, whole_text: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(workbench_module, "SHORT_TOKENS", 100)
    monkeypatch.setattr(
        workbench_module, "nats_of", lambda path, ids, **o: np.linspace(4e3, 6e3, len(ids))
    )
    job = Job("planned", "8 bits", EIGHT, whole_text=whole_text)
    measured = do_job(ended.bench, job, 1).measured
    assert measured is not None and measured.tokens == (2600 if whole_text else 100)
    assert 1e300 < measured.perplexity < math.inf
    assert json.dumps(measured.as_dict(), allow_nan=False)


def test_the_beginning_of_the_text_is_scaled_by_the_source(
    ended: Ended, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(workbench_module, "SHORT_TOKENS", 500)
    path = ended.bench.setting.model
    nats = ended.bench.source_nats
    ratio = math.exp(nats.mean()) / math.exp(nats[:500].mean())
    found = ended.bench.measure(path, whole_text=False)
    assert found.perplexity == pytest.approx(ratio * math.exp(nats[:500].mean()))
    low, high = found.ci95 or (0.0, 0.0)
    assert found.perplexity**2 == pytest.approx(low * high)


def test_what_came_of_it_is_said():
    source, limits = candidate(0, 100, 10.0).measured, Limits(size=10)
    budget, found = Budget(max_size=10), [candidate(1, 50, 90.0)]
    for asked in (None, budget):
        said = message_of(pick([], limits, source, asked), limits, source, 0)
        assert said == "nothing was measured in this time; give a longer --time-limit"
    said = message_of(pick(found, limits, source, None), limits, source, 1)
    assert "within ten percent" in said
    larger = [candidate(1, 125, 9.0)]
    said = message_of(pick(larger, Limits(), source, budget), Limits(), source, 1)
    assert "125 bytes (1.2 times larger)" in said


def test_a_shell_reads_the_command():
    source, budget = candidate(0, 100, 10.0).measured, Budget(max_size=10)
    found = [candidate(1, 5, 11.0)]
    results = document(
        header={"data": "my text; rm x", "seed": 0, "calibration_tokens": 9},
        budget=budget,
        limits=Limits(size=10),
        source=source,
        source_file="my model.safetensors",
        candidates=found,
        picked=pick(found, Limits(size=10), source, budget),
        sensitivity=Sensitivity(1, ()),
        parts={},
        measured={},
    )
    command = results["candidates"][0]["command"]
    assert shlex.split(command)[:3] == ["terselm", "compress", "my model.safetensors"]
    assert "--data 'my text; rm x' --calibration-tokens 9 --seed 0" in command
