"""The file of what teachers said."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from terselm.errors import TerselmError
from terselm.train.sample_file import SampleFile, take_shared

STREAMS, SAMPLES = 3, 5


def some(steps: int, words: int) -> np.ndarray:
    draw = np.random.default_rng(0)
    found = draw.integers(words, size=(steps, STREAMS, SAMPLES))
    found[0, 0, 0] = words - 1
    return found


@pytest.mark.parametrize("words", [10, 2**16, 2**16 + 1, 2**20])
@pytest.mark.parametrize("kept", [True, False])
def test_what_is_written_is_read(words: int, kept: bool, tmp_path: Path):
    path = tmp_path / "samples" if kept else None
    file = SampleFile(path, STREAMS, SAMPLES, words)
    written = some(11, words)
    for part in (written[:4], written[4:5], written[5:]):
        file.append(part)
    file.flush()
    assert file.known == 11
    assert np.array_equal(file.read(0, 11), written)
    assert np.array_equal(file.read(3, 4), written[3:7])
    file.close()
    if path is not None:
        assert path.stat().st_size == written.size * (2 if words <= 2**16 else 4)


def test_another_process_goes_on(tmp_path: Path):
    path, written = tmp_path / "samples", some(9, 50)
    first = SampleFile(path, STREAMS, SAMPLES, 50)
    first.append(written[:6])
    first.append(written[7:])  # after the last checkpoint
    first.close()
    second = SampleFile(path, STREAMS, SAMPLES, 50, known=6)
    second.append(written[6:])
    assert np.array_equal(second.read(0, 9), written)
    second.close()
    # A new run in an old folder reads nothing of the old one.
    third = SampleFile(path, STREAMS, SAMPLES, 50)
    assert third.known == 0
    assert path.stat().st_size == 0
    third.close()


def test_damage_is_one_line(tmp_path: Path):
    path = tmp_path / "samples"
    file = SampleFile(path, STREAMS, SAMPLES, 50)
    file.append(some(4, 50))
    file.close()
    with pytest.raises(TerselmError, match="samples: is shorter than its run remembers"):
        SampleFile(path, STREAMS, SAMPLES, 50, known=5)
    path.write_bytes(b"\xff" * path.stat().st_size)
    again = SampleFile(path, STREAMS, SAMPLES, 50, known=4)
    with pytest.raises(TerselmError, match="samples: is damaged; delete the folder"):
        again.read(0, 1)
    os.truncate(path, 10)
    with pytest.raises(TerselmError, match="is damaged"):
        again.read(2, 2)
    again.close()
    path.unlink()
    with pytest.raises(TerselmError, match="samples: cannot be used: No such file"):
        SampleFile(path, STREAMS, SAMPLES, 50, known=4)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = SampleFile(tmp_path / "samples", STREAMS, SAMPLES, 50)

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(TerselmError, match="samples: cannot be written: No space left"):
        file.append(some(4, 50))
    assert file.known == 0
    file.close()


def test_a_file_is_shared(tmp_path: Path):
    path, shared, taken = tmp_path / "samples", tmp_path / "all" / "shared", tmp_path / "taken"
    assert not take_shared(shared, taken)
    file = SampleFile(path, STREAMS, SAMPLES, 50)
    file.append(some(4, 50))
    file.share(shared)
    file.share(shared)
    file.close()
    assert take_shared(shared, taken)
    again = SampleFile(taken, STREAMS, SAMPLES, 50, known=4)
    assert np.array_equal(again.read(0, 4), some(4, 50))
    again.close()
    # A new run in the first folder leaves what others read as it is.
    new = SampleFile(path, STREAMS, SAMPLES, 50)
    new.append(some(1, 20))
    new.close()
    assert np.array_equal(np.frombuffer(shared.read_bytes(), "<u2"), some(4, 50).ravel())
    nameless = SampleFile(None, STREAMS, SAMPLES, 50)
    nameless.share(tmp_path / "nothing")
    nameless.close()
    assert not (tmp_path / "nothing").exists()


def test_what_cannot_be_shared_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    file = SampleFile(tmp_path / "samples", STREAMS, SAMPLES, 50)
    with pytest.raises(TerselmError, match="cannot be written"):
        file.share(tmp_path / "file" / "shared")
    file.close()
