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
from matplotlib.ticker import FuncFormatter, LogLocator

from terselm.report.plots import BEATEN, FAINT, FRONT, INK, write_figure

COLUMNS = 3


def draw(report: dict[str, Any]) -> Figure:
    """A panel a size: microseconds a token of every engine, ours in colour."""
    sizes = report["sizes"]
    rows = -(-len(sizes) // COLUMNS)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.12)
    figure = Figure(figsize=(10.5, 3.1 * rows), dpi=160, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    panels = {name: times_of(size["engines"]) for name, size in sizes.items()}
    everything = [time for times in panels.values() for time in times.values()]
    limits = (min(everything) / 1.7, max(everything) * 5)
    for number, (name, times) in enumerate(panels.items(), 1):
        panel(figure.add_subplot(rows, COLUMNS, number), name, times, limits)
    where = f"{report['machine']['processor']}, {report['kernels']}"
    figure.suptitle(
        f"Microseconds a token, one thread, the same scale everywhere (left is faster) · {where}",
        x=0.01,
        ha="left",
        fontsize=11,
        fontweight="bold",
        color=INK,
    )
    return figure


def times_of(engines: dict[str, Any]) -> dict[str, float]:
    return {name: row["microseconds"] for name, row in engines.items() if "microseconds" in row}


def panel(axes: Axes, title: str, times: dict[str, float], limits: tuple[float, float]) -> None:
    names = sorted(times, key=times.__getitem__, reverse=True)
    colors = [FRONT if name.startswith("terselm") else BEATEN for name in names]
    axes.scatter([times[name] for name in names], names, color=colors, s=30, zorder=3)
    for name, color in zip(names, colors, strict=True):
        axes.annotate(
            f"{times[name]:,.0f}",
            (times[name], name),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=color if color == FRONT else INK,
        )
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)
    axes.xaxis.set_major_locator(LogLocator(base=10))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.tick_params(labelsize=7.5, length=0, colors="#444444")
    axes.minorticks_off()
    axes.grid(True, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#AAAAAA")


def main(stem: str) -> None:
    path = Path(stem)
    report = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    for suffix in (".svg", ".png"):
        write_figure(lambda: draw(report), path.with_suffix(suffix))


if __name__ == "__main__":
    main(sys.argv[1])
