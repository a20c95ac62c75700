"""How near the steps of a network come to what a CPU can do: a roofline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signbit.plots.figure import BLUE, GREEN, GREY, ORANGE, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS = {  # counter: peak, its words, what its steps are called, colour
    "macs_b1": ("look_up_gmacs", "paired look-ups", "binary", BLUE),
    "macs_q8": ("dot_gmacs", "8-bit dot products", "8-bit", ORANGE),
}
_ROOFS = (
    *((peak, words, colour) for peak, words, _, colour in _KINDS.values()),
    ("word_gmacs", "words of bits", GREEN),
    ("tile_gmacs", "matrix tiles", GREY),
)
_SLOPES = (("copy_l2_gbs", "L2", "--"), ("copy_memory_gbs", "memory", ":"))
_MARKERS = "os^Dv<>phP"  # a family of layers each; any more share the last one
_NEAR = 7.0  # points: layers of a family this near to each other share a label
_LABEL_SIZE = 6.5  # points


@dataclass(frozen=True)
class _Point:
    """A step: its layer's name, split into that of its family and its own numbers; MACs a byte;
    GMAC/s."""

    kind: str
    name: str
    family: str
    number: str
    x: float
    y: float
    ms: float


def plot_roofline(
    steps: Sequence[Mapping[str, Any]],
    peaks: Mapping[str, Any],
    path: str | Path | None = None,
    title: str = "",
    *,
    threads: int = 1,
) -> bytes:
    """Draw the speed of every step with multiply-accumulates over its intensity, below the roofs.

    Layers whose names differ only in numbers are a family with a marker of its own; beside each
    stand its numbers.

    Args:
        steps: rows of ``Session.profile``: ``name``, ``ms``, ``bytes``, ``macs_b1``, ``macs_q8``.
        peaks: what ``signbit.runtime.measure_peaks`` returns.
        path: where to save the PNG, if anywhere.
        title: written above.
        threads: of the session; the roofs are that many times one core's.

    Returns:
        The PNG's bytes. Both axes are logarithmic; a marker's area grows with its step's time. Of
        steps without multiply-accumulates the legend says how many there are.

    Raises:
        ValueError: no step has multiply-accumulates.
    """
    points = list(_points(steps))
    if not points:
        raise ValueError("no step with multiply-accumulates to draw")
    figure = new_figure(11, 5.6)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(p.x for p in points) / 3, max(p.x for p in points) * 4)
    top = max(peaks[peak] for peak, *_ in _ROOFS) * threads
    axes.set_ylim(min(p.y for p in points) / 2.5, max(top, *(p.y for p in points)) * 2)
    axes.set_xlabel("MACs a byte of maps and weights")
    axes.set_ylabel("GMAC/s")
    axes.grid(alpha=0.2)
    axes.set_title(title or f"{len(points)} steps", fontsize=10)
    total = sum(p.ms for p in points)
    families = list(dict.fromkeys((p.kind, p.family) for p in points))
    handles = []
    for i, (kind, family) in enumerate(families):
        members = [p for p in points if (p.kind, p.family) == (kind, family)]
        _, _, words, colour = _KINDS[kind]
        named = f"{family} ({len(members)})" if len(members) > 1 else members[0].name
        style = {"color": colour, "alpha": 0.7, "edgecolors": "white", "linewidths": 0.6}
        style["marker"] = _MARKERS[min(i, len(_MARKERS) - 1)]
        sizes = [20 + 500 * p.ms / total for p in members]
        axes.scatter([p.x for p in members], [p.y for p in members], s=sizes, zorder=3, **style)
        label = f"{named}, {words}: {sum(p.ms for p in members):.2f} ms"
        handles.append(axes.scatter([], [], s=40, label=label, **style))
    rest = [step for step in steps if not any(step[macs] for macs in _KINDS)]
    if rest:
        label = f"{len(rest)} steps without MACs: {sum(step['ms'] for step in rest):.2f} ms"
        handles.append(axes.scatter([], [], s=0, label=label))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    figure.draw_without_rendering()  # from here on it is known where points lie
    _draw_roofs(axes, peaks, threads)
    _draw_labels(axes, points)
    return finish(figure, path)


def _points(steps: Iterable[Mapping[str, Any]]) -> Iterable[_Point]:
    for step in steps:
        for macs in _KINDS:
            if step[macs] and step["bytes"] and step["ms"]:
                parts = str(step["name"]).split(".")
                family = ".".join("#" if part.isdigit() else part for part in parts)
                number = ".".join(part for part in parts if part.isdigit())
                intensity, speed = step[macs] / step["bytes"], step[macs] / step["ms"] / 1e6
                yield _Point(macs, ".".join(parts), family, number, intensity, speed, step["ms"])


def _draw_roofs(axes: Axes, peaks: Mapping[str, Any], threads: int) -> None:
    """Flat roofs, and the slopes that lead up to the highest, with their words along them."""
    left, right = axes.get_xlim()
    bottom, _ = axes.get_ylim()
    top = 0.0
    for peak, words, colour in _ROOFS:
        roof = peaks[peak] * threads
        if not roof:
            continue
        top = max(top, roof)
        axes.hlines(roof, left, right, color=colour, linewidth=1.6)
        axes.annotate(
            f"{words}: {roof:.0f} GMAC/s", (right, roof), (-4, 4),
            textcoords="offset points", ha="right", color=colour, fontsize=8,
        )  # fmt: skip
    for key, words, style in _SLOPES:
        speed = peaks[key] * threads
        start, end = max(left, bottom / speed), min(right, top / speed)
        if start >= end:
            continue
        axes.plot((start, end), (start * speed, end * speed), style, color=GREY, linewidth=1.2)
        x = start ** (2 / 3) * end ** (1 / 3)
        ends = axes.transData.transform([(start, start * speed), (end, end * speed)])
        width, height = ends[1] - ends[0]
        axes.annotate(
            f"{words}: {speed:.0f} GB/s", (x, x * speed), (-3, 4), textcoords="offset points",
            ha="center", va="bottom", color=GREY, fontsize=8,
            rotation=math.degrees(math.atan2(height, width)), rotation_mode="anchor",
        )  # fmt: skip


def _draw_labels(axes: Axes, points: Sequence[_Point]) -> None:
    """The numbers of layers beside their markers, in the nearest free place; none where all are
    taken."""
    scale = 72 / axes.figure.dpi

    def place(x: float, y: float) -> tuple[float, float]:
        pixels = axes.transData.transform((x, y))
        return float(pixels[0]) * scale, float(pixels[1]) * scale

    alone = {family for family, count in Counter(p.family for p in points).items() if count == 1}
    groups: list[tuple[float, float, list[_Point]]] = []
    for p in points:
        if p.family in alone:  # the legend names it
            continue
        x, y = place(p.x, p.y)
        for gx, gy, members in groups:
            first = members[0]
            same = (first.kind, first.family) == (p.kind, p.family)
            if same and math.hypot(x - gx, y - gy) < _NEAR:
                members.append(p)
                break
        else:
            groups.append((x, y, [p]))
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in (place(p.x, p.y) for p in points)]
    for x, y, members in groups:
        text = ", ".join(dict.fromkeys(p.number for p in members))
        width, height = 0.56 * _LABEL_SIZE * len(text), 1.1 * _LABEL_SIZE
        for dx, dy in _offsets(width, height):
            box = (x + dx, y + dy, x + dx + width, y + dy + height)
            if not any(_overlap(box, other) for other in taken):
                taken.append(box)
                axes.annotate(
                    text, (members[0].x, members[0].y), (dx, dy), textcoords="offset points",
                    fontsize=_LABEL_SIZE, va="bottom", annotation_clip=False,
                    arrowprops={"arrowstyle": "-", "lw": 0.4, "color": GREY, "alpha": 0.6},
                )  # fmt: skip
                break


def _offsets(width: float, height: float) -> Iterable[tuple[float, float]]:
    """Where a label may start, from its point: near places first, below before above."""
    for far in range(8, 80, 8):
        yield from (
            (-width / 2, -far - height),
            (-width / 2, far),
            (far, -far),
            (-far - width, -far),
        )


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
