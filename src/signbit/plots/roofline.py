"""How near the steps of a network come to what a CPU can do: a roofline."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signbit.plots.figure import BLUE, GREY, ORANGE, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS = (  # counter, peak, words, colour
    ("macs_b1", "look_up_gmacs", "paired look-ups", "binary", BLUE),
    ("macs_q8", "dot_gmacs", "8-bit dot products", "8-bit", ORANGE),
)
_SLOPES = (("copy_l2_gbs", "L2", "--"), ("copy_memory_gbs", "memory", ":"))
_NEAR = math.log10(1.25)  # steps of one kind and this near to each other share a label


def plot_roofline(
    steps: Sequence[Mapping[str, Any]],
    peaks: Mapping[str, Any],
    path: str | Path | None = None,
    title: str = "",
    *,
    threads: int = 1,
) -> bytes:
    """Draw the speed of every step with multiply-accumulates over its intensity, below the roofs.

    Args:
        steps: rows of ``Session.profile``: ``name``, ``ms``, ``bytes``, ``macs_b1``, ``macs_q8``.
        peaks: what ``signbit.runtime.measure_peaks`` returns.
        path: where to save the PNG, if anywhere.
        title: written above.
        threads: of the session; the roofs are that many times one core's.

    Returns:
        The PNG's bytes. Both axes are logarithmic; a point's area stands for its share of the time
        of the points, a vertical line joins it with its roof. Steps without multiply-accumulates
        are counted below.

    Raises:
        ValueError: no step has multiply-accumulates.
    """
    drawn = [
        (step, kind)
        for step in steps
        for kind in _KINDS
        if step[kind[0]] and step["bytes"] and step["ms"]
    ]
    if not drawn:
        raise ValueError("no step with multiply-accumulates to draw")
    figure = new_figure(9.5, 6)
    axes = figure.subplots()
    total = sum(step["ms"] for step, _ in drawn)
    points = []
    for step, (macs, peak, _, words, colour) in drawn:
        x, y = step[macs] / step["bytes"], step[macs] / step["ms"] / 1e6
        points.append((x, y, words, step))
        axes.vlines(x, y, peaks[peak] * threads, color=colour, alpha=0.18, linewidth=0.8)
        axes.scatter(
            x, y, s=18 + 900 * step["ms"] / total,
            color=colour, alpha=0.65, edgecolors="white", linewidths=0.6, zorder=3,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    left = min(x for x, *_ in points) / 3
    right = max(x for x, *_ in points) * 6
    top = max(peaks["look_up_gmacs"], peaks["dot_gmacs"]) * threads
    bottom = min(y for _, y, *_ in points) / 2.5
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top * 2.2)
    _draw_roofs(axes, peaks, threads)
    _draw_labels(axes, points)
    axes.set_xlabel("MACs a byte of maps and weights")
    axes.set_ylabel("GMAC/s")
    axes.grid(which="major", alpha=0.2)
    for words, colour in dict((kind[3], kind[4]) for _, kind in drawn).items():
        axes.scatter([], [], s=45, color=colour, alpha=0.65, label=f"{words} step")
    rest = [step for step in steps if not (step["macs_b1"] or step["macs_q8"])]
    axes.scatter(
        [], [], s=0, label=f"{len(rest)} steps without MACs: {sum(s['ms'] for s in rest):.2f} ms"
    )
    axes.legend(frameon=False, fontsize=8, loc="lower right", title="area: share of the time")
    axes.set_title(title or f"{len(drawn)} steps", fontsize=10)
    return finish(figure, path)


def _draw_roofs(axes: Axes, peaks: Mapping[str, Any], threads: int) -> None:
    """Flat roofs, and the slopes that lead up to the highest, with their words along them."""
    left, right = axes.get_xlim()
    bottom, _ = axes.get_ylim()
    top = 0.0
    for _, peak, words, _, colour in _KINDS:
        roof = peaks[peak] * threads
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
        x = math.sqrt(start * end)
        axes.annotate(
            f"{words}: {speed:.0f} GB/s", (x, x * speed), (-3, 3), textcoords="offset points",
            ha="center", va="bottom", color=GREY, fontsize=8,
            rotation=45, rotation_mode="anchor", transform_rotates_text=True,
        )  # fmt: skip


def _draw_labels(axes: Axes, points: Sequence[tuple[float, float, str, Mapping]]) -> None:
    """A label for each group of points that lie together."""
    groups: list[list[tuple[float, float, str, Mapping]]] = []
    for point in sorted(points, key=lambda p: (p[2], p[0])):
        for group in groups:
            x, y, words, _ = group[0]
            if words == point[2] and max(
                abs(math.log10(point[0] / x)), abs(math.log10(point[1] / y))
            ) < _NEAR:
                group.append(point)
                break
        else:
            groups.append([point])
    for group in groups:
        x = math.exp(sum(math.log(p[0]) for p in group) / len(group))
        y = min(p[1] for p in group)
        axes.annotate(
            _label([str(p[3]["name"]) for p in group]), (x, y), (0, -9),
            textcoords="offset points", ha="center", va="top", fontsize=7,
        )  # fmt: skip


def _label(names: Sequence[str]) -> str:
    """Names that differ in numbers alone become one: stages.0-3.conv1, and how many there are."""
    shapes: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        shapes.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    lines = []
    for alike in shapes.values():
        parts = [re.split(r"(\d+)", name) for name in alike]
        text = "".join(
            column[0]
            if len(set(column)) == 1
            else f"{min(map(int, column))}-{max(map(int, column))}"
            for column in map(list, zip(*parts, strict=True))
        )
        lines.append(f"{text} ({len(alike)})" if len(alike) > 1 else text)
    return "\n".join(lines)
