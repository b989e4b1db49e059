"""The picture of the engines' speed, from the result file of runtime_speed.py.

python benchmarks/runtime_plot.py benchmarks/results/runtime-speed
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from terselm.report.plots import BEATEN, FRONT, INK, write_figure

COLUMNS = 3


def draw(report: dict[str, Any]) -> Figure:
    """A panel a size: microseconds a token of every engine, ours in colour."""
    sizes = report["sizes"]
    rows = -(-len(sizes) // COLUMNS)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.12)
    figure = Figure(figsize=(10.5, 3.1 * rows), dpi=160, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    for number, (name, size) in enumerate(sizes.items(), 1):
        panel(figure.add_subplot(rows, COLUMNS, number), name, size["engines"])
    where = f"{report['machine']['processor']}, {report['kernels']}"
    figure.suptitle(
        f"Microseconds a token, one thread, logarithmic (left is faster) · {where}",
        x=0.01,
        ha="left",
        fontsize=11,
        fontweight="bold",
        color=INK,
    )
    return figure


def panel(axes: Axes, title: str, engines: dict[str, Any]) -> None:
    times = {name: row["microseconds"] for name, row in engines.items() if "microseconds" in row}
    names = sorted(times, key=times.__getitem__, reverse=True)
    colors = [FRONT if name.startswith("terselm") else BEATEN for name in names]
    bars = axes.barh(names, [times[name] for name in names], color=colors, height=0.7)
    axes.bar_label(bars, [f" {times[name]:,.0f}" for name in names], fontsize=7.5, color=INK)
    axes.set_xscale("log")
    axes.set_xlim(min(times.values()) / 2, max(times.values()) * 3.5)
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)
    axes.tick_params(labelsize=7.5, length=0, colors="#444444")
    axes.set_xticks([])
    axes.minorticks_off()
    for side in axes.spines.values():
        side.set_visible(False)


def main(stem: str) -> None:
    path = Path(stem)
    report = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    for suffix in (".svg", ".png"):
        write_figure(lambda: draw(report), path.with_suffix(suffix))


if __name__ == "__main__":
    main(sys.argv[1])
