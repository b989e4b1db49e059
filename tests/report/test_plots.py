"""Pictures: the same for the same points, no label on another, one line for bad requests."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest

from terselm.errors import TerselmError, UsageError
from terselm.report import labels, plots
from terselm.report.plots import FrontierPoint, frontier_plot, pareto_front

POINTS = [
    FrontierPoint("dense", 18_700_000, 117.67),
    FrontierPoint("float16", 9_350_000, 117.67),
    FrontierPoint("8 bits", 4_730_000, 117.71),
    FrontierPoint("4 bits, groups of 32", 2_660_000, 118.9),
    FrontierPoint("4 bits a row", 2_410_000, 120.1),
    FrontierPoint("low rank, recovered, 4 bits", 1_400_000, 121.4),
    FrontierPoint("low rank 0.5", 9_500_000, 130.5),
    FrontierPoint("3 bits", 2_000_000, 124.0),
]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_points_give_the_same_file(tmp_path, suffix):
    one, other = tmp_path / f"one{suffix}", tmp_path / f"other{suffix}"
    frontier_plot(POINTS, one)
    frontier_plot(POINTS, other)
    assert one.read_bytes() == other.read_bytes()
    assert b"date>" not in one.read_bytes().lower()
    assert sorted(tmp_path.iterdir()) == [one, other]


def test_formats(tmp_path):
    frontier_plot(POINTS, tmp_path / "f.PNG")
    assert (tmp_path / "f.PNG").read_bytes().startswith(b"\x89PNG")
    frontier_plot(POINTS, tmp_path / "f.svg")
    assert ElementTree.parse(tmp_path / "f.svg").getroot().tag.endswith("svg")


def test_the_front_is_what_no_other_point_beats():
    def beats(one, other):
        no_worse = one.bytes <= other.bytes and one.perplexity <= other.perplexity
        return no_worse and (one.bytes, one.perplexity) != (other.bytes, other.perplexity)

    twice = [*POINTS, FrontierPoint("again", 4_730_000, 117.71)]
    expected = [point for point in twice if not any(beats(other, point) for other in twice)]
    found = pareto_front(twice)
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert [point.bytes for point in found] == sorted(point.bytes for point in found)


def test_no_label_covers_another(tmp_path, monkeypatch):
    boxes = []
    settle = labels._settle

    def remembering(*arguments):
        box = settle(*arguments)
        boxes.append((box, arguments[1].bbox.frozen()))
        return box

    monkeypatch.setattr(labels, "_settle", remembering)
    frontier_plot(POINTS, tmp_path / "f.png")
    assert len(boxes) == len(POINTS)
    for (one, frame), (other, _) in itertools.combinations(boxes, 2):
        assert labels._shared(one, other) == 0
        assert labels._shared(one, frame) == pytest.approx(one.width * one.height)


@pytest.mark.parametrize(
    "points",
    [
        [FrontierPoint("only", 800, 95.3)],
        [FrontierPoint("one", 8000, 95.3), FrontierPoint("same", 8000, 95.3)],
        [FrontierPoint("small", 90, 20.0), FrontierPoint("large $x^2$ [b]", 9 * 10**9, 3.0)],
    ],
)
def test_odd_sets_of_points(tmp_path, points):
    frontier_plot(points, tmp_path / "f.svg")
    assert (tmp_path / "f.svg").stat().st_size > 1000


def test_settings_of_the_caller_stay(tmp_path):
    before = dict(matplotlib.rcParams)
    frontier_plot(POINTS[:2], tmp_path / "f.png")
    assert dict(matplotlib.rcParams) == before


def test_bad_requests(tmp_path):
    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        frontier_plot(POINTS, tmp_path / "f.jpg")
    with pytest.raises(UsageError, match="no points"):
        frontier_plot([], tmp_path / "f.png")
    for bad in (FrontierPoint("x", 0, 1.0), FrontierPoint("x", 5, float("inf"))):
        with pytest.raises(UsageError, match="'x' cannot be drawn"):
            frontier_plot([bad], tmp_path / "f.png")
    with pytest.raises(TerselmError, match="cannot write"):
        frontier_plot(POINTS[:1], tmp_path / "no" / "f.png")
    assert list(tmp_path.iterdir()) == []


def test_ticks():
    ticks = [plots._tick(value) for value in (500, 2000, 500_000, 1e6, 2.5e6, 1e9)]
    assert ticks == ["500 B", "2 kB", "500 kB", "1 MB", "2.5 MB", "1 GB"]
