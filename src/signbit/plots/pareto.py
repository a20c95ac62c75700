"""Accuracy against time: which networks nothing else beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signbit.plots.figure import BLUE, GREY, ORANGE, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_pareto(
    points: Sequence[Mapping[str, Any]],
    path: str | Path | None = None,
    *,
    metric: str,
    threads: int = 1,
    title: str = "",
) -> bytes:
    """Draw networks by milliseconds and score, with the front of those that none beats.

    Args:
        points: ``label``, ``ms``, ``value``, ``low`` and ``high`` (the interval of the value) of
            each, and ``kind``: ``"binary"``, ``"8-bit"`` or another.
        path: where to save the PNG, if anywhere.
        metric: what the values are; larger is better.
        threads: how many the times are of.
        title: written above.

    Returns:
        The PNG's bytes.

    Raises:
        ValueError: there is no point.
    """
    if not points:
        raise ValueError("no network to draw")
    figure = new_figure(7, 4.4)
    axes = figure.subplots()
    colours = {"binary": BLUE, "8-bit": ORANGE}
    for point, marker in zip(points, cycle("osD^vP*"), strict=False):
        value = point["value"]
        # A percentile interval of few examples may leave the value itself out.
        bounds = [[max(0.0, value - point["low"])], [max(0.0, point["high"] - value)]]
        axes.errorbar(
            point["ms"], value, bounds, fmt=marker, color=colours.get(point["kind"], GREY),
            capsize=3, elinewidth=1, alpha=0.9, label=point["label"],
        )  # fmt: skip
    times = f"ms an image, {threads} thread{'s' if threads > 1 else ''}"
    finish_front(axes, points, times, metric, title)
    return finish(figure, path)


def finish_front(
    axes: Axes, points: Sequence[Mapping[str, Any]], cost: str, metric: str, title: str
) -> None:
    """The front of points of ``ms`` (any cost) and ``value``, and what stands around them."""
    front = front_of(points)
    axes.plot(
        [point["ms"] for point in front], [point["value"] for point in front],
        color=GREY, linestyle=":", linewidth=1, zorder=0,
    )  # fmt: skip
    costs = [point["ms"] for point in points]
    if max(costs) > 10 * min(costs):  # a logarithmic axis of less has hardly a label
        axes.set_xscale("log")
    axes.set_xlabel(cost)
    axes.set_ylabel(metric)
    axes.grid(alpha=0.25, which="both")
    axes.margins(x=0.15, y=0.15)
    # Beside the picture: of networks of one kind, points often lie on each other.
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    if title:
        axes.set_title(title, fontsize=10, loc="left")


def front_of(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The points that no other one beats or equals in both, fastest first."""
    found: list[Mapping[str, Any]] = []
    for point in sorted(points, key=lambda p: (p["ms"], -p["value"])):
        if not found or point["value"] > found[-1]["value"]:
            found.append(point)
    return found
