"""Icarus Verilog, Verilator and Yosys, where they are installed: simulate, check, count cells."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path

from signbit.hardware.rtl.circuit import Circuit
from signbit.hardware.rtl.errors import CircuitError

SIMULATORS = ("icarus", "verilator")
_PROGRAMS = {
    "icarus": ("iverilog", "vvp"),
    "verilator": ("verilator", "make", "c++"),
    "yosys": ("yosys",),
}
_PACKAGES = {"icarus": "iverilog", "verilator": "verilator and g++", "yosys": "yosys"}


def has(tool: str) -> bool:
    """Whether all programs of a tool (`icarus`, `verilator`, `yosys`) are on the path."""
    return all(shutil.which(program) for program in _PROGRAMS[tool])


def require(tool: str) -> None:
    """Raises CircuitError, naming the package to install, where a tool is absent."""
    missing = [program for program in _PROGRAMS[tool] if not shutil.which(program)]
    if missing:
        raise CircuitError(
            f"{tool} needs {', '.join(missing)}, which this machine has not: install Debian's "
            f"{_PACKAGES[tool]}"
        )


@dataclass(frozen=True)
class Simulation:
    """What a test bench said.

    Attributes:
        passed: all came, as expected, and no output changed before it was taken.
        vectors: output pixels, with all channels; 0 where the circuit stalled.
        mismatches: transfers that differ.
        broken: transfers that changed while they waited.
        cycles: from the first result to the last.
        log: its lines.
    """

    passed: bool
    vectors: int
    mismatches: int
    broken: int
    cycles: int
    log: str


def simulate(
    circuit: Circuit, folder: Path, simulator: str, seed: int = 1, gaps: int = 3
) -> Simulation:
    """Run a circuit's test bench, which lies in `folder` with the circuit.

    `gaps`: of 8 cycles in which either side waits, 0..7. Raises CircuitError for an unknown or
    absent simulator, and where it refuses the Verilog.
    """
    if simulator not in SIMULATORS:
        raise CircuitError(f"unknown simulator {simulator!r}: {' or '.join(SIMULATORS)}")
    if gaps not in range(8):
        raise CircuitError(f"gaps must be 0..7 of 8 cycles, got {gaps}")
    require(simulator)
    bench = f"{circuit.name}_tb"
    sources = [*circuit.sources, f"{bench}.v"]
    arguments = [f"+seed={seed}", f"+gaps={gaps}"]
    if simulator == "icarus":
        _run(["iverilog", "-g2005-sv", "-o", f"{bench}.vvp", "-s", bench, *sources], folder)
        log = _run(["vvp", "-n", f"{bench}.vvp", *arguments], folder)
    else:
        build = ["verilator", "--binary", "-Wno-fatal", "-Wno-WIDTH", "-Wno-BLKSEQ"]
        build += ["-CFLAGS", "-O1", "-MAKEFLAGS", "-j1", "--top-module", bench, *sources]
        _run(build, folder)
        log = _run([f"./obj_dir/V{bench}", *arguments], folder)
    return _read(log, circuit.name)


def _read(log: str, name: str) -> Simulation:
    pattern = r"(PASS|FAIL) vectors=(\d+) mismatches=(\d+) broken=(\d+) cycles=(-?\d+)"
    found = re.search(pattern, log)
    if found is None:
        raise CircuitError(f"{name}: the simulation ended without a result:\n{log[-2000:]}")
    numbers = [int(number) for number in found.groups()[1:]]
    return Simulation(found[1] == "PASS", *numbers, log)


def lint(circuit: Circuit, folder: Path) -> str:
    """What `verilator --lint-only -Wall` says of a circuit in `folder`; nothing where it is clean.

    Raises CircuitError where Verilator is absent.
    """
    require("verilator")
    command = ["verilator", "--lint-only", "-Wall", "--top-module", circuit.name]
    done = subprocess.run(
        [*command, *circuit.sources], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stderr.strip()


@dataclass(frozen=True)
class Cells:
    """Cells of a Xilinx 7-series device.

    Attributes:
        lut: look-up tables of 1 to 6 inputs.
        lutram: look-up tables that are memory, in units of LUT6.
        mux: F7 and F8 multiplexers, which come with look-up tables.
        ff: flip-flops.
        carry: CARRY4.
        dsp: DSP48E1.
        bram: RAMB36E1; a RAMB18E1 is a half.
    """

    lut: int
    lutram: int
    mux: int
    ff: int
    carry: int
    dsp: int
    bram: float

    def to_dict(self) -> dict[str, float]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


# LUT6 of a distributed memory primitive (UG474, table "Distributed RAM Configuration")
_LUTRAM = {
    "RAM32X1S": 1, "RAM32X1D": 2, "RAM64X1S": 1, "RAM64X1D": 2, "RAM128X1S": 2, "RAM128X1D": 4,
    "RAM256X1S": 4, "RAM32M": 4, "RAM64M": 4, "SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1,
}  # fmt: skip
_OTHER = {"BUFG", "IBUF", "OBUF", "INV", "GND", "VCC"}


def synthesize(folder: Path, top: str, sources: list[str], *, dsp: bool = True) -> Cells:
    """Cells that Yosys `synth_xilinx -family xc7` makes of Verilog files in `folder`.

    Args:
        top: the top module.
        sources: names of the files.
        dsp: whether multiplications may become DSP48E1.

    Raises CircuitError where Yosys is absent or refuses the files.
    """
    require("yosys")
    options = "" if dsp else " -nodsp"
    script = f"read_verilog {' '.join(sources)}; synth_xilinx -family xc7 -flatten -noiopad"
    # an enable or a reset costs no look-up table: flip-flops of the family have both
    log = _run(
        ["yosys", "-q", "-p", f"{script} -top {top}{options}; tee -o /dev/stdout stat"], folder
    )
    return count_cells(log)


def count_cells(report: str) -> Cells:
    """The cells of a report of `stat`. Raises CircuitError for a cell that is not known."""
    counts: dict[str, int] = {}
    for line in report.rsplit("Number of cells:", 1)[-1].splitlines()[1:]:
        found = re.fullmatch(r"\s+(\w+)\s+(\d+)", line)
        if found is None:
            break
        counts[found[1]] = int(found[2])
    if not counts:
        raise CircuitError("the report has no cells")
    total = dict.fromkeys(("lut", "lutram", "mux", "ff", "carry", "dsp", "bram"), 0)
    for cell, count in counts.items():
        if re.fullmatch(r"LUT[1-6]", cell):
            total["lut"] += count
        elif cell in _LUTRAM:
            total["lutram"] += count * _LUTRAM[cell]
        elif cell in ("MUXF7", "MUXF8"):
            total["mux"] += count
        elif cell.startswith("FD"):
            total["ff"] += count
        elif cell == "CARRY4":
            total["carry"] += count
        elif cell == "DSP48E1":
            total["dsp"] += count
        elif cell in ("RAMB36E1", "RAMB18E1"):
            total["bram"] += count * (1 if cell == "RAMB36E1" else 0.5)
        elif cell == "INV":
            total["lut"] += count
        elif cell not in _OTHER:
            raise CircuitError(f"the report has {cell}, a cell that is not known")
    return Cells(**total)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr + done.stdout)[-3000:]
        raise CircuitError(f"{command[0]} failed in {folder}:\n{words}")
    return done.stdout
