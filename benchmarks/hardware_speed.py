"""How long `signbit.hardware` takes: a deep network on one design, and on more than 1,000.

The network is `bnext_tiny` as a file, from reading it to its report: counts, cycles, energy.
The sweep has every dataflow, size, lane count and vector width of `GRID`, and shows its progress.

    python -m benchmarks.hardware_speed                  # results/hardware/speed.csv
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.progress import Progress

import signbit
from benchmarks.common import wide_console, write_csv
from signbit.cli.networks import example_input, untrained_network
from signbit.hardware import workload_of
from signbit.hardware.energy import EnergyTable
from signbit.hardware.report import evaluate
from signbit.hardware.sweep import designs, sweep
from signbit.hardware.systolic import DATAFLOWS, SystolicArray
from signbit.runtime.benchmark import cpu_name

NETWORK = "bnext_tiny"
GRID = {
    "dataflow": DATAFLOWS,
    "size": (4, 8, 12, 16, 24, 32, 48, 64, 96, 128),
    "binary_lanes": (4, 8, 16, 32, 64),
    "vector_width": (4, 8, 16, 32, 64, 128, 256),
}


def median_seconds(work: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("results/hardware/speed.csv"))
    options = parser.parse_args()
    console = wide_console()
    trained = untrained_network(NETWORK, size=(224, 224))
    x = example_input(trained)
    signbit.calibrate(trained.model, [x])
    array, table = SystolicArray.load("binE-16"), EnergyTable.load()
    arrays = designs(array, **GRID)
    with tempfile.TemporaryDirectory() as folder:
        program = signbit.compile(trained.model, x, verify=False)
        path = program.save(Path(folder) / "network.signbit")
        workload = workload_of(path)
        once = median_seconds(
            lambda: evaluate(workload_of(path), array, table, "the compiled graph").to_dict(),
            options.rounds,
        )
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("designs", total=len(arrays) * options.rounds)
            many = median_seconds(
                lambda: sweep(workload, arrays, lambda *_: progress.advance(task)), options.rounds
            )
    layers = len(workload.layers)
    rows = [
        {"what": f"{NETWORK}, a design", "layers": layers, "designs": 1, "seconds": round(once, 4)},
        {
            "what": f"{NETWORK}, a sweep",
            "layers": layers,
            "designs": len(arrays),
            "seconds": round(many, 4),
        },
    ]
    write_csv(options.output, [row | {"cpu": cpu_name()} for row in rows])
    for row in rows:
        console.print(
            f"{row['what']}: {layers} layers, {row['designs']} designs, {row['seconds']} s"
        )


if __name__ == "__main__":
    main()
