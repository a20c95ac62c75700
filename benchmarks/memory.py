"""Memory and start: peak resident memory, time from a file to the first result, imports.

Every measurement is a fresh Python process; scenarios take turns, files are in the disk cache.

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
    add_arguments,
    calibration_batch,
    machine_columns,
    wide_console,
    write_csv,
)
from benchmarks.networks import make_files
from signbit.rivals.engines import pinned, prepare_rivals
from signbit.rivals.timing import CLOCKS, Quartiles
from signbit.runtime import instruction_sets
from signbit.runtime.benchmark import cpu_name

EMPTY = "Python with NumPy"
VARIANT = "all layers"

# Each defines what is timed: `importing` and `load`.
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
    return runtime.load(file, threads=1, isa={isa!r})(x)
""",
    "ResNet-18 int8, OpenVINO": """
def importing():
    global openvino
    import openvino
def load(file):
    model = openvino.Core().compile_model(
        file, "CPU", {{"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}}
    )
    return model.create_infer_request().infer({{0: x}}, share_inputs=True)
""",
    "ResNet-18 int8, ONNX Runtime": """
def importing():
    global onnxruntime
    import onnxruntime
def load(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_free_dimension_override_by_name("N", 1)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return session.run(None, {{"x": x}})
""",
}

# Not getrusage: its peak is inherited from the process that started this one.
PROCESS = """
import sys
from time import {clock} as now
import numpy
{scenario}
start = now()
importing()
imported = now()
x = numpy.zeros((1, 3, {size}, {size}), numpy.float32)
begin = now()
result = load(sys.argv[1])
end = now()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("[%f, %f, %s]" % ((imported - start) * 1e3, (end - begin) * 1e3, peak.split()[1]))
"""


def run(scenario: str, file: Path, size: int, options: argparse.Namespace) -> list[float]:
    """Milliseconds of the import, milliseconds of load and first result, peak in MB."""
    code = PROCESS.format(
        clock=CLOCKS[options.clock],
        scenario=SCENARIOS[scenario].format(isa=options.isa),
        size=size,
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], check=True, text=True, stdout=subprocess.PIPE
    )
    imported, loaded, peak = json.loads(done.stdout)
    return [imported, loaded, peak * 1024 / 1e6]


def openvino_file(onnx: Path, size: int) -> Path:
    """The network in OpenVINO's own format, for one image: what it loads fastest."""
    import openvino

    model = openvino.Core().read_model(onnx)
    model.reshape([1, 3, size, size])
    path = onnx.with_suffix(".xml")
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def measure(
    calibration: np.ndarray, folder: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row a scenario."""
    size = calibration.shape[-1]
    files = make_files(calibration, folder, [("bineal18", 1.0)], [VARIANT])
    int8 = files.int8[VARIANT]
    paths = {
        EMPTY: int8,
        "bineal18, signbit": files.binary["bineal18"],
        "ResNet-18 int8, OpenVINO": openvino_file(int8, size),
        "ResNet-18 int8, ONNX Runtime": int8,
    }
    samples: dict[str, list[list[float]]] = {name: [] for name in SCENARIOS}
    with pinned(1):
        for name in SCENARIOS:  # fills the disk cache
            run(name, paths[name], size, options)
        for _ in range(options.rounds):
            for name in SCENARIOS:
                samples[name].append(run(name, paths[name], size, options))
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
            "rounds": options.rounds,
            "clock": options.clock,
            **machine_columns(options.isa or instruction_sets()[0]),
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
    add_arguments(parser, "results/memory.csv")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--calibration", type=Path, help="folder or .tar of photographs")
    options = parser.parse_args()
    prepare_rivals(options.isa)
    warnings.filterwarnings("ignore")
    console = wide_console()
    with tempfile.TemporaryDirectory() as folder:
        images = calibration_batch(options.calibration, options.size, 8)
        rows = measure(images, Path(folder), options)
    show(rows, console)
    write_csv(options.output, rows)
    console.print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
