"""Draws the pictures of docs/methods/ab_bnn.md.

mask.svg: the mask function and its derivative, at three scales. slopes.svg: the exponents that a
trained network's QRPReLUs have learned, read from a compiled integer program. counts.svg: the
operations of ab_reactnet18 at 224x224 in float and in integer arithmetic, by the certificate.
ab_curves.png is results/ab_cifar10/curves.png, which pages cannot reach from their folder.

    python docs/pictures/ab_bnn.py results/ab_reactnet18-quick/integer.signbit
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

import signbit
from signbit.compiler import read_graph
from signbit.hardware.certificate import Operations, certify
from signbit.nn import MaskLayer

BLUE, ORANGE, GREEN, GREY = "#2f6db3", "#c96f14", "#2f7d4b", "#70757e"
SCALES = {0.5: GREEN, 1.0: BLUE, 4.0: ORANGE}


def mask(path: Path) -> None:
    """The mask function of the scaled input, and the gradient that the sign gets from it."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    z = torch.linspace(-3, 3, 601, requires_grad=True)
    for scale, colour in SCALES.items():
        y = MaskLayer()(scale * z)
        (gradient,) = torch.autograd.grad(y.sum(), z)
        x, label = z.detach().numpy(), f"c = {scale:g}"
        left.plot(x, y.detach().numpy(), color=colour, label=label)
        right.plot(x, gradient.numpy(), color=colour, label=label)
    left.step([-3, 0, 3], [-1, 1, 1], where="post", color=GREY, linestyle=":", label="sign")
    left.set_title("M(cz) = 2 s(3cz) - 1: the same sign for every c > 0")
    right.set_title("its derivative: what the sign passes back")
    for axes in (left, right):
        axes.set_xlabel("z")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    save(figure, path)


def slopes(file: Path, path: Path) -> None:
    """Histogram of the exponents of all slopes of an integer program."""
    exponents: Counter[int] = Counter()
    for node in read_graph(file).nodes:
        for step in node.epilogue:
            if step.kind == "shift_prelu":
                exponents.update(step.params["shifts"][:, 0].tolist())
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.bar(list(exponents), list(exponents.values()), color=BLUE)
    axes.set_xlabel("exponent of the slope")
    axes.set_ylabel("channels")
    axes.set_title("slopes that QRPReLU has learned (start: -3)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25, axis="y")
    save(figure, path)


def counts(path: Path) -> None:
    """Operations of ab_reactnet18 by kind, in both arithmetics."""
    found = {"float": programme("float"), "integer": programme("integer")}
    kinds = list(Operations().to_dict())
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for at, (name, colour) in enumerate((("float", ORANGE), ("integer", BLUE))):
        values = [count / 1e6 for count in found[name].counts()]
        places = np.arange(len(kinds)) + 0.4 * at - 0.2
        bars = axes.bar(places, values, 0.38, color=colour, label=f"{name} arithmetic")
        axes.bar_label(bars, [f"{v:.3g}" if v else "0" for v in values], fontsize=8)
    axes.set_xticks(range(len(kinds)), [kind.replace("_", "\n") for kind in kinds])
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(0, 5000)
    axes.set_ylabel("million an image")
    axes.set_title("ab_reactnet18 at 224x224: what the engine computes")
    axes.legend(frameon=False)
    save(figure, path)


def programme(arithmetic: str) -> Operations:
    """The operations of ab_reactnet18, compiled with random weights."""
    torch.manual_seed(0)
    model = signbit.create_model("ab_reactnet18").eval()
    x = torch.randn(1, 3, 224, 224)
    if arithmetic == "float":
        model = signbit.calibrate(signbit.to_8bit(model, x), [x])
    preprocessing = {"mean": [0.45] * 3, "std": [0.225] * 3}
    compiled = signbit.compile(
        model, x, preprocessing=preprocessing, arithmetic=arithmetic, verify=False
    )
    return certify(compiled.graph).total


def save(figure: Figure, path: Path) -> None:
    """Write an SVG without anything that changes from run to run."""
    with rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("program", type=Path, nargs="?", help="an integer program, for its slopes")
    arguments = parser.parse_args()
    folder = Path(__file__).parent
    mask(folder / "ab_mask.svg")
    counts(folder / "ab_counts.svg")
    shutil.copyfile(folder.parents[1] / "results/ab_cifar10/curves.png", folder / "ab_curves.png")
    if arguments.program is not None:
        slopes(arguments.program, folder / "ab_slopes.svg")


if __name__ == "__main__":
    main()
