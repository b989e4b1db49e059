"""The picture of many methods."""

from __future__ import annotations

import pytest

from terselm.errors import UsageError
from terselm.report.methods_plot import MethodLine, methods_plot

LINES = [
    MethodLine("dense", [(79_000_000, 110.5)]),
    MethodLine("quantize", [(7_000_000, 118.0), (11_000_000, 110.8), (20_000_000, 110.5)]),
    MethodLine("collapsed", [(3_000_000, 2000.0), (9_000_000, 150.0)]),
]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_lines_give_the_same_file(tmp_path, suffix):
    for name in ("one", "two"):
        methods_plot(LINES, tmp_path / f"{name}.{suffix}", title="Every method")
    assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


def test_more_methods_than_colours(tmp_path):
    lines = [MethodLine(f"method {n}", [(1000 * (n + 1), 100.0 + n)]) for n in range(30)]
    methods_plot(lines, tmp_path / "many.png", title="Many")
    assert (tmp_path / "many.png").read_bytes().startswith(b"\x89PNG")


def test_a_style_keeps_its_look_whatever_else_is_drawn(tmp_path):
    def draw(name: str, lines: list[MethodLine]) -> bytes:
        methods_plot(lines, tmp_path / name, title="One")
        return (tmp_path / name).read_bytes()

    points = [(1000, 3.0), (2000, 2.5), (3000, 9.0), (3010, 19.0)]
    assert draw("a.png", [MethodLine("one", points, 3)]) != draw(
        "b.png", [MethodLine("one", points)]
    )
    assert draw("c.png", [MethodLine("one", points, 0)]) == draw(
        "b.png", [MethodLine("one", points)]
    )


def test_nothing_to_draw_and_a_wrong_suffix(tmp_path):
    with pytest.raises(UsageError, match="no points"):
        methods_plot([MethodLine("empty", [])], tmp_path / "a.png", title="")
    with pytest.raises(UsageError, match="png or"):
        methods_plot(LINES, tmp_path / "a.gif", title="")
    assert not list(tmp_path.iterdir())
