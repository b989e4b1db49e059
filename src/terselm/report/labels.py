"""Putting labels beside points so that they cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
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
    axes: Axes,
    places: Sequence[Place],
    texts: Sequence[str],
    colors: Sequence[str],
    line: Sequence[Place],
) -> None:
    """Write each text beside its place, where it covers least.

    One label after the other takes the first of sixteen positions that covers nothing, or the
    one that covers least: other labels weigh most, then the edge of the axes, points, the line.
    A label that had to go far gets a thin leader.

    Parameters
    ----------
    axes : Axes
        With its limits set and its figure laid out.
    places : sequence of (float, float)
        The points, in data coordinates.
    texts, colors : sequence of str
        For each point.
    line : sequence of (float, float)
        A line to keep clear of, in data coordinates; may be empty.
    """
    to_pixels = axes.transData.transform
    points = [tuple(to_pixels(place)) for place in places]
    half = MARKER * axes.get_figure(root=True).dpi / 100
    markers = [Bbox([(x - half, y - half), (x + half, y + half)]) for x, y in points]
    traced = _along([tuple(to_pixels(place)) for place in line])
    taken: list[Bbox] = []
    # Crowded points choose first.
    order = sorted(range(len(places)), key=lambda number: _nearest(number, points))
    for number in order:
        taken.append(
            _write(axes, places[number], texts[number], colors[number], markers, traced, taken)
        )


def _write(
    axes: Axes,
    place: Place,
    text: str,
    color: str,
    markers: Sequence[Bbox],
    traced: Sequence[Place],
    taken: Sequence[Bbox],
) -> Bbox:
    """Write one label and return its box in pixels."""
    best: tuple[float, float, tuple[int, int]] | None = None
    label = axes.annotate(
        text,
        place,
        xytext=(0, 0),
        textcoords="offset points",
        color=color,
        fontsize=8.5,
        linespacing=1.25,
        zorder=4,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )
    renderer = axes.get_figure(root=True).canvas.get_renderer()  # type: ignore[attr-defined]
    for distance in (NEAR, FAR):
        for direction in DIRECTIONS:
            _move(label, direction, distance)
            box = label.get_window_extent(renderer)
            covered = _covered(box, axes.bbox, markers, traced, taken)
            if best is None or covered < best[0]:
                best = (covered, distance, direction)
    assert best is not None
    _, distance, direction = best
    _move(label, direction, distance)
    box = label.get_window_extent(renderer)
    if distance == FAR:
        axes.annotate(
            "",
            place,
            xytext=(direction[0] * FAR, direction[1] * FAR),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkB": 5},
            zorder=1,
        )
    return box


def _move(label: object, direction: tuple[int, int], distance: float) -> None:
    across, up = direction
    # A diagonal step of the same length as a straight one.
    step = distance if 0 in direction else distance * 0.72
    label.set_position((across * step, up * step))  # type: ignore[attr-defined]
    label.set_ha({1: "left", 0: "center", -1: "right"}[across])  # type: ignore[attr-defined]
    label.set_va({1: "bottom", 0: "center", -1: "top"}[up])  # type: ignore[attr-defined]
    label.set_multialignment({1: "left", 0: "center", -1: "right"}[across])  # type: ignore[attr-defined]


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
    for (x0, y0), (x1, y1) in zip(corners, corners[1:], strict=False):
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
