"""Draws the pictures of docs/hardware.md.

hardware_timeline.png: BiNeal-18 of width 1.5 on binE-16, layer by layer. hardware_sensitivity.png
and hardware_vector.png are from results/hardware, which pages cannot reach from their folder.

    python docs/pictures/hardware.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

import signbit
from signbit.hardware.systolic import SystolicArray, estimate
from signbit.hardware.workload import workload_of
from signbit.plots.hardware import plot_timeline

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parents[1] / "results" / "hardware"


def main() -> None:
    torch.manual_seed(0)
    model = signbit.create_model("bineal18", width=1.5).eval()
    x = torch.randn(1, 3, 224, 224)
    signbit.calibrate(model, [x])
    compiled = signbit.compile(model, x, verify=False)
    array = SystolicArray.load("binE-16")
    found = estimate(workload_of(compiled, "bineal18, width 1.5"), array)
    layers = [layer.to_dict() for layer in found.layers]
    title = f"bineal18, width 1.5, on {array.name}"
    plot_timeline(layers, FOLDER / "hardware_timeline.png", title=title)
    for name in ("sensitivity", "vector"):
        shutil.copy(RESULTS / f"{name}-as-compiled.png", FOLDER / f"hardware_{name}.png")


if __name__ == "__main__":
    main()
