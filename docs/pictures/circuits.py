"""Draws the pictures of docs/circuits.md.

circuits_datapath.svg: the parts of one convolution's circuit. circuits_handshake.svg: valid, ready
and data of a port over time. circuits_cells.png is results/circuits/cells.png, which pages cannot
reach from their folder.

    python docs/pictures/circuits.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

BLUE, ORANGE, GREEN, GREY = "#2f6db3", "#c96f14", "#2f7d4b", "#70757e"


def box(axes: Axes, x: float, y: float, width: float, text: str, colour: str) -> None:
    """A box whose middle is (x, y), with words in it."""
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - 0.38), width, 0.76, boxstyle="round,pad=0.02,rounding_size=0.08",
            facecolor="white", edgecolor=colour, linewidth=1.6,
        )
    )  # fmt: skip
    axes.text(x, y, text, ha="center", va="center", fontsize=8)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    """An arrow, with words above its middle."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=GREY))
    if text:
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.08
        axes.text(*middle, text, ha="center", va="bottom", fontsize=7, color=GREY)


def datapath(path: Path) -> None:
    """The circuit of one convolution."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    axes = figure.subplots()
    row = 2.0
    box(axes, 1.7, row, 1.6, "line buffer\n(rows of pixels)", BLUE)
    box(axes, 4.0, row, 1.5, "XNOR, popcount\nor products", GREEN)
    box(axes, 6.2, row, 1.4, "accumulators\n(parallel)", GREEN)
    box(axes, 8.4, row, 1.6, "epilogue stages\n(steps of the graph)", ORANGE)
    box(axes, 10.6, row + 0.6, 1.3, "pixel of bits,\nof 8 bits", BLUE)
    box(axes, 10.6, row - 0.6, 1.3, "beat of 16\nor 4 bits", BLUE)
    box(axes, 4.0, 0.6, 1.5, "weights (ROM)", GREY)
    box(axes, 8.4, 0.6, 1.6, "constants (ROM)\na channel", GREY)
    box(axes, 1.7, 0.6, 1.6, "walk: channels, taps,\ngroups, pixels", GREY)
    arrow(axes, (0.0, row), (0.85, row), "in")
    arrow(axes, (2.55, row), (3.2, row), "lanes")
    arrow(axes, (4.8, row), (5.45, row))
    arrow(axes, (6.95, row), (7.55, row), "sums")
    arrow(axes, (9.25, row + 0.15), (9.9, row + 0.5))
    arrow(axes, (9.25, row - 0.15), (9.9, row - 0.5))
    arrow(axes, (11.3, row + 0.6), (12.2, row + 0.6), "bits, out")
    arrow(axes, (11.3, row - 0.6), (12.2, row - 0.6), "stream")
    arrow(axes, (8.4, 3.5), (8.4, row + 0.42))
    axes.text(8.5, 3.3, "add: beats of another map", fontsize=7, color=GREY, va="center")
    arrow(axes, (1.7, 1.02), (1.7, row - 0.42))
    arrow(axes, (2.55, 0.6), (3.2, 0.6))
    arrow(axes, (4.0, 1.02), (4.0, row - 0.42))
    arrow(axes, (8.4, 1.02), (8.4, row - 0.42))
    axes.set_xlim(-0.1, 12.3)
    axes.set_ylim(0.1, 3.7)
    axes.axis("off")
    save(figure, path)


def handshake(path: Path) -> None:
    """Three signals of a port: a transfer happens where valid and ready are both high."""
    valid = [0, 1, 1, 1, 1, 0, 1, 1]
    ready = [1, 0, 0, 1, 1, 1, 0, 1]
    data = ["", "pixel 0", "pixel 0", "pixel 0", "pixel 1", "", "pixel 2", "pixel 2"]
    figure = Figure(figsize=(8, 2.2), layout="constrained")
    axes = figure.subplots()
    for base, name, levels in ((2.4, "valid", valid), (1.2, "ready", ready)):
        steps = [level * 0.7 + base for level in (*levels, levels[-1])]
        axes.step(range(len(steps)), steps, where="post", color=BLUE)
        axes.text(-0.15, base + 0.35, name, ha="right", va="center", fontsize=9)
    axes.text(-0.15, 0.35, "data", ha="right", va="center", fontsize=9)
    at = 0
    while at < len(data):
        end = at
        while end < len(data) and data[end] == data[at]:
            end += 1
        if data[at]:
            axes.fill_between([at + 0.05, end - 0.05], 0, 0.7, facecolor="#e6eef8", edgecolor=BLUE)
            axes.text((at + end) / 2, 0.35, data[at], ha="center", va="center", fontsize=8)
        at = end
    for cycle, (v, r) in enumerate(zip(valid, ready, strict=True)):
        if v and r:
            axes.axvspan(cycle, cycle + 1, color=GREEN, alpha=0.14, linewidth=0)
    axes.text(3.5, 3.35, "taken", ha="center", fontsize=8, color=GREEN)
    axes.set_xlim(-0.9, len(data))
    axes.set_ylim(-0.2, 3.7)
    axes.axis("off")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """As SVG with text as text, the same bytes every time."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "signbit"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    here = Path(__file__).parent
    datapath(here / "circuits_datapath.svg")
    handshake(here / "circuits_handshake.svg")
    shutil.copyfile(
        here.parents[1] / "results" / "circuits" / "cells.png", here / "circuits_cells.png"
    )


if __name__ == "__main__":
    main()
