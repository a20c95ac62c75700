"""How long large networks take to compile, verification included, and in how much memory.

Each network is made with random weights, calibrated and compiled for one image in a process of its
own, saved, loaded and run once.

    python -m benchmarks.compile_time                       # bnext_tiny to bnext_large
    python -m benchmarks.compile_time --networks bnext_large
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.common import machine_columns, wide_console, write_csv

NETWORKS = ("bnext_tiny", "bnext_small", "bnext_middle", "bnext_large")


def compile_once(name: str, size: int) -> dict[str, Any]:
    """Compile one network in this process."""
    import torch

    import signbit

    torch.manual_seed(0)
    model = signbit.create_model(name).eval()
    x = torch.randn(1, 3, size, size)
    signbit.calibrate(model, [x])
    before, cpu = time.perf_counter(), time.process_time()
    compiled = signbit.compile(model, x)
    seconds, cpu_seconds = time.perf_counter() - before, time.process_time() - cpu
    with tempfile.TemporaryDirectory() as folder:
        file = compiled.save(Path(folder) / "model.signbit")
        session = signbit.load(file)
        (logits,) = session(x.numpy())[None]
        found = file.stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "network": name,
        "size": size,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_bytes": peak,
        "file_bytes": found,
        "finite": bool(abs(logits).max() < float("inf")),
        "engine": compiled.report.engine,
        **machine_columns(session.isa),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--output", type=Path, default=Path("results/compile-time.csv"))
    parser.add_argument("--once", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        write_csv(options.output, [compile_once(options.once, options.size)])
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks:
            part = Path(folder) / f"{name}.csv"
            command = [sys.executable, "-m", "benchmarks.compile_time", "--once", name]
            command += ["--size", str(options.size), "--output", str(part)]
            subprocess.run(command, check=True)
            with part.open() as file:
                rows += csv.DictReader(file)
    table = Table("network", "seconds", "of the CPU", "peak memory", "file")
    for row in rows:
        memory, size = int(row["peak_bytes"]) / 1e9, int(row["file_bytes"]) / 1e6
        table.add_row(
            row["network"], row["seconds"], row["cpu_seconds"], f"{memory:.1f} GB", f"{size:.1f} MB"
        )
    wide_console().print(table)
    write_csv(options.output, rows)


if __name__ == "__main__":
    main()
