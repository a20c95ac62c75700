"""Memory and start: peak resident memory, time from a file to the first result, imports.

Every measurement is a fresh Python process, the scenarios taking turns, the files in the disk cache.

- peak: the most resident memory of a process that imports the engine, loads the network and runs
  it once, beyond that of a Python with NumPy.
- load: from the call that loads the file to the first result, the engine imported before.
- import: of the engine, NumPy imported before. `signbit.load` imports `signbit.runtime` when it is
  first used: this is counted here.

    python -m benchmarks.memory
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    Quartiles,
    calibration_batch,
    machine_columns,
    wide_console,
    write_csv,
)
from benchmarks.networks import Files, make_files
from signbit.runtime import instruction_sets
from signbit.runtime.benchmark import cpu_name

EMPTY = "Python with NumPy"

# Each sets `importing` and `load`, of which the process keeps the times; {file} is the network.
SCENARIOS = {
    EMPTY: """
def importing(): pass
def load(file): pass
""",
    "bineal18, signbit": """
def importing():
    global runtime
    import signbit.runtime as runtime
def load(file):
    return runtime.load(file, threads=1)(x)
""",
    "ResNet-18 int8, OpenVINO": """
def importing():
    global openvino
    import openvino
def load(file):
    model = openvino.Core().compile_model(
        file, "CPU", {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    )
    return model.create_infer_request().infer({0: x}, share_inputs=True)
""",
    "ResNet-18 int8, ONNX Runtime": """
def importing():
    global onnxruntime
    import onnxruntime
def load(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})
""",
}

# Not getrusage: its peak is inherited from the process that started this one.
PROCESS = """
import sys
import time
import numpy
{scenario}
start = time.perf_counter()
importing()
imported = time.perf_counter()
x = numpy.zeros((1, 3, {size}, {size}), numpy.float32)
begin = time.perf_counter()
result = load(sys.argv[1])
end = time.perf_counter()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("[%f, %f, %s]" % ((imported - start) * 1e3, (end - begin) * 1e3, peak.split()[1]))
"""


def run(scenario: str, file: Path, size: int) -> tuple[float, float, float]:
    """Milliseconds of the import, milliseconds of load and first result, peak in MB."""
    code = PROCESS.format(scenario=SCENARIOS[scenario], size=size)
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], check=True, text=True, stdout=subprocess.PIPE
    )
    imported, loaded, peak = json.loads(done.stdout)
    return imported, loaded, peak * 1024 / 1e6


def measure(files: Files, size: int, rounds: int) -> list[dict[str, Any]]:
    """A row a scenario."""
    paths = {
        EMPTY: files.fp32,
        "bineal18, signbit": files.binary["bineal18"],
        "ResNet-18 int8, OpenVINO": files.int8["all layers"],
        "ResNet-18 int8, ONNX Runtime": files.int8["all layers"],
    }
    for name in SCENARIOS:  # fills the disk cache
        run(name, paths[name], size)
    samples: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SCENARIOS}
    for _ in range(rounds):
        for name in SCENARIOS:
            samples[name].append(run(name, paths[name], size))
    values = {name: np.array(sample).T for name, sample in samples.items()}
    empty = float(np.median(values[EMPTY][2]))
    return [
        {
            "scenario": name,
            "size": size,
            **Quartiles.of(peak).columns("peak_mb"),
            "peak_beyond_empty_mb": round(float(np.median(peak)) - empty, 3),
            **Quartiles.of(loaded).columns("load_ms"),
            **Quartiles.of(imported).columns("import_ms"),
            "file_bytes": paths[name].stat().st_size,
            "rounds": rounds,
            **machine_columns(instruction_sets()[0]),
        }
        for name, (imported, loaded, peak) in values.items()
    ]


def show(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table(title=f"Fresh processes on {cpu_name()}, one thread, medians and quartiles")
    table.add_column("network, engine")
    for column in ("peak MB", "beyond empty MB", "load to first result ms", "import ms"):
        table.add_column(column, justify="right")

    def text(row: dict[str, Any], name: str) -> str:
        return str(Quartiles(*(row[f"{name}_{key}"] for key in ("q1", "median", "q3"))))

    for row in rows:
        table.add_row(
            row["scenario"],
            text(row, "peak_mb"),
            f"{row['peak_beyond_empty_mb']:.2f}",
            text(row, "load_ms"),
            text(row, "import_ms"),
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="processes for each scenario")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--calibration", type=Path, help="folder or .tar of photographs")
    parser.add_argument("--output", type=Path, default=Path("results/memory.csv"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    console = wide_console()
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(calibration_batch(options.calibration, options.size, 8), Path(folder))
        rows = measure(files, options.size, options.rounds)
    show(rows, console)
    write_csv(options.output, rows)
    console.print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
