"""The long runs behind docs/trust.md: random convolutions, mutated files, threads in sessions.

Builds what is missing with the Makefile's targets, prints what each program prints, and keeps it
under results/trust, with the command, the machine and the time it took. Nothing is written for a
run that fails.

    python benchmarks/trust.py                  # all of them, about half an hour on two cores
    python benchmarks/trust.py --only neon      # convolution, neon, mutations, stress, races
    python benchmarks/trust.py --built          # without making the targets first
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from pathlib import Path

from signbit.runtime.benchmark import cpu_name
from signbit.runtime.session import available_threads

ROOT = Path(__file__).parents[1]
SYSROOT = "/usr/aarch64-linux-gnu"

# name -> the make target that builds it (and runs it in short), and the command of the long run
RUNS: dict[str, tuple[str, list[str]]] = {
    "convolution": ("test-native", ["build/editable/native/tests/test_convolution", "10000", "1"]),
    "neon": (
        "test-arm",
        [
            "qemu-aarch64", "-cpu", "max", "-L", SYSROOT,
            "build/arm/tests/test_convolution", "10000", "1",
        ],
    ),
    "mutations": ("test-asan", ["build/asan/tests/test_mutations", "1000000", "1"]),
    "stress": ("test-native", ["build/editable/native/tests/test_stress", "60", "1000"]),
    "races": ("test-tsan", ["build/tsan/tests/test_stress", "60", "1000"]),
}  # fmt: skip


def main() -> None:
    """Run what was asked for; exit with 1 if any of it failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--built", action="store_true", help="run the programs as they lie")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "trust")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    failed = [
        name
        for name in options.only
        if not ((options.built or build(name)) and run(name, options.output / f"{name}.txt"))
    ]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def build(name: str) -> bool:
    """Make the target of a run."""
    target, _ = RUNS[name]
    made = subprocess.run(["make", target], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
    if not made:
        print(f"{name}: make {target} failed", file=sys.stderr)
    return made


def run(name: str, path: Path) -> bool:
    """Run one program; what it prints goes to `path` if it succeeds."""
    _, command = RUNS[name]
    print(f"{name}: {' '.join(command)}", flush=True)
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    seconds = time.monotonic() - start
    print(done.stdout, flush=True)
    if done.returncode:
        print(f"{name}: exit status {done.returncode}", file=sys.stderr)
        return False
    machine = f"{cpu_name()} ({platform.machine()}), {available_threads()} CPUs"
    head = f"$ {' '.join(command)}\n# {machine}; {seconds:.0f} s\n"
    partial = path.with_suffix(".partial")
    partial.write_text(head + done.stdout)
    partial.replace(path)
    return True


if __name__ == "__main__":
    main()
