"""Networks on accelerators: what is busy when, accuracy against cycles, many designs at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter

from signbit.plots.figure import BLUE, GREEN, GREY, ORANGE, finish, new_figure
from signbit.plots.pareto import finish_front

_PARTS = (("compute", BLUE), ("vector", ORANGE), ("memory", GREEN))
_LABELS = 40  # layers whose names fit beside the axis


def plot_timeline(
    layers: Sequence[Mapping[str, Any]], path: str | Path | None = None, *, title: str = ""
) -> bytes:
    """Draw when array, vector unit and DRAM are busy, a line a layer.

    Args:
        layers: in order; ``layer`` (its name), and ``compute``, ``vector`` and ``memory``, each as
            (start, end) in cycles.
        path: where to save the PNG, if anywhere.
        title: written above.

    Returns:
        The PNG's bytes.

    Raises:
        ValueError: there is no layer.
    """
    if not layers:
        raise ValueError("no layer to draw")
    figure = new_figure(10, max(2.5, min(14.0, 1.2 + 0.2 * len(layers))))
    axes = figure.subplots()
    height = 0.8 / len(_PARTS)
    for place, (part, colour) in enumerate(_PARTS):
        spans = [layer[part] for layer in layers]
        axes.barh(
            [i + (place - 1) * height for i in range(len(layers))],
            [end - start for start, end in spans],
            height,
            [start for start, _ in spans],
            color=colour,
            label=part,
        )
    names = [layer["layer"] for layer in layers]
    shown = range(0, len(names), -(-len(names) // _LABELS))
    axes.set_yticks(list(shown), [names[i] for i in shown], fontsize=7)
    axes.invert_yaxis()
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlabel("cycles")
    axes.xaxis.set_major_formatter(FuncFormatter(_cycles))
    axes.grid(axis="x", alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    if title:
        axes.set_title(title, fontsize=10)
    return finish(figure, path)


def _cycles(value: float, position: int | None = None) -> str:
    for letter, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def plot_accuracy_cycles(
    points: Sequence[Mapping[str, Any]], path: str | Path | None = None, *, title: str = ""
) -> bytes:
    """Draw networks by cycles and accuracy, with the front of those that none beats in both.

    Args:
        points: ``label``, ``cycles`` and ``accuracy`` (in percent) of each.
        path: where to save the PNG, if anywhere.
        title: written above.

    Returns:
        The PNG's bytes.

    Raises:
        ValueError: there is no point.
    """
    if not points:
        raise ValueError("no network to draw")
    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    for point, marker in zip(points, cycle("osD^vP*"), strict=False):
        axes.plot(
            point["cycles"], point["accuracy"], marker, markersize=8, alpha=0.9,
            label=point["label"],
        )  # fmt: skip
    costs = [{"ms": each["cycles"], "value": each["accuracy"]} for each in points]
    finish_front(axes, costs, "cycles an image", "accuracy (%)", title)
    return finish(figure, path)


def plot_sweep(
    designs: Sequence[Mapping[str, Any]], path: str | Path | None = None, *, title: str = ""
) -> bytes:
    """Draw the cycles of a network on many arrays, and how many times as many its rivals take.

    Args:
        designs: ``dataflow``, ``rows``, ``columns`` and ``binary_lanes`` of each, ``cycles`` and
            ``ratios`` (a rival's name to a factor).
        path: where to save the PNG, if anywhere.
        title: written above.

    Returns:
        The PNG's bytes. A column of panels is a dataflow, the first row has the cycles, each
        further one a rival; of designs that differ in other things a dot each is drawn.

    Raises:
        ValueError: there is no design.
    """
    if not designs:
        raise ValueError("no design to draw")
    flows = list(dict.fromkeys(each["dataflow"] for each in designs))
    rivals = list(designs[0]["ratios"])
    rows = 1 + len(rivals)
    figure = new_figure(1.5 + 3.3 * len(flows), 0.8 + 2.6 * rows)
    grid = figure.subplots(rows, len(flows), squeeze=False, sharex=True, sharey="row")
    lanes = sorted({each["binary_lanes"] for each in designs})
    shades = {lane: (i + 1) / len(lanes) for i, lane in enumerate(lanes)}
    for column, flow in enumerate(flows):
        for lane in lanes:
            chosen = [d for d in designs if (d["dataflow"], d["binary_lanes"]) == (flow, lane)]
            elements = [each["rows"] * each["columns"] for each in chosen]
            values = [[each["cycles"] for each in chosen]]
            values += [[each["ratios"][rival] for each in chosen] for rival in rivals]
            for axes, heights in zip(grid[:, column], values, strict=True):
                axes.scatter(
                    elements, heights, s=10, color=BLUE, alpha=shades[lane], linewidths=0,
                    label=f"{lane} lanes",
                )  # fmt: skip
        grid[0, column].set_title(flow.replace("_", " "), fontsize=9)
        grid[-1, column].set_xlabel("processing elements")
    for axes in grid.flat:
        axes.set_xscale("log")
        axes.grid(alpha=0.25)
    grid[0, 0].set_yscale("log")
    grid[0, 0].set_ylabel("cycles")
    for axes, rival in zip(grid[1:, 0], rivals, strict=True):
        axes.set_ylabel(f"cycles of {rival},\nthis network's = 1", fontsize=8)
        for other in grid[list(grid[:, 0]).index(axes)]:
            other.axhline(1, color=GREY, linewidth=1)
    grid[0, -1].legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
    if title:
        figure.suptitle(title, fontsize=10)
    return finish(figure, path)
