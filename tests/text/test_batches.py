"""Windows over parallel streams, against lists built the slow way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from terselm.errors import TerselmError, UsageError
from terselm.text.batches import TokenStreams, windows

START = 99


def by_hand(ids: list[int], streams: int, window: int) -> list[tuple[list, list]]:
    """Inputs and targets [steps][streams] of each window."""
    length = len(ids) // streams
    text = [START, *ids]
    found = []
    for begin in range(0, length, window):
        steps = range(begin, min(begin + window, length))
        inputs = [[text[b * length + step] for b in range(streams)] for step in steps]
        targets = [[text[b * length + step + 1] for b in range(streams)] for step in steps]
        found.append((inputs, targets))
    return found


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(1, 7), st.integers(1, 9))
def test_windows_are_those_built_by_hand(ids, streams, window):
    if len(ids) < streams:
        return
    made = TokenStreams(np.array(ids, np.uint16), START, streams, window)
    expected = by_hand(ids, streams, window)
    assert len(made) == len(expected)
    for index, (inputs, targets) in enumerate(expected):
        got = made.window(index)
        assert got[0].dtype == got[1].dtype == torch.int64
        assert (got[0].tolist(), got[1].tolist()) == (inputs, targets)
    assert [pair[0].tolist() for pair in made] == [pair[0] for pair in expected]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 9))
def test_one_stream_has_every_target_once(ids, window):
    pairs = list(windows(np.array(ids, np.uint32), START, window))
    assert torch.cat([targets for _, targets in pairs]).flatten().tolist() == ids
    assert torch.cat([inputs for inputs, _ in pairs]).flatten().tolist() == [START, *ids[:-1]]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_processes_share_the_streams(world):
    whole = TokenStreams(np.arange(50), START, 6, 4)
    parts = [whole.shard(rank, world) for rank in range(world)]
    assert {len(part) for part in parts} == {len(whole)}
    for index in range(len(whole)):
        for which in (0, 1):
            joined = torch.cat([part.window(index)[which] for part in parts], dim=1)
            assert torch.equal(joined, whole.window(index)[which])


def test_a_mapped_file_is_read_by_slices(tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(100, dtype=np.uint16))
    ids = np.load(tmp_path / "ids.npy", mmap_mode="r")
    streams = TokenStreams(ids, START, 4, 10)
    assert np.shares_memory(streams._tokens, ids)
    inputs, _ = streams.window(0)
    inputs[:] = 0  # a copy: the file is not to be written
    assert ids[25] == 25


def test_too_short_a_text():
    with pytest.raises(TerselmError, match=r"30 tokens are too few for 500 streams.* at most 30"):
        TokenStreams(np.arange(30), START, 500, 8)
    assert len(TokenStreams(np.arange(30), START, 30, 8)) == 1
    with pytest.raises(TerselmError, match="0 tokens"):
        windows(np.arange(0), START, 8)


def test_wrong_requests():
    for streams, window in ((0, 1), (1, 0)):
        with pytest.raises(UsageError, match="at least 1"):
            TokenStreams(np.arange(9), START, streams, window)
    streams = TokenStreams(np.arange(9), START, 3, 2)
    with pytest.raises(UsageError, match="3 streams cannot be shared equally by 2"):
        streams.shard(0, 2)
    with pytest.raises(UsageError, match="rank 3"):
        streams.shard(3, 3)
    for index in (-1, 2):
        with pytest.raises(IndexError):
            streams.window(index)
