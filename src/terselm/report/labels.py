"""Putting labels beside points so that they cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

Place = tuple[float, float]

NEAR, FAR = 9.0, 22.0
"""Distances of a label from its point, in points of 1/72 inch."""
DIRECTIONS = ((1, 0), (1, 1), (0, 1), (1, -1), (0, -1), (-1, 1), (-1, -1), (-1, 0))
"""Where a label may stand, in order of preference; (1, 0) is right of the point."""
MARKER = 6.0
"""Half the size of a point and the air around it, in pixels at 100 dots an inch."""
SAMPLES = 40


def place_labels(
    canvas: FigureCanvasAgg,
    axes: Axes,
    places: Sequence[Place],
    texts: Sequence[str],
    colors: Sequence[str],
    lines: Sequence[Sequence[Place]],
) -> None:
    """Write each text beside its place, where it covers least.

    One label after the other takes the first of sixteen positions that covers nothing, or the
    one that covers least: other labels weigh most, then the edge of the axes, points, the line.
    A label that had to go far gets a thin leader.

    Parameters
    ----------
    canvas : FigureCanvasAgg
        Of the figure, which measures the texts.
    axes : Axes
        With its limits set and its figure laid out.
    places : sequence of (float, float)
        The points, in data coordinates.
    texts, colors : sequence of str
        For each point; one with an empty text is kept clear of, and gets no label.
    lines : sequence of sequence of (float, float)
        Lines to keep clear of, in data coordinates.
    """
    to_pixels = axes.transData.transform
    points = [tuple(to_pixels(place)) for place in places]
    half = MARKER * canvas.figure.dpi / 100
    markers = [Bbox([(x - half, y - half), (x + half, y + half)]) for x, y in points]
    traced = [
        point for line in lines for point in _along([tuple(to_pixels(place)) for place in line])
    ]
    taken: list[Bbox] = []
    # Crowded points choose first.
    labelled = [number for number, text in enumerate(texts) if text]
    order = sorted(labelled, key=lambda number: _nearest(number, points))
    for number in order:
        label = _add(axes, places[number], texts[number], colors[number])
        taken.append(_settle(canvas, axes, label, markers, traced, taken))


def _add(axes: Axes, place: Place, text: str, color: str) -> Annotation:
    return axes.annotate(
        text,
        place,
        xytext=(0, 0),
        textcoords="offset points",
        color=color,
        fontsize=8.5,
        linespacing=1.25,
        zorder=4,
        parse_math=False,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


def _settle(
    canvas: FigureCanvasAgg,
    axes: Axes,
    label: Annotation,
    markers: Sequence[Bbox],
    traced: Sequence[Place],
    taken: Sequence[Bbox],
) -> Bbox:
    """Move a label to where it covers least and return its box in pixels."""
    renderer = canvas.get_renderer()
    choices = []
    for distance in (NEAR, FAR):
        for direction in DIRECTIONS:
            _move(label, direction, distance)
            box = label.get_window_extent(renderer)
            covered = _covered(box, axes.bbox, markers, traced, taken)
            choices.append((covered, distance, direction, box))
    _, distance, direction, box = min(choices, key=lambda choice: choice[0])
    _move(label, direction, distance)
    if distance == FAR:
        axes.annotate(
            "",
            label.xy,
            xytext=label.get_position(),
            textcoords="offset points",
            arrowprops={
                "arrowstyle": "-",
                "color": label.get_color(),
                "linewidth": 0.6,
                "shrinkB": 5,
            },
            zorder=1,
        )
    return box


def _move(label: Annotation, direction: tuple[int, int], distance: float) -> None:
    across, up = direction
    # A diagonal step of about the same length as a straight one.
    step = distance if 0 in direction else distance * 0.72
    side = ("center", "left", "right")[across]
    label.set_position((across * step, up * step))
    label.set(ha=side, multialignment=side, va=("center", "bottom", "top")[up])


def _covered(
    box: Bbox,
    frame: Bbox,
    markers: Sequence[Bbox],
    traced: Sequence[Place],
    taken: Sequence[Bbox],
) -> float:
    """Return how bad a position is: weighted areas, in square pixels, and points of the line."""
    inside = _shared(box, frame)
    outside = box.width * box.height - inside
    on_labels = sum(_shared(box.padded(3), other) for other in taken)
    on_markers = sum(_shared(box, marker) for marker in markers)
    on_line = sum(box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1 for x, y in traced)
    return 6 * on_labels + 6 * outside + 3 * on_markers + 12 * on_line


def _shared(one: Bbox, other: Bbox) -> float:
    both = Bbox.intersection(one, other)
    return 0.0 if both is None else both.width * both.height


def _along(corners: Sequence[Place]) -> list[Place]:
    """Return points along a line of straight pieces."""
    found: list[Place] = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        found += [
            (x0 + (x1 - x0) * part / SAMPLES, y0 + (y1 - y0) * part / SAMPLES)
            for part in range(SAMPLES + 1)
        ]
    return found


def _nearest(number: int, points: Sequence[Place]) -> float:
    x, y = points[number]
    distances = [
        (x - other_x) ** 2 + (y - other_y) ** 2
        for other, (other_x, other_y) in enumerate(points)
        if other != number
    ]
    return min(distances, default=0.0)
