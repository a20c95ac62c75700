"""Draws the pictures of docs/methods/bnext.md.

bnext_unit.svg: a unit with Info-RCP and ELM attention. bnext_schedule.svg: progressive weights at
several temperatures, and the published temperature by epoch. bnext_curves.png is
results/bnext_cifar10/curves.png, which pages cannot reach from their folder.

    python docs/pictures/bnext.py
"""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from signbit.quantizers import ProgressiveSign
from signbit.training.recipe import ProgressiveRecipe

BLUE, ORANGE, GREEN, GREY = "#2f6db3", "#c96f14", "#2f7d4b", "#70757e"
EPOCHS = 512


def schedule(path: Path) -> None:
    """What weights are in training at some temperatures, and the temperature by epoch."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    w = torch.linspace(-1.5, 1.5, 601)
    quantizer = ProgressiveSign()
    for temperature, colour in ((1.0, GREEN), (0.3, BLUE), (0.0, ORANGE)):
        quantizer.set_temperature(temperature)
        label = f"T = {temperature:g}" if temperature else "sign"
        left.plot(w.numpy(), quantizer(w)[0].numpy(), color=colour, label=label)
    left.set_xlabel("latent weight w")
    left.set_title("in training: clamp(w / T, -1, 1), then sign(w)")
    left.legend(frameon=False)
    published = ProgressiveRecipe()
    epochs = np.arange(EPOCHS)
    values = np.array([published.temperature(int(epoch)) for epoch in epochs])
    soft = values > 0
    right.semilogy(epochs[soft], values[soft], color=BLUE)
    right.axvspan(published.soft_epochs, EPOCHS, color=ORANGE, alpha=0.15, lw=0)
    right.text(published.soft_epochs + 15, 1e-4, "binary weights", color=ORANGE)
    right.set_xlim(0, EPOCHS)
    right.set_xlabel("epoch")
    right.set_title(f"T = 0.9^epoch, binary from epoch {published.soft_epochs} of {EPOCHS}")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    save(figure, path)


def unit(path: Path) -> None:
    """The flow of a 3x3 unit with both modules."""
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    axes.set_xlim(0, 19)
    axes.set_ylim(0, 6.2)
    x = box(axes, 0.9, 3.0, "x", GREY)
    sign = box(axes, 3.1, 3.0, "sign(x + m)", BLUE)
    conv = box(axes, 6.0, 3.0, "binary conv", BLUE)
    v = box(axes, 8.9, 3.0, "v: BN, PReLU", GREY)
    mix = box(axes, 8.9, 5.2, "s x' + (1 - s) v", GREEN)
    excite = box(axes, 12.4, 5.2, "mean, SE, sigmoid", GREEN)
    recouple = box(axes, 12.4, 3.0, "\u00d7", GREEN)
    attend = box(axes, 14.2, 3.0, "\u00d7", ORANGE)
    norm = box(axes, 16.0, 3.0, "BN", GREY)
    add = box(axes, 17.6, 3.0, "+", GREY)
    bypass = box(axes, 8.9, 0.9, "r: PReLU(x), averaged", ORANGE)
    for line in (
        [x, sign, conv, v, recouple, attend, norm, add],
        [x, mix, excite, recouple],
        [v, mix],
        [x, bypass, attend],
        [bypass, add],
    ):
        for start, end in pairwise(line):
            arrow(axes, start, end)
    axes.text(0.3, 5.7, "Info-RCP", color=GREEN, weight="bold")
    axes.text(0.3, 0.2, "ELM attention", color=ORANGE, weight="bold")
    save(figure, path)


def box(axes: Axes, x: float, y: float, text: str, colour: str) -> Text:
    style = {"boxstyle": "round,pad=0.35", "fc": "white", "ec": colour, "lw": 1.4}
    return axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=style, zorder=3)


def arrow(axes: Axes, start: Text, end: Text) -> None:
    ends = {"patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch()}
    style = {"arrowstyle": "-|>", "color": GREY, "lw": 1, "shrinkA": 0, "shrinkB": 1, **ends}
    axes.annotate("", end.get_position(), start.get_position(), arrowprops=style, zorder=1)


def save(figure: Figure, path: Path) -> None:
    with rc_context({"svg.hashsalt": "signbit", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    folder = Path(__file__).parent
    unit(folder / "bnext_unit.svg")
    schedule(folder / "bnext_schedule.svg")
    curves = folder.parents[1] / "results/bnext_cifar10/curves.png"
    shutil.copyfile(curves, folder / "bnext_curves.png")


if __name__ == "__main__":
    main()
