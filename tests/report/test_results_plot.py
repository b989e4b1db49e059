"""The picture of measured models beside published ones."""

from __future__ import annotations

import pytest

from terselm.errors import UsageError
from terselm.report.plots import FrontierPoint
from terselm.report.results_plot import Series, results_plot

OURS = [FrontierPoint("small", 1_000_000, 84.0), FrontierPoint("large", 5_000_000, 70.0)]
OTHERS = [FrontierPoint("of others", 1_000_500, 84.1)]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_names_are_written_and_change_nothing_but_the_picture(tmp_path, suffix):
    def draw(name: str, named: list[FrontierPoint]) -> bytes:
        series = [Series("ours", OURS, joined=True, named=named), Series("others", OTHERS)]
        path = tmp_path / f"{name}.{suffix}"
        results_plot(series, path, title="Two series")
        return path.read_bytes()

    assert draw("one", OURS) == draw("two", OURS)
    assert draw("one", OURS) != draw("none", [])


def test_nothing_to_draw_and_too_many_series(tmp_path):
    with pytest.raises(UsageError, match="no points"):
        results_plot([Series("ours", [])], tmp_path / "a.png", title="")
    with pytest.raises(UsageError, match="6 series"):
        results_plot([Series(str(n), OURS) for n in range(6)], tmp_path / "a.png", title="")
