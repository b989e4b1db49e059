"""A run that was stopped in any way ends as one that never was."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from terselm.compress.gradual import GradualSparse
from terselm.compress.schedule import CubicSchedule
from terselm.compress.training_forms import replace_leaves
from terselm.errors import TerselmError, UsageError
from terselm.linear.dense import Dense
from terselm.models.language_model import LanguageModel
from terselm.train.checkpoint import load_checkpoint
from terselm.train.optimizers import ScheduledOptimizer
from tests.conftest import REPOSITORY
from tests.tiny import make_model
from tests.train.tiny_run import EVERYTHING, latent_model, same_weights, train

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": EVERYTHING,
    "ema and cosine": {
        "optimizer": "adamw",
        "learning_rate": 0.003,
        "averaging": "ema",
        "schedule": "cosine",
        "dropout": 0.3,
    },
    "two optimizers": {"optimizer": "muon", "learning_rate": 0.003, "dropout": 0.3},
}


class Killed(BaseException):
    """Stops a run without its noticing."""


def killed_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop whatever trains from now on after so many steps."""
    left = [steps]
    before = ScheduledOptimizer.step

    def step(self: ScheduledOptimizer, *arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        before(self, *arguments)

    monkeypatch.setattr(ScheduledOptimizer, "step", step)


@pytest.mark.parametrize("teach", ["", "with teachers", "with sampled teachers"])
@pytest.mark.parametrize("name", CASES)
def test_stopped_at_many_steps(name: str, teach: str, tmp_path, monkeypatch):
    samples = 20 if "sampled" in teach else None
    settings = {**CASES[name], "checkpoint_every": 0, "distillation_samples": samples}

    def run(**more: Any):
        teacher = [make_model("gru", seed=7), make_model("lstm", seed=8)] if teach else None
        return train(None, settings, teacher=teacher, **more)

    whole = run()
    for number, steps in enumerate((1, 30, 17, 33)):
        with monkeypatch.context() as patch:
            killed_after(steps, patch)
            with pytest.raises(Killed):
                run(folder=tmp_path / "run", resume=number > 0)
    resumed = run(folder=tmp_path / "run", resume=True)
    assert same_weights(whole.model, resumed.model)
    assert resumed.valid_perplexity == whole.valid_perplexity
    assert resumed.best_epoch == whole.best_epoch
    assert [r.valid_perplexity for r in resumed.history] == [
        r.valid_perplexity for r in whole.history
    ]
    assert_every_line_once(tmp_path / "run")


def assert_every_line_once(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line["total_steps"] for line in lines if "valid_perplexity" not in line]
    assert steps == sorted(set(steps))
    epochs = [line["epoch"] for line in lines if "valid_perplexity" in line]
    assert epochs == list(range(1, len(epochs) + 1))


def gradual_model(end: int = 60) -> LanguageModel:
    """A model on its way to fewer weights; an epoch has 32 steps."""
    model = make_model("lstm", tied=True)
    schedule = CubicSchedule(final=0.8, begin=3, end=end, every=4)
    replace_leaves(
        model, "*", Dense, lambda leaf, _: GradualSparse(leaf.dense(), schedule), "prune_gradually"
    )
    return model


FORMS: dict[str, Any] = {"gradual": gradual_model, "codes": latent_model}


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_forms_that_change_in_training_go_on(name: str, form: str, keep: str, tmp_path):
    settings = {**CASES[name], "checkpoint_every": 0, "keep": keep}
    whole = train(FORMS[form](), settings)
    for number, steps in enumerate((0, 1, 17, 30, 14)):
        with pytest.MonkeyPatch.context() as patch:
            killed_after(steps, patch)
            with pytest.raises(Killed):
                train(FORMS[form](), settings, folder=tmp_path, resume=number > 0)
    resumed = train(FORMS[form](), settings, folder=tmp_path, resume=True)
    assert same_weights(whole.model, resumed.model)
    assert resumed.valid_perplexity == whole.valid_perplexity
    for one, other in zip(
        whole.model.weights().values(), resumed.model.weights().values(), strict=True
    ):
        assert torch.equal(one.dense(), other.dense())
        if isinstance(one, GradualSparse) and isinstance(other, GradualSparse):
            assert one.steps == other.steps == whole_steps(whole)
            assert other.reached


def whole_steps(result: Any) -> int:
    return int(result.history[-1].total_steps)


def test_another_schedule_is_not_gone_on_with(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killed_after(5, patch)
        with pytest.raises(Killed):
            train(gradual_model(), {"checkpoint_every": 0}, folder=tmp_path)
    with pytest.raises(TerselmError, match=r"schedule is .*'end': 60.* here .*'end': 50"):
        train(gradual_model(end=50), {"checkpoint_every": 0}, folder=tmp_path, resume=True)


@pytest.mark.parametrize("name", ["plain", "everything"])
def test_kill_minus_nine(name: str, tmp_path):
    settings = {**CASES[name], "checkpoint_every": 0}
    teach = name == "everything"
    # So many epochs that it is never over before it is killed.
    endless = json.dumps({**settings, "epochs": 100_000, "teach": teach})
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}
    draw = random.Random(5)
    done = {"total_steps": 0, "epoch": 0}
    for _ in range(2):
        before = done
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.train.tiny_run", str(tmp_path), endless],
            cwd=REPOSITORY,
            env=environment,
        )
        while process.poll() is None and done == before:
            time.sleep(0.01)
            done = position(tmp_path, before)
        time.sleep(draw.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
    settings["epochs"] = position(tmp_path, done)["epoch"] + 1
    teacher = make_model("gru", seed=7) if teach else None
    again = train(None, settings, folder=tmp_path, resume=True, teacher=teacher)
    whole = train(None, settings, teacher=teacher)
    assert same_weights(whole.model, again.model)
    assert_every_line_once(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))


def position(folder: Path, otherwise: dict[str, int]) -> dict[str, int]:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return otherwise
    found = load_checkpoint(path)["position"]
    return {name: found[name] for name in otherwise}


def test_more_epochs_on_resume_equal_a_longer_run(tmp_path):
    train(None, {"epochs": 2}, folder=tmp_path)
    longer = train(None, {"epochs": 4}, folder=tmp_path, resume=True)
    assert same_weights(longer.model, train(None, {"epochs": 4}).model)
    assert len(longer.history) == 4


def test_a_finished_run_resumes_to_its_result(tmp_path):
    first = train(folder=tmp_path)
    again = train(make_model("lstm", seed=5), folder=tmp_path, resume=True)
    assert same_weights(first.model, again.model)
    assert again.valid_perplexity == first.valid_perplexity
    assert again.stopped == "epochs"


def test_a_finished_run_does_not_stand_in_the_way(tmp_path):
    train(folder=tmp_path)
    assert train(folder=tmp_path).stopped == "epochs"
    assert_every_line_once(tmp_path)


@pytest.mark.parametrize("setting", [{"projection_dropout": 0.5}, {"batch": 2000}])
def test_a_refused_run_leaves_a_finished_one(setting: dict[str, Any], tmp_path: Path):
    train(folder=tmp_path)
    names = ("checkpoint.pt", "metrics.jsonl")
    before = [(tmp_path / name).read_bytes() for name in names]
    with pytest.raises(TerselmError):
        train(None, setting, folder=tmp_path)
    assert [(tmp_path / name).read_bytes() for name in names] == before


def unfinished(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        killed_after(5, patch)
        with pytest.raises(Killed):
            train(None, {"checkpoint_every": 0}, folder=folder)


def test_an_unfinished_run_is_not_overwritten(tmp_path, monkeypatch):
    unfinished(tmp_path, monkeypatch)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(UsageError, match="unfinished run; use --resume or another --out"):
        train(folder=tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_other_settings_are_named(tmp_path, monkeypatch):
    unfinished(tmp_path, monkeypatch)
    with pytest.raises(UsageError, match=r"learning_rate is 1\.0 there, here 2\.0"):
        train(None, {"learning_rate": 2.0}, folder=tmp_path, resume=True)
    with pytest.raises(UsageError, match="cell is lstm there, here gru"):
        train(make_model("gru"), folder=tmp_path, resume=True)
    with pytest.raises(UsageError, match="teacher is None there"):
        train(teacher=make_model("gru"), folder=tmp_path, resume=True)
    changed = {"epochs": 4, "time_limit": 100.0, "early_stopping": 3, "checkpoint_every": 9.0}
    assert len(train(None, changed, folder=tmp_path, resume=True).history) == 4


def test_other_text_is_named(tmp_path, monkeypatch):
    unfinished(tmp_path, monkeypatch)
    monkeypatch.setattr("tests.train.tiny_run.text", lambda: np.arange(900) % 9)
    with pytest.raises(UsageError, match=r"training text is 1500 tokens.* here 900 tokens"):
        train(folder=tmp_path, resume=True)


def test_other_validation_text_is_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killed_after(5, patch)
        with pytest.raises(Killed):
            train(None, {"checkpoint_every": 0}, folder=tmp_path, validation_ids=np.arange(30))
    with pytest.raises(UsageError, match=r"validation text is 30 tokens.* here 29 tokens"):
        train(folder=tmp_path, resume=True, validation_ids=np.arange(29))
    train(folder=tmp_path, resume=True, validation_ids=np.arange(30))


@pytest.mark.parametrize("resume", [False, True])
def test_two_trainings_in_one_folder(resume: bool, tmp_path):
    refused = []

    def validate(model: LanguageModel) -> float:
        with pytest.raises(UsageError, match="another process is training in .*another --out"):
            train(folder=tmp_path, resume=resume)
        refused.append(True)
        return 5.0

    train(validate=validate, folder=tmp_path)
    assert_every_line_once(tmp_path)
    assert len(refused) == 3
    train(folder=tmp_path, resume=resume)


@pytest.mark.parametrize("place", ["start", "middle", "end"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_checkpoint_is_one_line(damage: str, place: str, tmp_path, monkeypatch):
    unfinished(tmp_path, monkeypatch)
    path = tmp_path / "checkpoint.pt"
    data = bytearray(path.read_bytes())
    where = {"start": 3, "middle": len(data) // 2, "end": len(data) - 40}[place]
    if damage == "cut":
        data = data[:where]
    else:
        data[where] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(TerselmError, match=r"checkpoint\.pt is damaged") as caught:
        train(folder=tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_a_metrics_file_that_was_removed_begins_anew(tmp_path):
    train(None, {"epochs": 1}, folder=tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    train(None, {"epochs": 2}, folder=tmp_path, resume=True)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["epoch"] for line in lines} == {2}


def test_a_metrics_file_that_is_removed_in_between(tmp_path):
    def validate(model: LanguageModel) -> float:
        (tmp_path / "metrics.jsonl").unlink()
        return 5.0

    result = train(None, {"checkpoint_every": 0}, validate=validate, folder=tmp_path)
    assert result.stopped == "epochs"


def test_nothing_to_resume_begins(tmp_path):
    assert train(folder=tmp_path / "new" / "run", resume=True).stopped == "epochs"


def test_resume_without_a_folder():
    with pytest.raises(UsageError, match="folder"):
        train(resume=True)


def test_the_random_state_of_the_caller_stays():
    model = make_model("lstm")
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train(model, {"dropout": 0.5, "epochs": 1})
    assert torch.equal(torch.rand(3), expected)
