"""Progress goes to stderr: a bar on a terminal, else a line an epoch."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from terselm.train.memory import keep_large_buffers
from terselm.train.progress import ProgressObserver
from tests.conftest import REPOSITORY
from tests.train.tiny_run import train


def shown(terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=120)
    train(None, {"epochs": 2}, observer=ProgressObserver("recover", console))
    return stream.getvalue()


def test_one_line_an_epoch_without_a_terminal():
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("recover: epoch 1/2, loss ")
    assert "valid" in lines[1]
    assert "tokens/s" in lines[1]


def test_a_bar_on_a_terminal():
    assert "epoch 1/2" in shown(terminal=True)


def test_nothing_on_stdout(capsys):
    train(None, {"epochs": 1}, observer=ProgressObserver("train"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1


@pytest.mark.parametrize("early", [True, False])
def test_says_why_it_stopped(early: bool):
    stream = io.StringIO()
    observer = ProgressObserver("train", Console(file=stream, width=100))
    settings = {"epochs": 3, "early_stopping": 1 if early else None}
    train(None, settings, observer=observer, validate=lambda model: 5.0)
    assert ("validation stopped improving" in stream.getvalue()) is early


def test_the_loop_imports_neither_accelerate_nor_rich():
    code = (
        "import sys, terselm.train.loop;"
        "assert 'accelerate' not in sys.modules and 'rich' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_large_buffers_may_be_asked_for_often():
    assert keep_large_buffers() is keep_large_buffers()


def test_nothing_is_set_elsewhere(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    assert keep_large_buffers() is False
