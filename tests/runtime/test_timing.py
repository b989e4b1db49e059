"""Times of a file: never those of a moment only, if more is asked for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from terselm.models.checkpoint import save
from terselm.runtime import timing
from tests.tiny import make_model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save(make_model("lstm"), path)
    return path


def test_series_are_spread_over_the_seconds_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch):
    begun: list[float] = []

    def series(model: object, state: object, steps: int) -> tuple[list[int], list[int]]:
        begun.append(time.monotonic())
        slow = len(begun) <= 7
        return ([30_000 if slow else 20_000] * steps, [60_000 if slow else 40_000] * steps)

    monkeypatch.setattr(timing, "_one_by_one", series)
    quick = timing.measure_quickly(path)
    assert (quick.token, quick.step, len(begun)) == (60.0, 30.0, 5)
    spread = timing.measure_quickly(path, seconds=0.3)
    assert (spread.token, spread.step) == (40.0, 20.0)
    assert len(begun) >= 10
    assert begun[-1] - begun[5] > 0.2


def test_a_real_file_takes_some_time_and_its_bytes(path: Path):
    quick = timing.measure_quickly(path)
    assert 0 < quick.step < quick.token < 1e5
    assert quick.memory > path.stat().st_size
